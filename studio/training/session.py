"""The trainings as a page sees them: past runs, the queue, and the run that this page shows. No torch.

It keeps no state of a run: all is read from runs' folders and the queue, so a page that was killed finds it again.
Nor does it keep which run is shown: every page names its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from studio.core.errors import RunError
from studio.core.paths import UserData
from studio.jobs.folder import BUSY_STATES, RunRequest, RunStatus, read_status
from studio.jobs.listing import JobLine, job_lines
from studio.jobs.queue import JobQueue
from studio.jobs.steering import Steering, has_work
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


class TrainingSession:
    """Looks at runs, and steers jobs. Any thread may ask."""

    def __init__(self, user_data: UserData) -> None:
        self.user_data = user_data
        self.queue = JobQueue(user_data)
        self._steering = Steering(user_data, "train")
        self.thumbnails = user_data.cache / "run-thumbnails"
        self._follower = lru_cache(KEPT_FOLLOWERS)(lambda run: follow_run(run.events))

    def view(self, name: str = "") -> TrainingView:
        """The state now, with the run of that name; without a name with one that is being worked on, else the newest.

        The name may come from a page: it is never taken for a path.
        """
        runs = RunFolder.all_in(self.user_data.runs)
        names = tuple(run.name for run in runs)
        jobs: tuple[JobLine, ...] = ()
        waiting = False
        try:
            jobs = self.jobs()
            waiting = has_work(jobs)
            run = _run_to_show(name, runs)
            status = read_status(run) if run else None
        except RunError as error:  # of a queue that can be read the rest is true still
            return TrainingView(names=names, jobs=jobs, active=waiting, problem=str(error))
        history = self.history(run) if run else None
        busy = status is not None and status.state in BUSY_STATES
        return TrainingView(names, jobs, run, status, history, waiting or busy)

    def jobs(self) -> tuple[JobLine, ...]:
        """The queue's lines.

        Raises:
            RunError: where the queue cannot be read.
        """
        return job_lines(self.queue) if self.user_data.database.is_file() else ()

    def history(self, run: RunFolder) -> RunHistory:
        """What a run told up to now."""
        return self._follower(run).look()

    def run_named(self, name: str) -> RunFolder:
        """A run by its whole name, which may come from a page: it is never taken for a path.

        Raises:
            RunError: where there is none of that name.
        """
        return _run_named(name, RunFolder.all_in(self.user_data.runs))

    def queue_run(self, run: RunFolder) -> None:
        """Put a new run into the queue, and see to it that someone works on that.

        Raises:
            RunError: where it is there already, or the queue cannot be written.
            OSError: where the worker cannot be started.
        """
        self._steering.start(run)

    def ask(self, run: RunFolder, request: RunRequest) -> None:
        """Ask a run for images, a checkpoint, a pause or a stop, through its job where it has one.

        Raises:
            RunError: where it cannot be asked.
            OSError: where it cannot be written.
        """
        self._steering.ask(run, request)

    def resume(self, run: RunFolder) -> None:
        """Go on with a run that was paused, stopped or failed.

        Raises:
            RunError: where it cannot be resumed.
            OSError: where the worker cannot be started.
        """
        self._steering.resume(run)

    def move_job(self, job_id: int, *, by: int) -> None:
        """Move a waiting job so many places down the line; up with a negative number, to the first place at most.

        Raises:
            RunError: where it does not wait.
        """
        self.queue.move(job_id, max(1, self.queue.job(job_id).position + by))


def _run_named(name: str, runs: Sequence[RunFolder]) -> RunFolder:
    if not name:
        raise RunError("No run is chosen. Choose one under “Run”.")
    found = next((run for run in runs if run.name == name), None)
    if found is None:
        raise RunError(f"There is no run {name} any more: it was deleted or renamed. Choose another under “Run”.")
    return found


def _run_to_show(name: str, runs: Sequence[RunFolder]) -> RunFolder | None:
    """The named one; without a name one that is being worked on, else the newest."""
    if not runs or name:
        return _run_named(name, runs) if runs else None
    return next((run for run in runs[:20] if read_status(run).state in BUSY_STATES), runs[0])
