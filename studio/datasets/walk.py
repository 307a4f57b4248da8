"""Every file below a source folder: images, captions, tables, the rest. Nothing is opened, nothing is left out."""

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from natsort import natsorted

from studio.core.errors import DatasetError
from studio.datasets.source import SkippedFile
from studio.images.records import Problem

PICTURE_SUFFIXES = frozenset(
    (
        *(".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".ppm"),
        *(".heic", ".heif", ".jxl", ".svg", ".eps", ".ps", ".ico", ".tga", ".psd"),
    )
)
"""What says of itself that it is an image, read by us or not: the check tells which."""
CAPTION_SUFFIXES = (".txt", ".caption")
TABLE_SUFFIXES = frozenset((".csv", ".tsv", ".jsonl", ".json"))


@dataclass
class Walk:
    """What lies below a folder, as paths with forward slashes below it, in natural order.

    Attributes:
        images, captions, tables, others: by what their names end in.
        leftovers: what cannot be used whatever the layout: names, folders.
    """

    folder: Path
    pictures: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    skipped_files: list[SkippedFile] = field(default_factory=list)

    def path(self, key: str) -> Path:
        """Where a file of the walk lies."""
        return self.folder / key


def walk_folder(folder: Path) -> Walk:
    """Look through a folder and all below it.

    Raises:
        DatasetError: where it is not a folder, or cannot be read.
    """
    try:
        status = folder.stat()
    except OSError as error:
        raise DatasetError(f"{folder} cannot be found ({error.strerror}). Check that its disk is connected.") from error
    if not stat.S_ISDIR(status.st_mode):
        raise DatasetError(f"{folder} is not a folder. Give the folder in which the images lie.")
    found = Walk(folder)
    try:
        _walk(found, PurePosixPath(), above=((status.st_dev, status.st_ino),))
    except PermissionError as error:
        raise DatasetError(f"{folder} is not readable. Change its permissions.") from error
    for names in (found.pictures, found.captions, found.tables, found.others):
        names[:] = natsorted(names)
    return found


def _walk(found: Walk, below: PurePosixPath, *, above: tuple[tuple[int, int], ...]) -> None:
    with os.scandir(found.folder / below) as entries:
        for entry in entries:
            key = (below / entry.name).as_posix()
            if not _is_unicode(key):
                found.skipped_files.append(_left(key, "name not UTF-8", "reject", _NOT_UNICODE))
            elif _is_folder(entry):
                _enter(found, entry, below / entry.name, above=above)
                if _suffix(key) in PICTURE_SUFFIXES:
                    found.pictures.append(key)
            else:
                _sort_in(found, key)


def _enter(found: Walk, entry: "os.DirEntry[str]", below: PurePosixPath, *, above: tuple[tuple[int, int], ...]) -> None:
    """Go into a folder, unless it is hidden, shut, or leads back up."""
    name = below.as_posix()
    if entry.name.startswith(".") or entry.name == "__MACOSX":
        found.skipped_files.append(_left(name, "hidden folder", "note", "A hidden folder: it is not looked into."))
        return
    try:
        status = entry.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            found.skipped_files.append(_left(name, "looping link", "note", "A link to a folder that it lies in."))
            return
        _walk(found, below, above=(*above, identity))
    except OSError as error:
        sentence = f"The folder cannot be read ({error.strerror}), so its images are missing. Change its permissions."
        found.skipped_files.append(_left(name, "unreadable folder", "reject", sentence))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops: the check says so of an image
        return False


def _sort_in(found: Walk, key: str) -> None:
    suffix = _suffix(key)
    if suffix in PICTURE_SUFFIXES:
        found.pictures.append(key)
    elif suffix in CAPTION_SUFFIXES and not PurePosixPath(key).name.startswith("."):
        found.captions.append(key)
    elif suffix in TABLE_SUFFIXES and not PurePosixPath(key).name.startswith("."):
        found.tables.append(key)
    else:
        found.others.append(key)


def _suffix(key: str) -> str:
    return PurePosixPath(key).suffix.lower()


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_NOT_UNICODE = "Its name is not UTF-8, so it can be neither shown nor saved in a dataset. Rename it."


def _left(name: str, code: str, severity: str, sentence: str) -> SkippedFile:
    shown = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return SkippedFile(
        name=shown, problem=Problem.model_validate({"code": code, "severity": severity, "sentence": sentence})
    )
