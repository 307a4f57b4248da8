"""Models from the Hugging Face Hub: found on this machine without asking anyone, or downloaded. No torch.

How they are named is below; which of their files are needed, in `model_folder`.
"""

import logging
import os
import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, not re-exported by name

from studio.core.errors import ModelError
from studio.core.files import assert_regular, read_text, write_atomically
from studio.core.language import _
from studio.engine.hub_download import (
    ANSWER_SECONDS,
    DEFAULT_REVISION,
    Download,
    DownloadProgress,
    DownloadWatcher,
    HubFile,
    HubPlace,
    assert_room,
    hub_refusal,
    network_errors,
)
from studio.engine.model_folder import DIFFUSERS_LAYOUT, ModelLayout, is_complete

__all__ = ["DownloadProgress", "DownloadWatcher", "HubSnapshot", "find_hub_model"]

logger = logging.getLogger(__name__)

_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")

# The seed report's model has left the Hub; its copy lives here.
MOVED_MODELS = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}

# What huggingface_hub's requests can go through; some desktops write socks://, which says too little.
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

# As git names branches, tags and commits, as far as they can be part of a path.
_REVISION = re.compile(r"[\w\-]+(?:[./][\w\-]+)*")


@dataclass(frozen=True)
class HubSnapshot:
    """A model's files on this machine, of exactly one commit."""

    repository: str
    folder: Path
    revision: str
    notes: tuple[str, ...] = ()


def find_hub_model(
    name: str,
    *,
    progress: DownloadWatcher | None = None,
    layout: ModelLayout = DIFFUSERS_LAYOUT,
    endpoint: str | None = None,
    cache: Path | None = None,
) -> HubSnapshot:
    """The model of this name: the copy on this machine, without asking anyone; else a download of what is needed.

    Args:
        name: `owner/name` or `owner/name@revision`.
        progress: told how far a download is, asked whether to stop.
        layout: which of its files are needed.
        endpoint: the Hub's address; huggingface_hub's (HF_ENDPOINT) where none is given.
        cache: the folder for models; huggingface_hub's (HF_HOME) where none is given.

    Raises:
        ModelError: where there is no such model, it cannot be reached, is of another kind, or has no room.
        DownloadCancelledError: where the watcher asked to stop.
    """
    repository, revision = split_revision(name)
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ModelError(
            _(
                "There is no model folder or file {name}, and it is no Hugging Face id, which looks "
                "like stable-diffusion-v1-5/stable-diffusion-v1-5.",
                name=name,
            )
        ) from error
    current = MOVED_MODELS.get(repository, repository)
    moved = _(
        "{repository} is no longer on Hugging Face; {current} is the same model and was used.",
        repository=repository,
        current=current,
    )
    root = cache or Path(constants.HF_HUB_CACHE)
    for candidate in dict.fromkeys((repository, current)):
        if folder := local_snapshot(HubPlace(root, candidate), revision, layout):
            return HubSnapshot(candidate, folder, folder.name, (moved,) if candidate != repository else ())
        logger.info("%s has not been downloaded yet", candidate)
    watcher = progress or DownloadWatcher()
    place = HubPlace(root, current)
    folder = _download(place, revision, endpoint or constants.ENDPOINT, watcher, layout)
    return HubSnapshot(current, folder, folder.name, (moved,) if current != repository else ())


def find_hub_file(
    repository: str,
    name: str,
    *,
    progress: DownloadWatcher | None = None,
    endpoint: str | None = None,
    cache: Path | None = None,
) -> Path:
    """One file of a repository: the copy on this machine, without asking anyone; else a download of it alone.

    Args:
        progress, endpoint, cache: as `find_hub_model`.

    Raises:
        ModelError, DownloadCancelledError: as `find_hub_model`.
    """
    place = HubPlace(cache or Path(constants.HF_HUB_CACHE), repository)
    reference = place.reference(DEFAULT_REVISION)
    if reference.is_file() and (known := place.snapshot(read_text(reference).strip()) / name).is_file():
        return known
    at = endpoint or constants.ENDPOINT
    commit, files = _checked(_ask(repository, DEFAULT_REVISION, at), repository)
    if name not in files:
        raise ModelError(_("{repository} has no file {name}.", repository=repository, name=name))
    with _only_download(place):
        place.folder.mkdir(parents=True, exist_ok=True)
        assert_room(place, commit, [files[name]])
        Download(place, commit, at, [files[name]], progress or DownloadWatcher()).run()
        write_atomically(reference, commit.encode())
    return place.snapshot(commit) / name


@contextmanager
def _only_download(place: HubPlace) -> Iterator[None]:
    """One program at a time fetches a repository.

    Raises:
        ModelError: where another one does.
    """
    place.lock.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.lock)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ModelError(
            _(
                "Another program is downloading {repository} just now. Wait until it is done, then try again.",
                repository=place.repository,
            )
        ) from error
    try:
        yield
    finally:
        lock.release()


def local_snapshot(place: HubPlace, revision: str, layout: ModelLayout = DIFFUSERS_LAYOUT) -> Path | None:
    """The complete copy of a revision on this machine; None where there is none."""
    reference = place.reference(revision)
    commit = read_text(reference, errors="replace").strip() if reference.is_file() else revision
    folder = place.snapshot(commit)
    if not (index := layout.index_in({path.name for path in folder.glob("*")})):
        return None
    try:
        return folder if is_complete(folder, layout.read_index(folder / index), layout) else None
    except (OSError, ValueError, TypeError):
        return None


def _download(place: HubPlace, revision: str, endpoint: str, watcher: DownloadWatcher, layout: ModelLayout) -> Path:
    """Ask what there is, fetch what is needed, and only then say that this revision is here."""
    info = _ask(place.repository, revision, endpoint)
    commit, files = _checked(info, place.repository)
    if not layout.index_in(files):
        raise ModelError(_(layout.without_index, repository=place.repository))
    with _only_download(place):
        return _fetch_needed(place, commit, endpoint, files, watcher, revision=revision, layout=layout)


def _fetch_needed(
    place: HubPlace,
    commit: str,
    endpoint: str,
    files: Mapping[str, HubFile],
    watcher: DownloadWatcher,
    *,
    revision: str,
    layout: ModelLayout,
) -> Path:
    """The index first: it tells whether the rest is worth the wait."""
    folder, name = place.snapshot(commit), layout.index_in(files)
    Download(place, commit, endpoint, [files[name]], DownloadWatcher(cancelled=watcher.cancelled)).run()
    try:
        index = layout.read_index(folder / name)
    except (ValueError, TypeError) as error:
        raise ModelError(
            _(
                "The {file} of {repository} cannot be read. Choose another model.",
                file=name,
                repository=place.repository,
            )
        ) from error
    needed = [files[name] for name in layout.needed(place.repository, index, files)]
    assert_room(place, commit, needed)
    Download(place, commit, endpoint, needed, watcher).run()
    if revision != commit:
        write_atomically(place.reference(revision), commit.encode())
    return folder


def _checked(info: ModelInfo, repository: str) -> tuple[str, Mapping[str, HubFile]]:
    """The commit and the files of an answer. Their digests become names of files here, so they must be digests."""
    files = {}
    for sibling in info.siblings or ():
        digest = (sibling.lfs.sha256 if sibling.lfs else sibling.blob_id) or ""
        if sibling.size is None or not _DIGEST.fullmatch(digest):
            raise _not_a_hub(repository)
        files[sibling.rfilename] = HubFile(sibling.rfilename, sibling.size, digest)
    if not _DIGEST.fullmatch(info.sha or ""):
        raise _not_a_hub(repository)
    return info.sha or "", files


def _not_a_hub(repository: str) -> ModelError:
    return ModelError(
        _(
            "The model {repository} could not be downloaded from Hugging Face: what answered is "
            "not it. A login page of your network or a wrong HF_ENDPOINT can be the cause; open "
            "https://huggingface.co in a browser to see.",
            repository=repository,
        )
    )


def _ask(repository: str, revision: str, endpoint: str) -> ModelInfo:
    """What the Hub says of a revision: its commit, its files and their sizes."""
    if fault := network_fault():
        raise ModelError(
            _(
                "The model {repository} is not on this machine, and could not be downloaded from Hugging Face: "
                "{fault}. Correct or unset it and start again.",
                repository=repository,
                fault=fault,
            )
        )
    try:
        return HfApi(endpoint=endpoint).model_info(
            repository, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS
        )
    except network_errors() as error:
        raise hub_refusal(error, repository, revision) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _not_a_hub(repository) from error


def split_revision(name: str) -> tuple[str, str]:
    """`owner/name` and the revision of `owner/name@revision`; `main` where none is given.

    Raises:
        ModelError: where the revision can be none.
    """
    repository, at, revision = name.partition("@")
    if at and not _REVISION.fullmatch(revision):
        raise ModelError(
            _(
                "{revision!r} in {name} is no revision. Give a branch, a tag or a commit after the @.",
                revision=revision,
                name=name,
            )
        )
    return repository, revision or DEFAULT_REVISION


def unusable_proxy() -> str:
    """What is wrong with a proxy of the environment or the system; empty where nothing is, or none is used."""
    proxies = getproxies()
    if "*" in proxies.get("no", "").split(","):
        return ""
    for kind in ("http", "https", "all"):
        proxy, variable = proxies.get(kind, ""), f"{kind.upper()}_PROXY"
        scheme, separator, __ = proxy.partition("://")
        if separator and scheme.lower() not in PROXY_SCHEMES:
            known = ", ".join(f"{name}://" for name in PROXY_SCHEMES)
            return _(
                "the proxy in {variable} must begin with one of {known}, got {scheme}://",
                variable=variable,
                known=known,
                scheme=scheme,
            )
        if proxy and not _names_a_host(proxy if separator else f"http://{proxy}"):  # not shown: it may hold a password
            return _("the proxy in {variable} must be an address such as http://example.com:3128", variable=variable)
    return ""


def _names_a_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets that do not close, a port that is no number
        return False


def network_fault() -> str:
    """What of the environment stops every download; empty where nothing does."""
    return unusable_proxy() or unusable_certificates()


def unusable_certificates() -> str:
    """What is wrong with the file of certificates that the environment names; empty where nothing is."""
    file = os.environ.get("SSL_CERT_FILE")
    if not file:
        return ""
    try:
        assert_regular(Path(file))
        ssl.create_default_context(cafile=file)
    except OSError as error:
        return _(
            "SSL_CERT_FILE must name a file of certificates (PEM), got {file} ({reason})",
            file=file,
            reason=error.strerror or error,
        )
    return ""


def looks_like_hub_name(name: str) -> bool:
    """True for `owner/name` and `owner/name@revision`."""
    return not Path(name).is_absolute() and name.partition("@")[0].count("/") == 1
