"""What is dropped on the page becomes a source folder: files with their sub-folders, zips unpacked."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter, ValidationError

from studio.dataset.archives import extract_zip
from studio.dataset.problems import Problem
from studio.dataset.source import Leftover
from studio.errors import DatasetError
from studio.files import write_atomically

MAX_PATH_LENGTH = 1000
NOT_TAKEN = "not-taken.json"
_LEFTOVERS = TypeAdapter(tuple[Leftover, ...])


@dataclass(frozen=True)
class DroppedFile:
    """A file as the page sent it: where it lay below what was dropped, and where it lies now. Both are hostile."""

    relative: str
    uploaded: Path


def take_files(files: Sequence[DroppedFile], folder: Path, *, uploads: Path) -> tuple[Leftover, ...]:
    """Move dropped files into `folder`, below the names they had; a zip is unpacked into a folder of its name.

    Args:
        folder: new; it is there only when all of it is.
        uploads: where the page's uploads lie; nothing else is taken.

    Returns:
        What was not taken, and why.

    Raises:
        DatasetError: where nothing could be taken.
        OSError: where the disk is full; `folder` is not there then.
    """
    leftovers: list[Leftover] = []
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        num_taken = 0
        for file in files:
            place = _place(file, partial, uploads)
            if isinstance(place, Leftover):
                leftovers.append(place)
            elif place.suffix.lower() == ".zip":
                leftovers += extract_zip(file.uploaded, place.with_suffix(""))
                num_taken += 1
            else:
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(file.uploaded, place)
                num_taken += 1
        if num_taken == 0:
            reasons = " ".join(leftover.problem.sentence for leftover in leftovers[:1])
            raise DatasetError(f"Nothing of what was dropped can be used. {reasons}".strip())
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return tuple(leftovers)


def keep_not_taken(file: Path, leftovers: Sequence[Leftover]) -> None:
    """Remember what was not taken, for as long as the dataset is there.

    Raises:
        OSError: where it cannot be written.
    """
    if leftovers:
        write_atomically(file, _LEFTOVERS.dump_json(tuple(leftovers), indent=2))


def read_not_taken(file: Path) -> tuple[Leftover, ...]:
    """What `keep_not_taken` wrote; () where it wrote nothing."""
    if not file.is_file():
        return ()
    try:
        return _LEFTOVERS.validate_json(file.read_bytes())
    except ValidationError:
        sentence = f"What was not taken of the drop can no longer be told: {file} is damaged."
        return (Leftover(name=file.name, problem=Problem(code="list damaged", severity="note", sentence=sentence)),)


def common_folder(files: Sequence[DroppedFile]) -> str:
    """The name for the dataset: the folder that was dropped, the zip's or the file's stem."""
    tops = {PurePosixPath(file.relative).parts[0] for file in files if PurePosixPath(file.relative).parts}
    return PurePosixPath(tops.pop()).stem if len(tops) == 1 else "dropped pictures"


def _place(file: DroppedFile, folder: Path, uploads: Path) -> Path | Leftover:
    """Where a file goes, or why it is not taken."""
    parts = PurePosixPath(file.relative.replace("\\", "/")).parts
    if (
        not parts
        or len(file.relative) > MAX_PATH_LENGTH
        or "\0" in file.relative
        or any(part in ("..", "/") or ":" in part for part in parts)
        or _shown(file.relative) != file.relative
    ):
        return _refused(file, "its name leads out of the dropped folder, or is no text")
    uploaded = file.uploaded.resolve()
    if not uploaded.is_relative_to(uploads.resolve()) or not uploaded.is_file():
        return _refused(file, "it did not arrive")
    place = folder.joinpath(*parts)
    if place.exists() or any(parent.is_file() for parent in place.parents):
        return _refused(file, "another file of that name was dropped too")
    return place


def _shown(name: str) -> str:
    """With escapes for halves of letters, which no file system and no JSON takes."""
    return name.encode("utf-8", "backslashreplace").decode()


def _refused(file: DroppedFile, reason: str) -> Leftover:
    sentence = f"It was not taken: {reason}. Rename it, or drop it by itself."
    return Leftover(
        name=_shown(file.relative)[:200], problem=Problem(code="not taken", severity="reject", sentence=sentence)
    )
