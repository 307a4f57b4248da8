"""Fetching a model's files from the Hugging Face Hub so that neither a cut nor a cancel loses what has arrived.

Whom to ask and how to log in is huggingface_hub's, and so is the layout of its cache, which other programs share
(https://huggingface.co/docs/huggingface_hub/guides/manage-cache). The bytes are fetched here: huggingface_hub 2.4
throws away what has arrived of a file when it is interrupted (its files in progress have random names), and its other
transport, Xet, can neither be cancelled nor resumed. Nothing here uses Xet.
"""

import hashlib
import importlib
import logging
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_session, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # both are public, but not re-exported by name
    build_hf_headers,
    hf_raise_for_status,
)

from studio.core.errors import DownloadCancelledError, ModelError
from studio.core.files import open_file
from studio.core.language import _
from studio.core.settings import SHIPPED_MODEL

logger = logging.getLogger(__name__)

DEFAULT_REVISION = "main"
ANSWER_SECONDS = 10.0
REPORT_SECONDS = 0.2
RETRY_SECONDS = 1.0
MAX_FRUITLESS_ATTEMPTS = 5
SPARE_BYTES = 2**30
BUSY_STATUSES = (408, 416, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class DownloadProgress:
    """What has arrived of all files of a model; `file` is the one that is arriving."""

    file: str
    done_bytes: int
    total_bytes: int
    elapsed_seconds: float


@dataclass(frozen=True)
class DownloadWatcher:
    """Watches a download: told of progress at most five times a second, asked all the time whether to stop."""

    on_progress: Callable[[DownloadProgress], None] = lambda _progress: None
    cancelled: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class HubFile:
    """A file of the repository. `digest` names its content: SHA-256 of large files, git's SHA-1 of small ones."""

    name: str
    size_bytes: int
    digest: str


@dataclass(frozen=True)
class HubPlace:
    """A repository's folder in huggingface_hub's cache."""

    cache: Path
    repository: str

    @property
    def folder(self) -> Path:
        return self.cache / repo_folder_name(repo_id=self.repository, repo_type="model")

    @property
    def lock(self) -> Path:
        return self.cache / ".locks" / self.folder.name / "lora-studio.lock"

    def reference(self, revision: str) -> Path:
        return self.folder / "refs" / revision

    def snapshot(self, commit: str) -> Path:
        return self.folder / "snapshots" / commit

    def blob(self, file: HubFile) -> Path:
        return self.folder / "blobs" / file.digest

    def partial(self, file: HubFile) -> Path:
        return self.folder / "blobs" / f"{file.digest}.incomplete"

    def missing_bytes(self, commit: str, file: HubFile) -> int:
        """How much of a file has still to come."""
        if (self.snapshot(commit) / file.name).is_file() or self.blob(file).is_file():
            return 0
        return max(0, file.size_bytes - _size(self.partial(file)))


def hub_refusal(error: Exception, repository: str, revision: str = DEFAULT_REVISION) -> ModelError:
    """What the user reads of an answer of the Hub, or of its silence. Never the error's own text: it has addresses."""
    return ModelError(
        _(
            "The model {repository} is not on this machine, and could not be downloaded from Hugging Face: {reason}",
            repository=repository,
            reason=_refusal_reason(error, revision),
        )
    )


def _refusal_reason(error: Exception, revision: str) -> str:
    if isinstance(error, GatedRepoError):
        return _("its owner wants you to accept terms first. Do so on its page, then log in with `hf auth login`.")
    if isinstance(error, RevisionNotFoundError):
        return _("it has no revision {revision}. Choose one of its branches, tags or commits.", revision=revision)
    if isinstance(error, RepositoryNotFoundError):
        return _(
            "there is no model of this name, or it is private. Check the name; for a private model log in "
            "with `hf auth login`."
        )
    if isinstance(error, OfflineModeIsEnabled):
        why = _("HF_HUB_OFFLINE is set")
    elif isinstance(error, HfHubHTTPError):
        why = _("it answered with status {status}", status=error.response.status_code)
    else:
        why = _("it cannot be reached ({error})", error=type(error).__name__)
    return _(
        "{why}. Go online once to download it, give the folder of a copy, or use {shipped_model}.",
        why=why,
        shipped_model=SHIPPED_MODEL,
    )


def network_errors() -> tuple[type[Exception], ...]:
    """How requests fail. huggingface_hub's versions use httpx or httpx2, whose errors share no base with others."""
    library = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    errors: tuple[type[Exception], ...] = (library.HTTPError, HfHubHTTPError, OfflineModeIsEnabled)
    return errors


def assert_room(place: HubPlace, commit: str, files: Sequence[HubFile]) -> None:
    missing_bytes = sum(place.missing_bytes(commit, file) for file in files)
    free_bytes = shutil.disk_usage(place.folder).free
    if missing_bytes and free_bytes < missing_bytes + SPARE_BYTES:
        raise ModelError(
            _(
                "The model {repository} needs {needed_gb:.1f} GB of disk in {cache}, and "
                "{free_gb:.1f} GB are free. Free some, or set HF_HOME to a folder on another disk.",
                repository=place.repository,
                needed_gb=(missing_bytes + SPARE_BYTES) / 2**30,
                cache=place.cache,
                free_gb=free_bytes / 2**30,
            )
        )


class Download:
    """Fetches files one after the other, and knows how far it is."""

    def __init__(
        self, place: HubPlace, commit: str, endpoint: str, files: Sequence[HubFile], watcher: DownloadWatcher
    ) -> None:
        self.place = place
        self.commit = commit
        self.endpoint = endpoint
        self.files = files
        self.watcher = watcher
        self._total_bytes = sum(file.size_bytes for file in files)
        self._missing_bytes = sum(place.missing_bytes(commit, file) for file in files)
        self._started = time.monotonic()
        self._reported = 0.0

    def run(self) -> None:
        # Its INFO lines hold the signed addresses of the Hub's CDN, which are good for a download by anyone.
        logging.getLogger(type(get_session()).__module__.partition(".")[0]).setLevel(logging.WARNING)
        for file in self.files:
            self._check_cancelled()
            if not (self.place.snapshot(self.commit) / file.name).is_file():
                if not self.place.blob(file).is_file():
                    self._fetch(file)
                _link(self.place.blob(file), self.place.snapshot(self.commit) / file.name)
        if self.files:
            self._report(self.files[-1], last=True)

    def _fetch(self, file: HubFile) -> None:
        """Bring a file to its blob, however often the connection is cut, as long as each attempt brings something."""
        partial = self.place.partial(file)
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.touch()
        fruitless = 0
        while (have := _size(partial)) < file.size_bytes:
            reason = self._receive(file, partial, have)
            fruitless = 0 if _size(partial) > have else fruitless + 1
            if fruitless == MAX_FRUITLESS_ATTEMPTS:
                raise self._broken_off(file, reason)
            if reason:
                logger.info("%s of %s broke off (%s); going on", file.name, self.place.repository, reason)
                self._pause(RETRY_SECONDS * 2**fruitless)
        if _digest(partial, like=file.digest) != file.digest:
            partial.unlink()
            raise ModelError(
                _(
                    "{name} of {repository} arrived damaged and was thrown away. Try again; if it "
                    "happens again, something between here and Hugging Face changes what is downloaded.",
                    name=file.name,
                    repository=self.place.repository,
                )
            )
        partial.replace(self.place.blob(file))

    def _receive(self, file: HubFile, partial: Path, have: int) -> str:
        """One attempt from byte `have` on. Returns why it ended early, empty where it did not."""
        url = hf_hub_url(self.place.repository, file.name, revision=self.commit, endpoint=self.endpoint)
        # Compressed, lengths and ranges would count other bytes than the file's.
        headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
        try:
            with get_session().stream("GET", url, headers=headers, timeout=ANSWER_SECONDS) as answer:
                hf_raise_for_status(answer)
                resumed = answer.status_code == 206
                with partial.open("ab" if resumed else "wb") as target:
                    self._missing_bytes += 0 if resumed else have
                    for chunk in answer.iter_bytes():
                        target.write(chunk)
                        self._missing_bytes -= len(chunk)
                        self._report(file)
                        self._check_cancelled()
        except network_errors() as error:
            status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
            if status is not None and status not in BUSY_STATUSES:
                raise hub_refusal(error, self.place.repository) from error
            return type(error).__name__ if status is None else _("status {status}", status=status)
        return ""

    def _broken_off(self, file: HubFile, reason: str) -> ModelError:
        done = self._total_bytes - self._missing_bytes
        return ModelError(
            _(
                "The download of {repository} stopped at {name}, and {num_attempts} "
                "attempts to resume it failed ({reason}). {done:,} of {total:,} bytes are here "
                "and are kept: try again when the connection is better, and it continues from there.",
                repository=self.place.repository,
                name=file.name,
                num_attempts=MAX_FRUITLESS_ATTEMPTS,
                reason=reason or _("nothing was sent"),
                done=done,
                total=self._total_bytes,
            )
        )

    def _report(self, file: HubFile, *, last: bool = False) -> None:
        now = time.monotonic()
        if last or now - self._reported >= REPORT_SECONDS:
            self._reported = now
            done = self._total_bytes - self._missing_bytes
            self.watcher.on_progress(DownloadProgress(file.name, done, self._total_bytes, now - self._started))

    def _pause(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._check_cancelled()
            time.sleep(min(REPORT_SECONDS, seconds))

    def _check_cancelled(self) -> None:
        if self.watcher.cancelled():
            raise DownloadCancelledError(
                _(
                    "The download of {repository} was cancelled. What has arrived is kept, and the next "
                    "attempt continues from there.",
                    repository=self.place.repository,
                )
            )


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _digest(path: Path, *, like: str) -> str:
    """The digest of a file, of the kind that `like` is: SHA-256, or SHA-1 as git names contents."""
    with open_file(path) as file:
        if len(like) == 64:
            return hashlib.file_digest(file, "sha256").hexdigest()
        return hashlib.sha1(b"blob %d\0" % _size(path) + file.read(), usedforsecurity=False).hexdigest()


def _link(blob: Path, pointer: Path) -> None:
    """Put a blob into its snapshot: by a relative link, or by moving it where links are not allowed (Windows)."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)
    try:
        pointer.symlink_to(Path(*[".."] * len(pointer.relative_to(blob.parent.parent).parts[:-1]), "blobs", blob.name))
    except OSError:
        shutil.move(blob, pointer)
