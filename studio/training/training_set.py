"""What is trained on, picture by picture: its size, its crops, its caption, its weight; and what is held out."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from studio.dataset.buckets import Bucket, assign_bucket, buckets_for
from studio.dataset.snapshot import Snapshot, SnapshotEntry
from studio.errors import TrainingError
from studio.paths import typed_path
from studio.training_settings import TrainingSettings

CROP_VARIANTS = 4  # places of a random crop; each is encoded once, so that latents can still be cached
MASK_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
Box = tuple[int, int, int, int]  # left, top, right, bottom in the upright picture's pixels


@dataclass(frozen=True)
class TrainingItem:
    """A picture as training sees it.

    Attributes:
        key, path, sha256: of the file.
        width, height: of the upright picture, in pixels.
        caption: with the trigger word.
        bucket: the size in pixels to which each crop is scaled.
        crops: one, or with random crops a few.
        repeats: how often an epoch shows it.
        weight: of its loss; another one for regularisation pictures.
        is_prior: it is one of those.
        mask: a grey picture; None where the whole picture is learned.
        background: what transparency is laid on.
    """

    key: str
    path: Path
    sha256: str
    width: int
    height: int
    caption: str
    bucket: Bucket
    crops: tuple[Box, ...]
    repeats: int = 1
    weight: float = 1.0
    is_prior: bool = False
    mask: Path | None = None
    background: str = "#ffffff"


@dataclass(frozen=True)
class TrainingSet:
    """What is trained on and what is held out, and what the user should know of it."""

    items: tuple[TrainingItem, ...]
    held_out: tuple[TrainingItem, ...]
    notes: tuple[str, ...]

    @property
    def pictures_per_epoch(self) -> int:
        return sum(item.repeats for item in self.items)


def make_training_set(
    snapshot: Snapshot, settings: TrainingSettings, *, resolution: int, prior: Snapshot | None = None
) -> TrainingSet:
    """Choose crops, masks and what is held out. The same snapshot and settings give the same set.

    Raises:
        TrainingError: where the mask folder is none, or no picture would be left.
    """
    background = snapshot.header.recipe.background
    masks = _masks(settings.mask_folder)
    items = [
        _item(entry, settings, resolution=resolution, background=background, mask=_mask_of(entry.key, masks))
        for entry in snapshot.entries
    ]
    held_out = _held_out(items, settings)
    out = {item.sha256 for item in held_out}
    kept = [item for item in items if item.sha256 not in out]
    notes = [f"{len(kept):,} pictures are trained on, {len(held_out):,} are held out."]
    if masks:
        lacking = sum(item.mask is None for item in kept)
        notes.append(f"{len(kept) - lacking:,} have a mask; {lacking:,} have none and are learned whole.")
    if prior is not None:
        mixed_in = _prior_items(prior, kept, settings, resolution)
        kept += mixed_in
        unused = len(prior.entries) - len(mixed_in)
        rest = f" {unused:,} more are not used: one is shown for each of ours." if unused else ""
        notes.append(f"{len(mixed_in):,} regularisation pictures are mixed in, each with its weight.{rest}")
    return TrainingSet(tuple(kept), held_out, tuple(notes))


def _item(
    entry: SnapshotEntry, settings: TrainingSettings, *, resolution: int, background: str, mask: Path | None = None
) -> TrainingItem:
    buckets = buckets_for(resolution) if settings.use_buckets else (Bucket(resolution, resolution),)
    fit = assign_bucket(entry.width, entry.height, buckets)
    crops = (fit.crop,) if settings.crop == "centre" else _random_crops(entry, fit.crop)
    caption = ", ".join(part for part in (settings.trigger_word.strip(), entry.caption) if part)
    return TrainingItem(
        key=entry.key,
        path=Path(entry.path),
        sha256=entry.sha256,
        width=entry.width,
        height=entry.height,
        caption=caption,
        bucket=fit.bucket,
        crops=crops,
        repeats=entry.repeats,
        mask=mask,
        background=background,
    )


def _random_crops(entry: SnapshotEntry, centre: Box) -> tuple[Box, ...]:
    """A few places for a crop of the centre crop's size, drawn from the picture's own bytes."""
    left, top, right, bottom = centre
    width, height = right - left, bottom - top
    rng = random.Random(f"crop {entry.sha256}")
    boxes = []
    for _ in range(CROP_VARIANTS):
        x, y = rng.randint(0, entry.width - width), rng.randint(0, entry.height - height)
        boxes.append((x, y, x + width, y + height))
    return tuple(dict.fromkeys(boxes))


def _held_out(items: Sequence[TrainingItem], settings: TrainingSettings) -> tuple[TrainingItem, ...]:
    """Chosen by the hash of their bytes, so that adding a few pictures to a dataset moves few others."""
    number = round(len(items) * settings.held_out_percent / 100)
    if settings.held_out_percent > 0 and len(items) >= 10:
        number = max(1, number)
    number = min(number, len(items) - 1)
    if number <= 0:
        return ()
    order = sorted(items, key=lambda item: hashlib.sha256(f"held out {item.sha256}".encode()).digest())
    chosen = {item.sha256 for item in order[:number]}
    # Copies of one picture stay on one side: a held-out picture that is trained on under another name says nothing.
    held_out = tuple(item for item in items if item.sha256 in chosen)
    return held_out if len(held_out) < len(items) else ()


def _prior_items(
    prior: Snapshot, ours: Sequence[TrainingItem], settings: TrainingSettings, resolution: int
) -> list[TrainingItem]:
    """Repeated until there are as many as of ours, as kohya's trainer does."""
    background = prior.header.recipe.background
    plain = settings.model_copy(update={"trigger_word": ""})
    items = [_item(entry, plain, resolution=resolution, background=background) for entry in prior.entries]
    wanted = sum(item.repeats for item in ours)
    whole, rest = divmod(wanted, len(items))
    repeated = []
    for index, item in enumerate(items):
        repeats = whole + (index < rest)
        if repeats:
            repeated.append(replace(item, repeats=repeats, weight=settings.prior_loss_weight, is_prior=True))
    return repeated


def _masks(folder: str) -> dict[str, Path]:
    """Masks by the key of their picture, without ending."""
    if not folder:
        return {}
    root = typed_path(folder)
    if not root.is_dir():
        raise TrainingError(f"mask_folder must be a folder, got {folder!r}. Leave it empty to learn whole pictures.")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in MASK_ENDINGS and path.is_file())
    if not found:
        raise TrainingError(f"mask_folder {folder} holds no picture ({', '.join(MASK_ENDINGS)}).")
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in found}


def _mask_of(key: str, masks: dict[str, Path]) -> Path | None:
    stem = PurePosixPath(key).with_suffix("")
    return masks.get(stem.as_posix()) or masks.get(stem.name)
