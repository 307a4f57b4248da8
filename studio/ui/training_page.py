"""What the Training tab is about, the same in every tab of the browser: it outlives a reload, and nothing of a run."""

from dataclasses import dataclass, field

from studio.dataset.desk import DatasetDesk
from studio.errors import RunError
from studio.jobs.preflight_runner import PreflightRunner
from studio.jobs.training_desk import TrainingDesk, TrainingView
from studio.runs.folder import RunFolder
from studio.runs.follower import RunHistory
from studio.ui.training_pictures import Thumbnails
from studio.ui.training_plot import PlotCache, PlotOptions


@dataclass(frozen=True)
class Look:
    """Which picture is looked at: of a run by its name, of a step, its number among those of the step."""

    run: str
    step: int
    picture: int


@dataclass
class TrainingPage:
    """The runs, the preflight, and what of them is chosen to be seen.

    Attributes:
        options, overlay: how curves are drawn, and the names of the runs that are laid over.
        look: the picture in “Look closer”; None where that is closed.
        plot: as it was drawn last.
    """

    desk: TrainingDesk
    datasets: DatasetDesk
    preflight: PreflightRunner
    cpu_only: bool = False
    options: PlotOptions = field(default_factory=PlotOptions)
    overlay: tuple[str, ...] = ()
    look: Look | None = None
    plot: PlotCache = field(default_factory=PlotCache)

    @property
    def thumbnails(self) -> Thumbnails:
        return Thumbnails(self.desk.thumbnails, self.datasets.thumbnails)

    def looked_at(self) -> RunFolder:
        """The run that is looked at.

        Raises:
            RunError: where there is none.
        """
        run = self.desk.view.run
        if run is None:
            raise RunError("There is no run yet.")
        return run

    def laid_over(self, view: TrainingView) -> dict[RunFolder, RunHistory]:
        """The chosen other runs with what they told, but those that are gone meanwhile or are looked at themselves."""
        names = [name for name in self.overlay if name in view.names and (view.run is None or name != view.run.name)]
        runs = [RunFolder(self.desk.user_data.runs / name) for name in names]
        return {run: self.desk.history(run) for run in runs}
