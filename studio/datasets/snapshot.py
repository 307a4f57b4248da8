"""A snapshot: exactly what training reads, file by file, so that a change is noticed and a run can be repeated."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from pydantic import Field, ValidationError

from studio.core.errors import DatasetError
from studio.core.files import open_file, read_file, write_atomically
from studio.core.language import _
from studio.core.paths import leads_out, typed_path
from studio.core.records import Record
from studio.datasets.captions import stem_of
from studio.datasets.source import PICTURE_SUFFIXES, DatasetRecipe, DatasetRow, Focus
from studio.datasets.walk import MASK_MARK

if TYPE_CHECKING:
    from PIL import Image

MASK_BACKGROUND = "#000000"
"""White on transparent marks its white alone, as an eraser or a selection saves it."""


class MaskFile(Record):
    """The mask of an image; `unused` are further files with a name that fits."""

    path: str
    sha256: str
    unused: tuple[str, ...] = ()


class SnapshotEntry(Record):
    """One image as it is trained on. Sizes are in bytes and upright pixels."""

    key: str
    path: str
    sha256: str
    num_bytes: int
    width: int
    height: int
    caption: str
    repeats: int
    attributes: Mapping[str, str] = {}
    needs_conversion: bool = False
    mask: MaskFile | None = None
    focus: Focus | None = None


class SnapshotHeader(Record):
    """What the entries come from; `digest` is the sha256 over all their lines."""

    name: str
    made_at: datetime = Field(default_factory=lambda: datetime.now(UTC))
    recipe: DatasetRecipe
    num_pictures: int
    digest: str


@dataclass(frozen=True)
class Snapshot:
    """A header and its entries, in the order of the dataset."""

    header: SnapshotHeader
    entries: tuple[SnapshotEntry, ...]


def make_snapshot(name: str, recipe: DatasetRecipe, rows: Sequence[DatasetRow]) -> Snapshot:
    """The rows that training will use.

    Raises:
        DatasetError: where there are none.
    """
    entries = tuple(_entry(row) for row in rows if row.is_used)
    if not entries:
        raise DatasetError(_("No image of {name} can be trained on: the doctor says why.", name=name))
    header = SnapshotHeader(name=name, recipe=recipe, num_pictures=len(entries), digest=_digest(entries))
    return Snapshot(header, entries)


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write it as JSON lines, the header first.

    Raises:
        OSError: where it cannot be written; what was there is untouched.
    """
    lines = [snapshot.header.model_dump_json(), *map(_line, snapshot.entries)]
    write_atomically(path, "".join(f"{line}\n" for line in lines).encode())


def read_snapshot(path: Path) -> Snapshot:
    """Read what `write_snapshot` wrote.

    Raises:
        DatasetError: where it is not there, or not as it was written.
    """
    try:
        header, *lines = read_file(path).splitlines()
        snapshot = Snapshot(
            SnapshotHeader.model_validate_json(header), tuple(SnapshotEntry.model_validate_json(x) for x in lines)
        )
    except (OSError, ValidationError, ValueError) as error:
        raise DatasetError(
            _("The snapshot {path} cannot be read ({name}). Make it again.", path=path, name=type(error).__name__)
        ) from error
    if snapshot.header.digest != _digest(snapshot.entries):
        raise DatasetError(_("The snapshot {path} was changed since it was made. Make it again.", path=path))
    return snapshot


def changed_since(snapshot: Snapshot) -> tuple[str, ...]:
    """A sentence for every file that is no longer what it was."""
    sentences = []
    for entry in snapshot.entries:
        sentences.append(_change(entry.key, Path(entry.path), entry.sha256, num_bytes=entry.num_bytes))
        if entry.mask is not None:
            sentences.append(_change(_("The mask of {key}", key=entry.key), Path(entry.mask.path), entry.mask.sha256))
    return tuple(filter(None, sentences))


def _change(name: str, path: Path, sha256: str, *, num_bytes: int | None = None) -> str:
    """A sentence where a file is no longer what it was; \"\" where it is."""
    try:
        same = num_bytes in (None, path.stat().st_size) and sha256_of(path) == sha256
    except OSError as error:
        return _("{name} can no longer be read ({reason}).", name=name, reason=error.strerror)
    return "" if same else _("{name} is another file than when the snapshot was made.", name=name)


def with_masks(snapshot: Snapshot, folder: str) -> Snapshot:
    """Each entry with the mask of its name, hashed; the same snapshot where no folder is given.

    Raises:
        DatasetError: where the folder is none, no mask in it has the name of an image, or one cannot be read.
    """
    if not folder:
        return snapshot
    root = typed_path(folder)
    masks = _masks(root, {Path(entry.path).resolve() for entry in snapshot.entries})
    entries = tuple(entry.model_copy(update={"mask": _mask_of(entry.key, masks)}) for entry in snapshot.entries)
    if all(entry.mask is None for entry in entries):
        stem = PurePosixPath(snapshot.entries[0].key).stem
        raise DatasetError(
            _(
                "No mask in mask_folder {folder} has the name of an image. Name each mask like its "
                "image (for {key}: {stem}.png, {stem}-masklabel.png or {stem}_mask.png), or leave "
                "mask_folder empty to learn whole images.",
                folder=folder,
                key=snapshot.entries[0].key,
                stem=stem,
            )
        )
    header = snapshot.header.model_copy(update={"digest": _digest(entries)})
    return Snapshot(header, entries)


@dataclass(frozen=True)
class SeenMask:
    """A mask as it was decoded: its own size and its image's in pixels, and its brightest level, of 255."""

    key: str
    image_size: tuple[int, int]
    size: tuple[int, int]
    brightest: int

    @property
    def has_other_shape(self) -> bool:
        """Than the image: more than rounding a smaller or larger size explains."""
        across, down = self.size[0] * self.image_size[1], self.size[1] * self.image_size[0]
        return abs(across - down) > max(self.image_size)


def see_mask(key: str, image_size: tuple[int, int], grey: "Image.Image") -> SeenMask:
    """What is to be known of a decoded mask.

    Args:
        grey: the whole mask, upright, mode L.
    """
    brightest = grey.getextrema()[1]
    assert isinstance(brightest, int)
    return SeenMask(key, image_size, grey.size, brightest)


def fitting_notes(masks: Sequence[tuple[str, MaskFile | None]]) -> list[str]:
    """How many images have a mask, and which have several; nothing where none has one.

    Args:
        masks: of each image, by its key.
    """
    lacking = sum(mask is None for __, mask in masks)
    if lacking == len(masks):
        return []
    return [
        _(
            "{num_masks:,} have a mask; {lacking:,} have none and are learned whole.",
            num_masks=len(masks) - lacking,
            lacking=lacking,
        ),
        *(
            _(
                "{key} has {num_masks} masks: {used} is used, {unused} not. Delete those that are wrong.",
                key=key,
                num_masks=1 + len(mask.unused),
                used=Path(mask.path).name,
                unused=", ".join(mask.unused),
            )
            for key, mask in masks
            if mask is not None and mask.unused
        ),
    ]


def mask_notes(masks: Sequence[SeenMask]) -> tuple[str, ...]:
    """A sentence for each kind of mask that does something else than it was probably made for."""
    kinds = (
        ([m for m in masks if m.has_other_shape], _("Masks of another shape than their image are stretched over it")),
        ([m for m in masks if m.brightest == 0], _("Masks that are all black learn nothing at full weight")),
        (
            [m for m in masks if m.brightest == 1],
            _("Masks with the levels 0 and 1 only are black throughout; save what is learned as 255"),
        ),
    )
    return tuple(f"{words}: {_first_of([m.key for m in found])}." for found, words in kinds if found)


def _first_of(keys: Sequence[str]) -> str:
    names = ", ".join(keys[:5])
    return _("{names} and {num_others:,} more", names=names, num_others=len(keys) - 5) if len(keys) > 5 else names


def _masks(root: Path, images: set[Path]) -> dict[str, list[Path]]:
    """Masks by the stem of their image; best first. An image of the dataset is no mask, unless its name says so."""
    if not root.is_dir():
        raise DatasetError(
            _("mask_folder must be a folder, got {folder!r}. Leave it empty to learn whole images.", folder=str(root))
        )
    found = [
        path
        for path in root.rglob("*")
        if path.suffix.lower() in PICTURE_SUFFIXES and path.is_file() and not path.name.startswith(".")
    ]
    if outside := next((path for path in found if leads_out(path, root)), None):
        raise DatasetError(
            _("The mask {path} is a link that leads out of mask_folder. Put the file itself there.", path=outside)
        )
    if not found:
        raise DatasetError(_("mask_folder {folder} holds no image. Leave it empty to learn whole images.", folder=root))
    masks = defaultdict(list)
    # The image's own name before a marked one; PNG, which is lossless, before others.
    order = {path: (bool(MASK_MARK.search(path.stem)), path.suffix.lower() != ".png", str(path)) for path in found}
    for path in sorted(found, key=order.__getitem__):
        stem = stem_of(path.relative_to(root).as_posix())
        if path.resolve() not in images:
            masks[stem].append(path)
        if MASK_MARK.search(stem):
            masks[MASK_MARK.sub("", stem)].append(path)
    return masks


def _mask_of(key: str, masks: Mapping[str, Sequence[Path]]) -> MaskFile | None:
    stem = stem_of(key)
    files = masks.get(stem) or masks.get(PurePosixPath(stem).name)
    if not files:
        return None
    chosen, *unused = files
    try:
        return MaskFile(path=str(chosen), sha256=sha256_of(chosen), unused=tuple(path.name for path in unused))
    except OSError as error:
        raise DatasetError(
            _("The mask {path} cannot be read ({reason}).", path=chosen, reason=error.strerror)
        ) from error


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hexadecimal.

    Raises:
        OSError: where it cannot be read.
    """
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _entry(row: DatasetRow) -> SnapshotEntry:
    facts = row.facts
    assert facts is not None  # a used row was checked
    return SnapshotEntry(
        key=row.key,
        path=str(row.path),
        sha256=facts.sha256,
        num_bytes=facts.num_bytes,
        width=facts.width,
        height=facts.height,
        caption=row.caption,
        repeats=row.repeats,
        attributes=row.columns,
        needs_conversion=any(problem.severity == "convert" for problem in facts.problems),
        focus=row.focus,
    )


def _line(entry: SnapshotEntry) -> str:
    """Without a mask or a moved crop as snapshots were before they had these: their digests stay right."""
    return entry.model_dump_json(exclude={name for name in ("mask", "focus") if getattr(entry, name) is None})


def _digest(entries: Sequence[SnapshotEntry]) -> str:
    digest = hashlib.sha256()
    for entry in entries:
        digest.update(_line(entry).encode() + b"\n")
    return digest.hexdigest()
