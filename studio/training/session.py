"""The trainings as a page sees them: past runs, the queue, and the run that this page shows. No torch."""

from dataclasses import dataclass
from functools import lru_cache

from studio.core.errors import RunError
from studio.core.paths import UserData
from studio.jobs.folder import BUSY_STATES, RunStatus, read_status
from studio.jobs.listing import JobLine, has_work
from studio.jobs.session import JobSession
from studio.training.folder import RunFolder
from studio.training.follower import RunHistory, follow_run

KEPT_FOLLOWERS = 16  # a page follows its run and those that it compares with it


@dataclass(frozen=True)
class TrainingView:
    """What a page shows of trainings, at one moment.

    Attributes:
        names: of all runs, newest first.
        jobs: the queue's lines, as far as they are of interest.
        run: the one that the page shows; None where there is none.
        status: of that run.
        history: what it told.
        active: whether anything runs or is about to, so that the page must follow.
        problem: why queue or run could not be read, or that the run is gone, in a sentence.
    """

    names: tuple[str, ...] = ()
    jobs: tuple[JobLine, ...] = ()
    run: RunFolder | None = None
    status: RunStatus | None = None
    history: RunHistory | None = None
    active: bool = False
    problem: str = ""


class TrainingSession(JobSession[RunFolder]):
    """Looks at runs, and steers their jobs. Any thread may ask."""

    def __init__(self, user_data: UserData) -> None:
        super().__init__(user_data, "train", folder=RunFolder, parent=user_data.runs)
        self.thumbnails = user_data.cache / "run-thumbnails"
        self._follower = lru_cache(KEPT_FOLLOWERS)(lambda run: follow_run(run.events))

    def view(self, name: str = "") -> TrainingView:
        """The state now, with the run of that name; without a name with one that is being worked on, else the newest.

        The name may come from a page: it is never taken for a path.
        """
        runs = self.folders()
        names = tuple(run.name for run in runs)
        jobs: tuple[JobLine, ...] = ()
        try:
            jobs = self.jobs()
            run = self.to_show(name, runs)
            status = read_status(run) if run else None
        except RunError as error:  # of a queue that can be read the rest is true still
            return TrainingView(names=names, jobs=jobs, active=has_work(jobs), problem=str(error))
        history = self.history(run) if run else None
        busy = status is not None and status.state in BUSY_STATES
        return TrainingView(names, jobs, run, status, history, has_work(jobs) or busy)

    def history(self, run: RunFolder) -> RunHistory:
        """What a run reported up to now."""
        return self._follower(run).look()
