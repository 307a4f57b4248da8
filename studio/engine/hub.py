"""Models from the Hugging Face Hub: found on this machine without asking anyone, or downloaded."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.hf_api import ModelInfo
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, not re-exported by name

from studio.core.errors import ModelError
from studio.core.files import write_atomically
from studio.engine.hub_download import (
    ANSWER_SECONDS,
    Download,
    DownloadProgress,
    DownloadWatcher,
    HubFile,
    HubPlace,
    assert_room,
    hub_refusal,
    network_errors,
)
from studio.engine.hub_models import (
    MODEL_INDEX,
    MOVED_MODELS,
    is_complete,
    needed_files,
    split_revision,
    unusable_proxy,
)

__all__ = ["DownloadProgress", "DownloadWatcher", "HubSnapshot", "find_hub_model"]

logger = logging.getLogger(__name__)

PIPELINE = "StableDiffusionPipeline"
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class HubSnapshot:
    """A model's files on this machine, of exactly one commit."""

    repository: str
    folder: Path
    revision: str
    notes: tuple[str, ...] = ()


def find_hub_model(
    name: str, *, progress: DownloadWatcher | None = None, endpoint: str | None = None, cache: Path | None = None
) -> HubSnapshot:
    """The model of this name: the copy on this machine, without asking anyone; else a download of what is needed.

    Args:
        name: `owner/name` or `owner/name@revision`.
        progress: told how far a download is, asked whether to stop.
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
            f"There is no model folder or file {name}, and it is no Hugging Face id, which looks like "
            "stable-diffusion-v1-5/stable-diffusion-v1-5."
        ) from error
    current = MOVED_MODELS.get(repository, repository)
    moved = f"{repository} is no longer on Hugging Face; {current} is the same model and was used."
    root = cache or Path(constants.HF_HUB_CACHE)
    for candidate in dict.fromkeys((repository, current)):
        if folder := _local_snapshot(HubPlace(root, candidate), revision):
            return HubSnapshot(candidate, folder, folder.name, (moved,) if candidate != repository else ())
        logger.info("%s has not been downloaded yet", candidate)
    watcher = progress or DownloadWatcher()
    folder = _download(HubPlace(root, current), revision, endpoint or constants.ENDPOINT, watcher)
    return HubSnapshot(current, folder, folder.name, (moved,) if current != repository else ())


def _local_snapshot(place: HubPlace, revision: str) -> Path | None:
    """The complete copy of a revision on this machine; None where there is none."""
    reference = place.reference(revision)
    commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
    folder = place.snapshot(commit)
    try:
        index = json.loads((folder / MODEL_INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return folder if isinstance(index, dict) and is_complete(folder, index) else None


def _download(place: HubPlace, revision: str, endpoint: str, watcher: DownloadWatcher) -> Path:
    """Ask what there is, fetch what is needed, and only then say that this revision is here."""
    info = _ask(place.repository, revision, endpoint)
    commit, files = _checked(info, place.repository)
    if MODEL_INDEX not in files:
        raise ModelError(
            f"{place.repository} has no model_index.json, so it is not a model in diffusers' layout. If it offers a "
            "checkpoint of Stable Diffusion 1.x as .safetensors, download that file and give its path."
        )
    place.lock.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(place.lock, timeout=0):
            return _fetch_needed(place, commit, endpoint, files, watcher, revision=revision)
    except Timeout as error:
        raise ModelError(
            f"Another program is downloading {place.repository} just now. Wait until it is done, then try again."
        ) from error


def _fetch_needed(
    place: HubPlace,
    commit: str,
    endpoint: str,
    files: Mapping[str, HubFile],
    watcher: DownloadWatcher,
    *,
    revision: str,
) -> Path:
    """The index first: it tells whether the rest is worth the wait."""
    folder = place.snapshot(commit)
    Download(place, commit, endpoint, [files[MODEL_INDEX]], DownloadWatcher(cancelled=watcher.cancelled)).run()
    try:
        index = json.loads((folder / MODEL_INDEX).read_text(encoding="utf-8"))
        kind = index["_class_name"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The model_index.json of {place.repository} cannot be read. Choose another model.") from error
    if kind != PIPELINE:
        raise ModelError(f"{place.repository} is a {kind}; the studio works with {PIPELINE} (Stable Diffusion 1.x).")
    needed = [files[name] for name in needed_files(place.repository, index, files)]
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
        f"The model {repository} could not be downloaded from Hugging Face: what answered is not it. A login page of "
        "your network or a wrong HF_ENDPOINT can be the cause; open https://huggingface.co in a browser to see."
    )


def _ask(repository: str, revision: str, endpoint: str) -> ModelInfo:
    """What the Hub says of a revision: its commit, its files and their sizes."""
    if fault := unusable_proxy():
        raise ModelError(
            f"The model {repository} is not on this machine, and could not be downloaded from Hugging Face: {fault}. "
            "Correct or unset it and start again."
        )
    try:
        return HfApi(endpoint=endpoint).model_info(
            repository, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS
        )
    except network_errors() as error:
        raise hub_refusal(error, repository, revision) from error
    except (ValueError, KeyError, TypeError) as error:
        raise _not_a_hub(repository) from error
