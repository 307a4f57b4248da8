"""The models to choose from: the shipped one, Stable Diffusion 1.5, those on this machine or loaded lately."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from pydantic import ValidationError

from studio.core.errors import ModelError
from studio.core.files import read_text, write_atomically
from studio.core.language import _
from studio.core.paths import UserData, typed_path
from studio.core.records import Record
from studio.core.settings import SHIPPED_MODEL
from studio.engine.hub import local_snapshot, looks_like_hub_name, split_revision
from studio.engine.hub_download import HubPlace
from studio.engine.model_folder import MODEL_INDEX, PIPELINE

logger = logging.getLogger(__name__)

STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
# Its U-Net, text encoder and VAE as .safetensors in float32, and its tokenizer: what a download fetches of it.
STABLE_DIFFUSION_BYTES = 3_438_167_536 + 492_265_168 + 334_643_268 + 1_600_000
MAX_RECENT = 8
_CACHE_PREFIX = "models--"


@dataclass(frozen=True)
class ModelChoice:
    """One model of the list.

    Attributes:
        name: as in `ModelSettings.model`.
        title: as people call it.
        about: what it is or where it lies, in a few words.
        missing_bytes: what would be downloaded; 0 of a model that is on this machine.
        arrived_bytes: what an earlier download left, from which the next goes on.
    """

    name: str
    title: str
    about: str
    missing_bytes: int = 0
    arrived_bytes: int = 0


class RecentModels(Record):
    """The models that were loaded last, the latest first, as in `ModelSettings.model`."""

    names: tuple[str, ...] = ()


def read_recent(user_data: UserData) -> tuple[str, ...]:
    """The names of the models that were loaded lately; none where no list can be read."""
    try:
        return RecentModels.model_validate_json(read_text(user_data.recent_models)).names
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        logger.warning("The list of models that were loaded lately cannot be read (%s); it begins anew.", error)
        return ()


def remember_model(user_data: UserData, name: str) -> None:
    """Note that a model was loaded. A disk that is full costs the note alone, and the log says so."""
    names = dict.fromkeys((name, *read_recent(user_data)))
    try:
        recent = RecentModels(names=tuple(names)[:MAX_RECENT])
        write_atomically(user_data.recent_models, recent.model_dump_json().encode())
    except (OSError, ValidationError) as error:
        logger.warning("The list of models that were loaded lately cannot be written: %s", error)


def model_choices(user_data: UserData, *, cache: Path | None = None) -> tuple[ModelChoice, ...]:
    """Every model to choose from, each once: the shipped one, Stable Diffusion 1.5, the latest, the rest.

    Args:
        cache: huggingface_hub's folder for models; that of HF_HOME where none is given.
    """
    root = cache or Path(constants.HF_HUB_CACHE)
    known = {
        SHIPPED_MODEL: ModelChoice(
            SHIPPED_MODEL, SHIPPED_MODEL, _("Built in: a small model of shoes, 128 × 128, to try everything in seconds")
        ),
        STABLE_DIFFUSION: _stable_diffusion(root),
    }
    for name in read_recent(user_data):
        if name not in known and (choice := _choice(root, name)):
            known[name] = choice
    for repository in _cached_repositories(root):
        if repository not in known and _is_here(root, repository):
            known[repository] = ModelChoice(repository, repository, _("from Hugging Face, on this machine"))
    return tuple(known.values())


def _stable_diffusion(root: Path) -> ModelChoice:
    title, about = "Stable Diffusion 1.5", _("The model of the original report: 512 × 512")
    if _is_here(root, STABLE_DIFFUSION):
        return ModelChoice(STABLE_DIFFUSION, title, _("{about}, on this machine", about=about))
    blobs = HubPlace(root, STABLE_DIFFUSION).folder / "blobs"
    arrived = sum(file.stat().st_size for file in blobs.iterdir()) if blobs.is_dir() else 0
    missing = max(1, STABLE_DIFFUSION_BYTES - arrived)
    return ModelChoice(STABLE_DIFFUSION, title, _("{about}, from Hugging Face", about=about), missing, arrived)


def _choice(root: Path, name: str) -> ModelChoice | None:
    """A model that was loaded before; None where it is gone."""
    path = typed_path(name)
    if path.exists():
        return ModelChoice(name, path.stem if path.is_file() else path.name, _("in {folder}", folder=path.parent))
    if looks_like_hub_name(name) and _is_here(root, name):
        return ModelChoice(name, name, _("from Hugging Face, on this machine"))
    return None


def _cached_repositories(root: Path) -> Iterator[str]:
    """What huggingface_hub keeps on this machine, as `owner/name`."""
    for folder in sorted(root.glob(f"{_CACHE_PREFIX}*--*")):
        yield folder.name.removeprefix(_CACHE_PREFIX).replace("--", "/", 1)


def _is_here(root: Path, name: str) -> bool:
    """Whether a whole Stable Diffusion 1.x of that name is on this machine."""
    try:
        repository, revision = split_revision(name)
        folder = local_snapshot(HubPlace(root, repository), revision)
        return folder is not None and json.loads(read_text(folder / MODEL_INDEX)).get("_class_name") == PIPELINE
    except (ModelError, OSError, ValueError):
        return False
