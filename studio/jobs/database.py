"""The queue's database: opened for each use, so that any process and any thread may; each change whole or not at all.

Every connection waits for the others (SQLite counts its own naps there, so a sleeping machine trips nothing), and a
change is on the disk when it returns: WAL with `synchronous = full`.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import FileLock

from studio.core.errors import RunError, is_disk_full
from studio.core.language import _

SCHEMA_VERSION = 1
# What passes by itself: others hold the file, or the disk, which has no room for it or for the files beside it.
_PASSING = (
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
)
_DAMAGED = (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)  # and this never does
_BUSY_SECONDS = 30
_JOBS_TABLE = """
create table jobs (
    id integer primary key autoincrement,
    kind text not null,
    run_folder text not null,
    title text not null,
    position integer not null default 0,
    state text not null default 'queued',
    asked text not null default '',
    attempts integer not null default 0,
    pid integer not null default 0,
    process_start_time real not null default 0,
    message text not null default '',
    created_at text not null,
    started_at text,
    ended_at text
)
"""


class QueueBusyError(RunError):
    """The queue cannot be used for now, because it is locked or the disk is full: trying again may help."""


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to look; the file is made where it is not there yet.

    Raises:
        QueueBusyError: where the file is locked, or the disk is full.
        RunError: where the file cannot be read for another reason, or is of a newer studio.
    """
    try:
        with closing(_connect(path)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise _problem(path, error) from error


@contextmanager
def changing(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection in a transaction, which is taken back where the block raises.

    Raises:
        RunError: where the file cannot be written, or is of a newer studio.
    """
    with reading(path) as connection:
        connection.execute("begin immediate")
        with connection:
            yield connection


def _problem(path: Path, error: sqlite3.Error | OSError) -> RunError:
    # An extended code has the plain one in its lowest byte.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & 0xFF
    if code in _DAMAGED:
        return RunError(
            _(
                "The queue of jobs ({path}) is damaged: {error}. Stop the studio, and move that file "
                "and those beside it that begin with {name} away: a new one is made. Runs and "
                "batches are kept in their own folders.",
                path=path,
                error=error,
                name=path.name,
            )
        )
    passes = code in _PASSING or is_disk_full(error)
    return (QueueBusyError if passes else RunError)(
        _(
            "The queue of jobs ({path}) cannot be used now: {error}. Check that the disk has "
            "space and that the file is writable, then try again. Running jobs continue.",
            path=path,
            error=error,
        )
    )


def _connect(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _problem(path, error) from error
    connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
    try:
        connection.row_factory = sqlite3.Row
        connection.execute("pragma synchronous = full")
        version = _version(connection)
        if version == 0:
            _create(connection, path)
        elif version > SCHEMA_VERSION:
            raise RunError(
                _(
                    "The queue of jobs ({path}) was made by a newer studio (version {version} of its "
                    "layout, this studio knows {known}). Update this studio, or choose another "
                    "folder with --user-data.",
                    path=path,
                    version=version,
                    known=SCHEMA_VERSION,
                )
            )
    except (sqlite3.Error, RunError):
        connection.close()
        raise
    return connection


def _create(connection: sqlite3.Connection, path: Path) -> None:
    # SQLite does not wait for others when it changes to WAL, so two first callers take turns here.
    with FileLock(f"{path}.lock"):
        connection.execute("pragma journal_mode = wal")
        connection.execute("begin immediate")
        with connection:
            if _version(connection) == 0:
                connection.execute(_JOBS_TABLE)
                connection.execute(f"pragma user_version = {SCHEMA_VERSION}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("pragma user_version").fetchone()[0])


def set_line(connection: sqlite3.Connection, ids: Sequence[int]) -> None:
    """The jobs that wait, in the order in which they begin."""
    connection.execute("update jobs set position = 0 where state != 'queued'")
    places = [(place, job_id) for place, job_id in enumerate(ids, start=1)]
    connection.executemany("update jobs set position = ? where id = ?", places)


def change_job(connection: sqlite3.Connection, job_id: int, **values: str | float | None) -> None:
    """Set columns of one job."""
    columns = ", ".join(f"{name} = ?" for name in values)
    connection.execute(f"update jobs set {columns} where id = ?", (*values.values(), job_id))
