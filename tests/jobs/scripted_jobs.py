"""Jobs for the queue's tests: real processes, each a few lines of Python that stand in its run's folder."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from studio.core.paths import UserData
from studio.jobs.queue import Job, JobQueue
from studio.training.folder import RunFolder

# What every job begins with: it notes its process, and can say where it stands and hear what it is asked.
PRELUDE = """
import json, os, signal, sys, time
from pathlib import Path
run = Path(sys.argv[1])
with (run.parent.parent / "started.txt").open("a") as file:
    file.write(f"{run.name} {os.getpid()}\\n")

def say(state, message=""):
    (run / "status.json.part").write_text(json.dumps({"state": state, "message": message, "pid": os.getpid()}))
    (run / "status.json.part").replace(run / "status.json")

def wait_for(*names):
    while not any((run / name).exists() for name in names):
        time.sleep(0.01)
"""
FINISHES = "say('finished', 'All steps are done.')"
# Trains until it is told to end, or is asked to stop or to pause, as a training does.
LONG = """
say('running', 'Step 3.')
wait_for('end', 'requests/stop', 'requests/pause')
if (run / 'requests/stop').exists():
    say('stopped', 'Stopped after step 3.')
elif (run / 'requests/pause').exists():
    say('paused', 'Paused after step 3.')
else:
    say('finished', 'All steps are done.')
"""
KILLS_ITSELF = "say('running'); print('about to go', flush=True); os.kill(os.getpid(), signal.SIGKILL)"
WORKER = """
import logging, sys
from pathlib import Path
from studio.jobs.worker import work
from studio.core.paths import UserData
logging.basicConfig(level=logging.INFO)
def command(job):
    return [sys.executable, str(job.run_folder / "job.py"), str(job.run_folder)]
work(UserData(Path(sys.argv[1])), command=command)
"""
# Stays when there is nothing to do, so that whoever adds or resumes a job starts no real worker beside it.
PATIENT_WORKER = """
import sys, time
from pathlib import Path
from filelock import FileLock
from studio.jobs.queue import JobQueue
from studio.jobs.worker import Worker
from studio.core.paths import UserData
user_data = UserData(Path(sys.argv[1]))
def command(job):
    return [sys.executable, str(job.run_folder / "job.py"), str(job.run_folder)]
with FileLock(user_data.root / "worker.lock"):
    while True:
        Worker(JobQueue(user_data), user_data, command=command).work_through()
        time.sleep(0.1)
"""


def job_process(job: Job) -> list[str]:
    """The command line of a job that `add_job` made."""
    return [sys.executable, str(job.run_folder / "job.py"), str(job.run_folder)]


def worker_process(user_data: UserData) -> list[str]:
    """The command line of a worker that knows such jobs."""
    return [sys.executable, "-P", "-c", WORKER, str(user_data.root)]


def patient_worker_process(user_data: UserData) -> list[str]:
    """The command line of a worker that stays."""
    return [sys.executable, "-P", "-c", PATIENT_WORKER, str(user_data.root)]


def make_run(user_data: UserData, name: str, code: str = FINISHES) -> RunFolder:
    """A run whose job's process runs this code."""
    run = RunFolder(user_data.runs / name)
    run.root.mkdir(parents=True)
    (run.root / "job.py").write_text(PRELUDE + code)
    return run


def add_job(user_data: UserData, name: str, code: str = FINISHES) -> Job:
    """A run, and its job in the queue."""
    return JobQueue(user_data).add("train", make_run(user_data, name, code).root, name)


def started(user_data: UserData) -> list[tuple[str, int]]:
    """The jobs' processes in the order in which they began: the run's name, the process."""
    notes = user_data.root / "started.txt"
    pairs = (line.split() for line in notes.read_text().splitlines()) if notes.exists() else ()
    return [(name, int(pid)) for name, pid in pairs]


def wait_until(condition: Callable[[], object], *, seconds: float = 15) -> None:
    """Wait, and fail where it never comes true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.02)


def processes_of(user_data: UserData) -> list[psutil.Process]:
    """Every living process that has this folder, or one in it, among its arguments."""
    found = []
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
            if process.status() != psutil.STATUS_ZOMBIE and any(str(user_data.root) in word for word in arguments):
                found.append(process)
        except psutil.Error:
            continue
    return found


def workers_of(user_data: UserData) -> list[psutil.Process]:
    """Those of them that are workers, the real one or the tests'."""
    workers = []
    for process in processes_of(user_data):
        try:
            workers += [process] if any("studio.jobs.worker" in word for word in process.cmdline()) else []
        except psutil.Error:
            continue
    return workers


@contextmanager
def new_user_data(folder: Path) -> Iterator[UserData]:
    """An empty `user_data/`; whatever was started for it is ended with it."""
    user_data = UserData(folder / "user_data")
    user_data.root.mkdir()
    yield user_data
    for _ in range(2):  # a worker's last act may have been to start a job
        for process in processes_of(user_data):
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue


def reported(run: RunFolder) -> str:
    """The run's state as it stands on disk, "" where it has none."""
    return str(json.loads(run.status.read_bytes())["state"]) if run.status.exists() else ""


# Has the device as a training has it: waits for it, trains until it is told to end, or asked to stop or to pause.
TRAINS = """
from studio.jobs.device_lock import DeviceLock
from studio.jobs.folder import RunStatus, write_status
from studio.training.folder import RunFolder
lock = DeviceLock(run.parent.parent / "device.lock")

def tell(state, **more):
    pid = os.getpid() if state in ('waiting', 'running') else 0
    write_status(RunFolder(run), RunStatus(state=state, num_steps=3000, pid=pid, **more))

while not lock.acquire(f"training {run.name}"):
    lock.ask_for(f"training {run.name}")
    tell('waiting', message='The device is in use.')
    time.sleep(0.05)
lock.withdraw()
tell('running', step=312, remaining_seconds=4320)
wait_for('end', 'requests/stop', 'requests/pause')
time.sleep(0.5)  # saving takes a moment
asked = 'stopped' if (run / 'requests/stop').exists() else 'paused' if (run / 'requests/pause').exists() else 'finished'
for request in ('stop', 'pause'):
    (run / 'requests' / request).unlink(missing_ok=True)
tell(asked, step=313)
"""


def end_job(run: RunFolder) -> None:
    """Let a job that trains come to its end."""
    (run.root / "end").touch()
