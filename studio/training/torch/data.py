"""What is trained on, image by image: its size, its variants, its caption, its weight; and what is held out."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path

from studio.core.errors import SettingsError, TrainingError
from studio.core.language import N_, _
from studio.core.text import counted
from studio.datasets.captions import alternatives_of
from studio.datasets.generation import drift_words
from studio.datasets.rows import SMALL_RESOLUTION, Bucket, BucketFit, fit_of, step_of
from studio.datasets.snapshot import MaskFile, Snapshot, SnapshotEntry, fitting_notes
from studio.datasets.source import MadeFrom
from studio.training.settings import TrainingSettings
from studio.training.variants import Variant, make_variants

TRIGGER_PLACEHOLDER = "[trigger]"  # ai-toolkit's, in captions


@dataclass(frozen=True)
class RunData:
    """What a run is trained on, as it was when the run began."""

    snapshot: Snapshot
    prior: Snapshot | None = None


@dataclass(frozen=True)
class TrainingItem:
    """An image as training sees it.

    Attributes:
        key, path, sha256: of the file.
        width, height: of the upright image, in pixels.
        caption: with the trigger word; of several the first, which is the one that it is measured and shown with.
        other_captions: of which training takes one by chance each time, or the first.
        bucket: the size in pixels to which each variant is scaled.
        variants: every way in which it is seen, the mirrored ones last; of a held-out image the first alone.
        repeats: how often an epoch shows it.
        weight: of its loss; another one for regularisation images.
        is_prior: it is one of those.
        mask: a grey image's file; None where the whole image is learned.
        background: what transparency is laid on.
    """

    key: str
    path: Path
    sha256: str
    width: int
    height: int
    caption: str
    bucket: Bucket
    variants: tuple[Variant, ...]
    repeats: int = 1
    weight: float = 1.0
    is_prior: bool = False
    mask: MaskFile | None = None
    background: str = "#ffffff"
    other_captions: tuple[str, ...] = ()

    @property
    def captions(self) -> tuple[str, ...]:
        """All of them, the first first."""
        return (self.caption, *self.other_captions)


def captions_of(items: Iterable[TrainingItem]) -> tuple[str, ...]:
    """All captions of images, each once."""
    return tuple(dict.fromkeys(caption for item in items for caption in item.captions))


@dataclass(frozen=True)
class TrainingSet:
    """What is trained on and what is held out, and what the user should know of it."""

    items: tuple[TrainingItem, ...]
    held_out: tuple[TrainingItem, ...]
    notes: tuple[str, ...]
    made_from: MadeFrom | None = None

    @property
    def origin(self) -> dict[str, str]:
        """For the LoRA's file: who made the images, where they were made here."""
        return {"lora_studio.made_from": self.made_from.model_dump_json()} if self.made_from else {}

    @property
    def pictures_per_epoch(self) -> int:
        return sum(item.repeats for item in self.items)


def with_origin(training_set: TrainingSet, snapshot: Snapshot) -> TrainingSet:
    """The same with who made its images, where they were made here, and a note where they drifted."""
    made = snapshot.header.recipe.made_from
    return replace(training_set, notes=(*training_set.notes, *drift_words(made)), made_from=made)


def make_training_set(
    snapshot: Snapshot, settings: TrainingSettings, *, resolution: int, prior: Snapshot | None = None
) -> TrainingSet:
    """Choose variants and what is held out. The same snapshot and settings give the same set.

    Raises:
        TrainingError: where no image would be left, or no regularisation image.
        SettingsError: where one step between sizes is more than the resolution.
    """
    if settings.bucket_step is not None and settings.bucket_step > resolution:
        raise SettingsError(
            _(
                "Bucket step (bucket_step) must be at most the resolution, which is {resolution}, got {step}.",
                resolution=resolution,
                step=settings.bucket_step,
            )
        )
    background = snapshot.header.recipe.background
    items = [_item(entry, settings, resolution=resolution, background=background) for entry in snapshot.entries]
    held_out = _held_out(items, settings)
    out = {item.sha256 for item in held_out}
    kept = [item for item in items if item.sha256 not in out]
    notes = [
        _(
            "{images} to train on, {num_held_out:,} held out.",
            images=counted(len(kept), "image", "images"),
            num_held_out=len(held_out),
        )
    ]
    if len({item.sha256 for item in kept}) == 1:
        notes.append(
            _(
                "There is one image to learn from: the LoRA will learn to repeat it, not what it "
                "shows. Ten different images are a beginning, twenty to thirty are common."
            )
        )
    notes += fitting_notes([(item.key, item.mask) for item in kept])
    own = _num_placeholders(snapshot)
    notes += _placeholder_note(own, counted(own, "caption", "captions"), settings)
    notes += [*_size_notes(kept, settings, resolution), *_scale_note(kept, settings)]
    if prior is not None:
        theirs = _num_placeholders(prior)
        captions = counted(theirs, "regularisation caption", "regularisation captions")
        notes += _placeholder_note(theirs, captions, settings)
        apart = tuple(entry for entry in prior.entries if entry.sha256 not in out)
        if num_left_out := len(prior.entries) - len(apart):
            notes.append(
                _(
                    "{num:,} regularisation images are left out: they are held out, so they must not be trained on.",
                    num=num_left_out,
                )
            )
        mixed_in = _prior_items(Snapshot(prior.header, apart), kept, settings, resolution)
        kept += mixed_in
        mixed = _("{num:,} regularisation images are mixed in, each with its weight.", num=len(mixed_in))
        if num_unused := len(apart) - len(mixed_in):
            unused = _("{num:,} more are not used: one is shown for each of ours.", num=num_unused)
            mixed = f"{mixed} {unused}"
        notes.append(mixed)
    return with_origin(TrainingSet(tuple(kept), held_out, tuple(notes)), snapshot)


def _item(
    entry: SnapshotEntry, settings: TrainingSettings, *, resolution: int, background: str, is_prior: bool = False
) -> TrainingItem:
    fit = _fit(entry, settings, resolution)
    size, is_moved = (entry.width, entry.height), entry.focus is not None
    caption, *others = (
        _with_trigger(one, settings.trigger_word.strip(), is_prior=is_prior) for one in alternatives_of(entry.caption)
    )
    return TrainingItem(
        key=entry.key,
        path=Path(entry.path),
        sha256=entry.sha256,
        width=entry.width,
        height=entry.height,
        caption=caption,
        other_captions=tuple(others),
        bucket=fit.bucket,
        variants=make_variants(size, fit, settings, sha256=entry.sha256, is_moved=is_moved),
        repeats=entry.repeats,
        mask=entry.mask,
        background=background,
        is_prior=is_prior,
    )


def _with_trigger(caption: str, trigger: str, *, is_prior: bool) -> str:
    if trigger and TRIGGER_PLACEHOLDER in caption:
        return caption.replace(TRIGGER_PLACEHOLDER, trigger)
    if is_prior:  # what the model knew has no trigger word, except where its caption says so
        return caption
    return ", ".join(part for part in (trigger, caption) if part)


def _fit(image: SnapshotEntry | TrainingItem, settings: TrainingSettings, resolution: int) -> BucketFit:
    focus = image.focus if isinstance(image, SnapshotEntry) else None
    step, square = settings.bucket_step, not settings.use_buckets
    return fit_of(image.width, image.height, resolution, step=step, square=square, focus=focus)


def _num_placeholders(snapshot: Snapshot) -> int:
    return sum(TRIGGER_PLACEHOLDER in entry.caption for entry in snapshot.entries)


def _placeholder_note(num_captions: int, captions: str, settings: TrainingSettings) -> list[str]:
    """What becomes of the placeholder in so many captions, which `captions` says in words."""
    trigger = settings.trigger_word.strip()
    if not num_captions:
        return []
    if trigger:
        return [
            _(
                "{placeholder} in {captions} is replaced by the trigger word “{trigger}”.",
                placeholder=TRIGGER_PLACEHOLDER,
                captions=captions,
                trigger=trigger,
            )
        ]
    return [
        _(
            "{placeholder} in {captions} is learned as plain text, because trigger_word is empty. Set trigger_word to "
            "replace it.",
            placeholder=TRIGGER_PLACEHOLDER,
            captions=captions,
        )
    ]


def _size_notes(items: Sequence[TrainingItem], settings: TrainingSettings, resolution: int) -> list[str]:
    """Where most images share their size with too few others to fill a batch, and what would change that."""
    sizes, repeating = _sizes(items, settings.train_batch_size)
    if not (fewer := fewer_sizes(items, settings, resolution)):
        return []
    advice = [
        _("set {name} to {value} for {sizes}", name=name, value=str(value).lower(), sizes=counted(num, "size", "sizes"))
        for changes, num in fewer
        for name, value in changes.items()
    ]
    either = N_("{one}, or {other}")
    return [
        _(
            "{num_items:,} images make {sizes} sizes, and {repeating} of these have fewer images than a batch of "
            "{batch}, so a batch shows the same image several times. Lower train_batch_size, or {advice}.",
            num_items=len(items),
            sizes=sizes,
            repeating=repeating,
            batch=settings.train_batch_size,
            advice=reduce(lambda one, other: _(either, one=one, other=other), advice),
        )
    ]


def _scale_note(items: Sequence[TrainingItem], settings: TrainingSettings) -> list[str]:
    """How many images have no smaller part that would not be enlarged."""
    num = sum(len({variant.crop[2] - variant.crop[0] for variant in item.variants}) == 1 for item in items)
    if not settings.scale_jitter_percent or settings.num_variants == 1 or not num:
        return []
    images = counted(num, "image", "images")
    return [
        _(
            "The scale does not vary in {images}: the crop was moved by hand, or has no more pixels than are trained "
            "on.",
            images=images,
        )
    ]


def fewer_sizes(
    items: Sequence[TrainingItem], settings: TrainingSettings, resolution: int
) -> list[tuple[dict[str, object], int]]:
    """Changes that make fewer training sizes, each with how many there are then; none where most sizes fill a batch.

    Images below the training size get sizes in steps of 8: a step of 64 for these too makes fewer, as does a
    resolution that all images cover, or one shape for all.
    """
    sizes, repeating = _sizes(items, settings.train_batch_size)
    if settings.train_batch_size == 1 or 2 * repeating <= sizes or sizes == 1:
        return []
    smallest = min(min(item.width, item.height) for item in items) // 64 * 64
    tried: list[dict[str, object]] = [{"bucket_step": step_of(resolution)}]
    tried += [{"resolution": smallest}] if SMALL_RESOLUTION <= smallest < resolution else []
    tried += [{"use_buckets": False}]
    found = []
    for changes in tried:
        changed = settings.model_copy(update=changes)
        at = smallest if "resolution" in changes else resolution
        number = len({_fit(item, changed, at).bucket for item in items})
        if number < sizes:
            found.append((changes, number))
    return found


def _sizes(items: Sequence[TrainingItem], batch_size: int) -> tuple[int, int]:
    """How many training sizes there are, and of these those with fewer images than a batch."""
    numbers: dict[Bucket, int] = {}
    for item in items:
        numbers[item.bucket] = numbers.get(item.bucket, 0) + item.repeats
    return len(numbers), sum(number < batch_size for number in numbers.values())


def _held_out(items: Sequence[TrainingItem], settings: TrainingSettings) -> tuple[TrainingItem, ...]:
    """Chosen by the hash of their bytes, so that adding a few images to a dataset moves few others."""
    number = round(len(items) * settings.held_out_percent / 100)
    if settings.held_out_percent > 0 and len(items) >= 10:
        number = max(1, number)
    number = min(number, len(items) - 1)
    if number <= 0:
        return ()
    order = sorted(items, key=lambda item: hashlib.sha256(f"held out {item.sha256}".encode()).digest())
    chosen = {item.sha256 for item in order[:number]}
    # Copies of one image stay on one side: a held-out image that is trained on under another name says nothing.
    held_out = tuple(replace(item, variants=item.variants[:1]) for item in items if item.sha256 in chosen)
    return held_out if len(held_out) < len(items) else ()


def _prior_items(
    prior: Snapshot, ours: Sequence[TrainingItem], settings: TrainingSettings, resolution: int
) -> list[TrainingItem]:
    """Repeated until there are as many as of ours, as kohya's trainer does."""
    if not prior.entries:
        raise TrainingError(
            _("prior_dataset holds only images that are held out. Choose other images, or leave it empty.")
        )
    background = prior.header.recipe.background
    items = [
        _item(entry, settings, resolution=resolution, background=background, is_prior=True) for entry in prior.entries
    ]
    wanted = sum(item.repeats for item in ours)
    whole, rest = divmod(wanted, len(items))
    repeated = []
    for index, item in enumerate(items):
        repeats = whole + (index < rest)
        if repeats:
            repeated.append(replace(item, repeats=repeats, weight=settings.prior_loss_weight))
    return repeated


def seed_of(*parts: object) -> int:
    """A 63-bit seed from words and numbers."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
