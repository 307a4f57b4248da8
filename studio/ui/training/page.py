"""What the Training tab of every page is made from; what one page has chosen to show of it is its `Selection`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from studio.datasets.session import DatasetSession
from studio.training.folder import RunFolder
from studio.training.follower import RunHistory
from studio.training.session import TrainingSession, TrainingView
from studio.ui.shell.preflight_runner import PreflightRunner
from studio.ui.shell.selection import Selection, read_selection
from studio.ui.training.images import Thumbnails
from studio.ui.training.plot import OVERLAY_STYLES, PlotCache, PlotOptions

KEPT_PLOTS = 8

PlotOf = Callable[[str, PlotOptions, tuple[str, ...]], PlotCache]


def _kept_plots() -> PlotOf:
    """Pages that show different plots do not draw each other's anew."""
    return lru_cache(KEPT_PLOTS)(lambda run, options, compared: PlotCache())


@dataclass(frozen=True)
class TrainingPage:
    """The runs and the preflight.

    Attributes:
        plot_of: the plot of a run, so drawn, with those of other runs over it, as it was drawn last.
    """

    session: TrainingSession
    datasets: DatasetSession
    preflight: PreflightRunner
    cpu_only: bool = False
    plot_of: PlotOf = field(default_factory=_kept_plots)

    @property
    def thumbnails(self) -> Thumbnails:
        return Thumbnails(self.session.thumbnails, self.datasets.thumbnails)

    def run_of(self, selection: str) -> RunFolder:
        """The run that a page shows, which a press on it is about.

        Raises:
            RunError: where there is none, or it is gone.
        """
        return self.session.named(read_selection(selection).run)

    def compared_runs(self, selection: Selection, view: TrainingView) -> dict[RunFolder, RunHistory]:
        """The runs to be compared with what they told, but those that are gone or the one that is shown itself."""
        shown = view.run.name if view.run else ""
        names = [name for name in selection.compared if name in view.names and name != shown]
        runs = [RunFolder(self.session.user_data.runs / name) for name in names[: len(OVERLAY_STYLES)]]
        return {run: self.session.history(run) for run in runs}
