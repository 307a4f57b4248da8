"""A dataset in other tools' layouts: imagefolder, kohya's folders, a zip. Every file is checked while it is copied."""

import hashlib
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from studio.dataset.pictures import open_rgb
from studio.dataset.snapshot import Snapshot, SnapshotEntry
from studio.errors import DatasetError, PictureFileError

Progress = Callable[[int, int], None]

# What `datasets` reads as a picture, and every trainer does.
_KEPT_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".webp"))
_UNSAFE = re.compile(r"[^\w.()+-]+")
_OWN_COLUMNS = ("file_name", "text")


def export_imagefolder(snapshot: Snapshot, folder: Path, *, background: str, progress: Progress) -> None:
    """Pictures with a metadata.jsonl, as `datasets.load_dataset("imagefolder", data_dir=…)` reads it.

    Repeats are not in this layout: a column says them.

    Raises:
        DatasetError: where the folder is not empty, or a file changed since it was checked.
        OSError: where the disk is full; the folder is then as it was.
    """
    with _new_folder(folder) as partial:
        lines = []
        for entry, name, content in _files(snapshot, background=background, progress=progress):
            (partial / name).write_bytes(content)
            lines.append(json.dumps(_metadata(entry, name), ensure_ascii=False))
        (partial / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def export_kohya(snapshot: Snapshot, folder: Path, *, background: str, progress: Progress) -> None:
    """Folders `N_name` with N repeats, and a .txt caption beside each picture.

    Raises:
        DatasetError, OSError: as `export_imagefolder` does.
    """
    words = _UNSAFE.sub("-", snapshot.header.name).strip("-") or "pictures"
    with _new_folder(folder) as partial:
        for entry, name, content in _files(snapshot, background=background, progress=progress):
            place = partial / f"{entry.repeats}_{words}" / name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(content)
            place.with_suffix(".txt").write_text(entry.caption + "\n", encoding="utf-8")


def export_zip(snapshot: Snapshot, file: Path, *, background: str, progress: Progress) -> None:
    """An imagefolder in one file.

    Raises:
        DatasetError: where the file is there already, or a picture changed since it was checked.
        OSError: where the disk is full; nothing is left behind.
    """
    if file.exists():
        raise DatasetError(f"{file} is there already. Choose another name.")
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f".{file.name}.part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:  # pictures are packed already
            lines = []
            for entry, name, content in _files(snapshot, background=background, progress=progress):
                archive.writestr(name, content)
                lines.append(json.dumps(_metadata(entry, name), ensure_ascii=False))
            archive.writestr("metadata.jsonl", "".join(f"{line}\n" for line in lines))
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _files(snapshot: Snapshot, *, background: str, progress: Progress) -> Iterator[tuple[SnapshotEntry, str, bytes]]:
    """Each entry with a name that is its own, and what the file shall hold."""
    taken: set[str] = set()
    for number, entry in enumerate(snapshot.entries):
        progress(number, len(snapshot.entries))
        keep = not entry.needs_conversion and PurePosixPath(entry.key).suffix.lower() in _KEPT_SUFFIXES
        name = _free_name(entry, taken, suffix=PurePosixPath(entry.key).suffix.lower() if keep else ".png")
        yield entry, name, _content(entry, keep=keep, background=background)
    progress(len(snapshot.entries), len(snapshot.entries))


def _content(entry: SnapshotEntry, *, keep: bool, background: str) -> bytes:
    path = Path(entry.path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{entry.key} can no longer be read ({error.strerror}). Open the dataset again.") from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise DatasetError(f"{entry.key} was changed since it was checked. Open the dataset again, then export.")
    if keep:
        return content
    try:
        image = open_rgb(path, background=background)
    except PictureFileError as error:
        raise DatasetError(f"{entry.key} cannot be converted: {error}") from error
    png = io.BytesIO()
    image.save(png, format="PNG")
    return png.getvalue()


def _free_name(entry: SnapshotEntry, taken: set[str], *, suffix: str) -> str:
    """The key on one level, safe on every system and unlike all others, their captions' names included."""
    stem = _UNSAFE.sub("-", str(PurePosixPath(entry.key).with_suffix("")).replace("/", "__"))[:120].strip(".-") or "x"
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name + suffix


def _metadata(entry: SnapshotEntry, name: str) -> dict[str, object]:
    attributes = {f"source_{k}" if k in (*_OWN_COLUMNS, "repeats") else k: v for k, v in entry.attributes.items()}
    return {"file_name": name, "text": entry.caption, "repeats": entry.repeats, **attributes}


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A folder beside the wanted one, which takes its place when all went well."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder} is not empty. Choose a new folder, so that nothing in it is lost.")
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
