"""The trainings as the page sees them: past runs, the queue, and the one that is looked at. No torch.

It keeps no state of a run: all is read from runs' folders and the queue, so a page that was killed finds it again.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from studio.errors import RunError
from studio.jobs.command import JobLine, job_lines
from studio.jobs.queue import JobQueue
from studio.jobs.steering import Steering, has_work
from studio.paths import UserData
from studio.runs.folder import BUSY_STATES, RunFolder, RunRequest, RunStatus, list_runs, read_status
from studio.runs.follower import RunFollower, RunHistory

KEPT_FOLLOWERS = 8


@dataclass(frozen=True)
class TrainingView:
    """What the page shows of trainings, at one moment.

    Attributes:
        names: of all runs, newest first.
        jobs: the queue's lines, as far as they are of interest.
        run: the one that is looked at; None where there is none.
        status: of that run.
        history: what it told.
        active: whether anything runs or is about to, so that the page must follow.
        problem: why queue or run could not be read, in a sentence.
    """

    names: tuple[str, ...] = ()
    jobs: tuple[JobLine, ...] = ()
    run: RunFolder | None = None
    status: RunStatus | None = None
    history: RunHistory | None = None
    active: bool = False
    problem: str = ""


class TrainingDesk:
    """Looks at runs, and steers jobs. Any thread may ask."""

    def __init__(self, user_data: UserData) -> None:
        self.user_data = user_data
        self.queue = JobQueue(user_data)
        self._steering = Steering(user_data, "train")
        self.thumbnails = user_data.cache / "run-thumbnails"
        self._lock = threading.Lock()
        self._followers: dict[str, RunFollower] = {}
        self._chosen = ""

    @property
    def view(self) -> TrainingView:
        """The state now."""
        runs = list_runs(self.user_data.runs)
        names = tuple(run.name for run in runs)
        jobs: tuple[JobLine, ...] = ()
        waiting = False
        try:
            jobs = job_lines(self.queue) if self.user_data.database.is_file() else ()
            waiting = any(line.job.state in ("queued", "running") for line in jobs)
            run = self._looked_at(runs)
            status = read_status(run) if run else None
        except RunError as error:  # of a queue that can be read the rest is true still
            return TrainingView(names=names, jobs=jobs, active=waiting, problem=str(error))
        history = self.history(run) if run else None
        busy = status is not None and status.state in BUSY_STATES
        return TrainingView(names, jobs, run, status, history, has_work(jobs) or busy)

    def history(self, run: RunFolder) -> RunHistory:
        """What a run told up to now."""
        with self._lock:
            follower = self._followers.pop(run.name, None) or RunFollower(run.events)
            self._followers[run.name] = follower  # last used, last forgotten
            while len(self._followers) > KEPT_FOLLOWERS:
                del self._followers[next(iter(self._followers))]
        return follower.look()

    def choose(self, name: str) -> None:
        """Look at a run.

        Raises:
            RunError: where there is none of that name.
        """
        self._chosen = self.run_named(name).name

    def run_named(self, name: str) -> RunFolder:
        """A run by its whole name, which may come from a page: it is never taken for a path.

        Raises:
            RunError: where there is none of that name.
        """
        found = next((run for run in list_runs(self.user_data.runs) if run.name == name), None)
        if found is None:
            raise RunError(f"There is no run {name}.")
        return found

    def queue_run(self, run: RunFolder) -> None:
        """Put a new run into the queue, see to it that someone works on that, and look at it.

        Raises:
            RunError: where it is there already, or the queue cannot be written.
            OSError: where the worker cannot be started.
        """
        self._steering.start(run)
        self._chosen = run.name

    def ask(self, run: RunFolder, request: RunRequest) -> None:
        """Ask a run for pictures, a checkpoint, a pause or a stop, through its job where it has one.

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
        self._chosen = run.name

    def move_job(self, job_id: int, *, by: int) -> None:
        """Move a waiting job so many places down the line; up with a negative number, to the first place at most.

        Raises:
            RunError: where it does not wait.
        """
        self.queue.move(job_id, max(1, self.queue.job(job_id).position + by))

    def _looked_at(self, runs: Sequence[RunFolder]) -> RunFolder | None:
        """The one that was chosen; else one that runs; else the newest."""
        chosen = next((run for run in runs if run.name == self._chosen), None)
        if chosen is not None or not runs:
            return chosen
        return next((run for run in runs[:20] if read_status(run).state in BUSY_STATES), runs[0])
