"""What leaves a dataset: a contact sheet, captions beside the images, other tools' layouts (imagefolder, kohya's, zip).

Captions are written beside the images only when the user says so, and what was there is kept. Every file is checked
while it is copied. No layout has a field for a crop: images are cut as they are trained where that is asked for; else a
column of the table says where a crop lies that was moved.
"""

import hashlib
import io
import json
import re
import shutil
import textwrap
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from PIL import Image, ImageDraw, ImageFont

from studio.core.errors import DatasetError, PictureFileError
from studio.core.files import open_file, read_file, write_atomically
from studio.core.language import N_, _
from studio.core.paths import unreserved
from studio.core.text import counted
from studio.datasets.captions import alternatives_of, caption_file, caption_targets
from studio.datasets.inspection import png_of
from studio.datasets.opened import OpenedDataset
from studio.datasets.rows import assign_bucket, buckets_for
from studio.datasets.snapshot import Snapshot, SnapshotEntry
from studio.datasets.source import YOUR_EDIT, DatasetRow, SkippedFile
from studio.images.decoding import open_rgb
from studio.images.records import Problem

COLUMNS = 8
CELL = 176
PICTURE = 160
TEXT_HEIGHT = 48
MAX_PICTURES = 400
_INK, _PALE, _PAPER = "#1f2430", "#55606f", "#ffffff"


def make_contact_sheet(
    rows: Sequence[DatasetRow], *, title: str, thumbnail_of: Callable[[DatasetRow], Path | None]
) -> bytes:
    """A JPEG of the first 400 rows.

    Raises:
        DatasetError: where there is no row.
    """
    if not rows:
        raise DatasetError(_("There is no image for a contact sheet."))
    shown = rows[:MAX_PICTURES]
    height = 40 + -(-len(shown) // COLUMNS) * (CELL + TEXT_HEIGHT)
    sheet = Image.new("RGB", (COLUMNS * CELL + 16, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    if len(rows) > len(shown):
        how_many = _("first {num_shown:,} of {num_rows:,}", num_shown=len(shown), num_rows=len(rows))
    else:
        how_many = counted(len(rows), "image", "images")
    _write(pen, (16, 10), f"{title}: {how_many}", size=16, ink=_INK)
    for index, row in enumerate(shown):
        x = 8 + index % COLUMNS * CELL
        y = 40 + index // COLUMNS * (CELL + TEXT_HEIGHT)
        _paste(sheet, thumbnail_of(row), x + 8, y)
        _write(pen, (x + 8, y + PICTURE + 4), Path(row.key).name[-26:], size=11, ink=_INK)
        for line, words in enumerate(textwrap.wrap(row.caption, 30)[:2]):
            _write(pen, (x + 8, y + PICTURE + 19 + 14 * line), words, size=11, ink=_PALE)
    content = io.BytesIO()
    sheet.save(content, format="JPEG", quality=88)
    return content.getvalue()


def _paste(sheet: Image.Image, thumbnail: Path | None, x: int, y: int) -> None:
    if thumbnail is None or not thumbnail.is_file():
        ImageDraw.Draw(sheet).rectangle((x, y, x + PICTURE - 1, y + PICTURE - 1), outline=_PALE)
        return
    with open_file(thumbnail) as file, Image.open(file, formats=("JPEG",)) as picture:
        small = picture.convert("RGB")
    small.thumbnail((PICTURE, PICTURE))
    sheet.paste(small, (x + (PICTURE - small.width) // 2, y + (PICTURE - small.height) // 2))


def _write(pen: ImageDraw.ImageDraw, place: tuple[int, int], words: str, *, size: int, ink: str) -> None:
    """Letters that Pillow's own font lacks become boxes; none stops the sheet."""
    pen.text(place, "".join(x if x.isprintable() else " " for x in words), fill=ink, font=ImageFont.load_default(size))


REPLACED = "replaced-captions"


@dataclass(frozen=True)
class SidecarsWritten:
    """What was written; `kept` is the folder with what was there before, below the dataset's own."""

    num_written: int
    kept: Path
    skipped_files: tuple[SkippedFile, ...]


def write_sidecars(dataset: OpenedDataset) -> SidecarsWritten:
    """Write each caption that the user edited to a .txt file beside its image.

    Raises:
        DatasetError: where the dataset's captions come from a table, or none was edited.
    """
    if dataset.reading.layout not in ("sidecar", "kohya"):
        raise DatasetError(
            _(
                "This dataset's captions come from a table, which is not changed. Export it as an "
                "imagefolder or as kohya's folders to take the captions along."
            )
        )
    edited = [row for row in dataset.rows if row.caption_from == YOUR_EDIT]
    if not edited:
        raise DatasetError(_("No caption was edited, so there is nothing to write."))
    kept = dataset.folder / REPLACED / f"{datetime.now():%Y%m%d-%H%M%S-%f}"
    targets = caption_targets({picture.key: picture.caption_from for picture in dataset.reading.pictures})
    skipped_files = []
    problem: Problem | None
    for row in edited:
        target = targets[row.key]
        if target is None:
            problem = _not_written(_("Its caption file would belong to another image too. Rename one of them."))
        else:
            problem = _write_caption(row, target, dataset.recipe.source, kept)
        if problem is not None:
            skipped_files.append(SkippedFile(name=row.key, problem=problem))
    return SidecarsWritten(len(edited) - len(skipped_files), kept, tuple(skipped_files))


def _write_caption(row: DatasetRow, target: str, source: str, kept: Path) -> Problem | None:
    file = Path(source, target)
    try:
        content = caption_file(row.key, row.caption)
        if file.is_file():
            copy = kept / target
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, copy, follow_symlinks=False)  # a link is kept as a link, wherever it leads
        write_atomically(file, content)
    except DatasetError as error:
        return _not_written(str(error))
    except OSError as error:
        return _not_written(_("Its caption could not be written ({reason}).", reason=error.strerror))
    return None


def _not_written(reason: str) -> Problem:
    what_then = _("The caption stays in the dataset's recipe.")
    return Problem(code=N_("not written"), severity="note", sentence=f"{reason} {what_then}")


Progress = Callable[[int, int], None]

# What `datasets` reads as an image, and every trainer does.
_KEPT_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp"))
_UNSAFE = re.compile(r"[^\w.()+-]+")
# A folder of this name is a split to `datasets`; without it, names such as `test_1.png` would be.
SPLIT = "train"
METADATA = "metadata.jsonl"
MAX_STEM_BYTES = 120
_FILE_COLUMN = re.compile(r"file_name(s?)$")


def export_imagefolder(
    snapshot: Snapshot, folder: Path, *, background: str, cropped: bool = False, progress: Progress
) -> None:
    """Images with a metadata.jsonl in `train/`, as `datasets.load_dataset("imagefolder", data_dir=…)` reads them.

    Repeats are not in this layout: a column says them, and another the crops that were moved, unless `cropped`.

    Raises:
        DatasetError: where the folder is not empty, or a file changed since it was checked.
        OSError: where the disk is full; the folder is then as it was.
    """
    with _new_folder(folder) as partial:
        split, lines, crops = partial / SPLIT, [], {} if cropped else _crops(snapshot, moved=True)
        split.mkdir()
        for entry, name, content in _files(snapshot, background=background, cropped=cropped, progress=progress):
            (split / name).write_bytes(content)
            lines.append(_metadata(entry, name, crops))
        (split / METADATA).write_bytes(b"".join(lines))


def export_kohya(
    snapshot: Snapshot, folder: Path, *, background: str, cropped: bool = False, progress: Progress
) -> None:
    """Folders `N_name` with N repeats, and a .txt caption beside each image.

    Raises:
        DatasetError, OSError: as `export_imagefolder` does.
    """
    words = _UNSAFE.sub("-", snapshot.header.name.replace(".", "-")).strip("-") or "pictures"  # no 10_shoe.png
    with _new_folder(folder) as partial:
        for entry, name, content in _files(snapshot, background=background, cropped=cropped, progress=progress):
            place = partial / f"{entry.repeats}_{words}" / name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content)
            # One caption a line, as sd-scripts' `enable_wildcard` takes one of them by chance.
            captions = (caption_file(entry.key, caption) for caption in alternatives_of(entry.caption))
            place.with_suffix(".txt").write_bytes(b"".join(captions))


def export_zip(snapshot: Snapshot, file: Path, *, background: str, cropped: bool = False, progress: Progress) -> None:
    """An imagefolder in one file.

    Raises:
        DatasetError: where the file is there already, or an image changed since it was checked.
        OSError: where the disk is full; nothing is left behind.
    """
    if file.exists():
        raise DatasetError(_("{file} is there already. Choose another name.", file=file)).about("folder")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial, crops = file.with_name(f".{file.name}.part"), {} if cropped else _crops(snapshot, moved=True)
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:  # images are packed already
            lines = []
            for entry, name, content in _files(snapshot, background=background, cropped=cropped, progress=progress):
                archive.writestr(f"{SPLIT}/{name}", content)
                lines.append(_metadata(entry, name, crops))
            archive.writestr(f"{SPLIT}/{METADATA}", b"".join(lines))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


Crop = tuple[int, int, int, int]
"""Left, top, right and bottom of the part that is trained on, in the upright image's own pixels."""


def _crops(snapshot: Snapshot, *, moved: bool) -> dict[str, Crop]:
    """By key, of all images, or of those alone whose crop was moved."""
    buckets = buckets_for(snapshot.header.recipe.resolution)
    entries = [entry for entry in snapshot.entries if entry.focus is not None or not moved]
    return {e.key: assign_bucket(e.width, e.height, buckets, focus=e.focus).crop for e in entries}


def _files(
    snapshot: Snapshot, *, background: str, cropped: bool, progress: Progress
) -> Iterator[tuple[SnapshotEntry, str, bytes]]:
    """Each entry with a name that is its own, and what the file shall hold."""
    taken: set[str] = set()
    crops = _crops(snapshot, moved=False) if cropped else {}
    for number, entry in enumerate(snapshot.entries):
        progress(number, len(snapshot.entries))
        whole = (0, 0, entry.width, entry.height)
        crop = crops.get(entry.key, whole)
        suffix = PurePosixPath(entry.path).suffix.lower()  # not the key's: a copy is PNG
        keep = crop == whole and not entry.needs_conversion and suffix in _KEPT_SUFFIXES
        name = _free_name(entry, taken, suffix=suffix if keep else ".png")
        yield entry, name, _content(entry, crop=None if keep else crop, background=background)
    progress(len(snapshot.entries), len(snapshot.entries))


def _content(entry: SnapshotEntry, *, crop: Crop | None, background: str) -> bytes:
    """The file as it is, or that part of its image as PNG."""
    path = Path(entry.path)
    try:
        content = read_file(path)
    except OSError as error:
        raise DatasetError(
            _("{key} can no longer be read ({reason}). Open the dataset again.", key=entry.key, reason=error.strerror)
        ) from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise DatasetError(
            _("{key} was changed since it was checked. Open the dataset again, then export.", key=entry.key)
        )
    if crop is None:
        return content
    try:
        image = open_rgb(path, background=background)
    except PictureFileError as error:
        raise DatasetError(_("{key} cannot be converted: {error}", key=entry.key, error=error)) from error
    return png_of(image.crop(crop))


def _free_name(entry: SnapshotEntry, taken: set[str], *, suffix: str) -> str:
    """The key on one level, safe on every system and unlike all others, their captions' names included."""
    flat = unicodedata.normalize("NFC", str(PurePosixPath(entry.key).with_suffix("")).replace("/", "__"))
    # Most systems limit the bytes of a name, not its letters.
    short = _UNSAFE.sub("-", flat).encode()[:MAX_STEM_BYTES].decode(errors="ignore")
    stem = unreserved(short.strip(".-")) or "x"
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name + suffix


def _metadata(entry: SnapshotEntry, name: str, crops: Mapping[str, Crop]) -> bytes:
    own: dict[str, object] = {"file_name": name, "text": entry.caption, "repeats": entry.repeats}
    if crops:  # a table has the same columns in every row
        own["crop"] = ",".join(map(str, crops.get(entry.key, ())))
    return metadata_line(own, entry.attributes)


def metadata_line(own: Mapping[str, object], attributes: Mapping[str, str]) -> bytes:
    """A line of metadata.jsonl: what we say of an image, and its attributes under names that no reader takes for more.

    To `datasets` a column that ends in `file_name` is an image, and it calls its own `image`. An attribute of such a
    name ends in `filename`, and one whose name is taken has `source_` before it.

    Args:
        own: `file_name` (below the file's folder) among them.

    Raises:
        DatasetError: where a text holds half of a character, which no file can keep.
    """
    line = dict(own)
    for column, value in attributes.items():
        name = _FILE_COLUMN.sub(r"filename\1", column)
        while name in line or name in ("image", "images"):
            name = f"source_{name}"
        line[name] = value
    try:
        return json.dumps(line, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError as error:
        raise DatasetError(
            _(
                "The caption or a column of {file} holds half of a character, which no file can keep. "
                "Write the text again.",
                file=own["file_name"],
            )
        ) from error


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside the wanted one, which takes its place when all went well."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        full = DatasetError(
            _("{folder} is not empty. Choose a new folder, so that nothing in it is lost.", folder=folder)
        )
        raise full.about("folder")
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.is_dir():
            folder.rmdir()
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
