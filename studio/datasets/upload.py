"""What is dropped on the page: files, folders, and zips of strangers.

Unpacking a zip that a stranger may have made: inside the folder, within limits, all of it or none.

What is dropped on the page becomes a source folder: files with their sub-folders, zips unpacked.
"""

import errno
import re
import shutil
import stat
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import TypeAdapter, ValidationError

from studio.core.errors import DatasetError
from studio.core.files import open_file, read_file, write_atomically
from studio.core.language import N_, _
from studio.datasets.source import SkippedFile
from studio.datasets.walk import file_problem, folder_problem
from studio.images.records import Problem, Severity

GB = 1000**3
_CHUNK = 1024 * 1024


@dataclass(frozen=True)
class ArchiveLimits:
    """What a zip may hold."""

    num_files: int = 100_000
    total_bytes: int = 50 * GB
    ratio: int = 200
    ratio_counts_from_bytes: int = 100 * 1000**2


DEFAULT_LIMITS = ArchiveLimits()


def extract_zip(archive: Path, folder: Path, *, limits: ArchiveLimits = DEFAULT_LIMITS) -> tuple[SkippedFile, ...]:
    """Unpack a zip into a new folder, which is there only when all that can be unpacked is in it.

    Returns:
        The members that were not unpacked, and why.

    Raises:
        DatasetError: where it is no zip, is damaged, encrypted, or declares or holds more than the limits.
        OSError: where the disk is full.
    """
    partial = folder.with_name(f".{folder.name[:40]}.part")  # a longer name than the folder's might be too long
    shutil.rmtree(partial, ignore_errors=True)
    try:
        skipped_files = _extract(archive, partial, limits)
        folder.parent.mkdir(parents=True, exist_ok=True)
        partial.rename(folder)
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DatasetError(
            _("The zip cannot be unpacked ({error}). Pack it again, or drop its folder.", error=error)
        ) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise DatasetError(_("The zip is damaged: it names places outside of itself. Pack it again.")) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return skipped_files


def _extract(archive: Path, folder: Path, limits: ArchiveLimits) -> tuple[SkippedFile, ...]:
    folder.mkdir(parents=True)
    skipped_files: list[SkippedFile] = []
    with open_file(archive) as file, zipfile.ZipFile(file) as opened:
        members = [member for member in opened.infolist() if not member.is_dir()]
        _check_limits(members, limits)
        for member in members:
            problem = _member_problem(member)
            if problem is None:
                place = folder.joinpath(*PurePosixPath(member.filename).parts)
                problem = _place_problem(place)
                if problem is None:
                    _write(opened, member, place)
                    continue
            skipped_files.append(SkippedFile(name=_escaped(member.filename)[:200], problem=problem))
        if len(skipped_files) == len(members):
            raise DatasetError(_("There is no file in the zip that can be unpacked."))
    return _with_one_mac_note(skipped_files)


def _check_limits(members: list[zipfile.ZipInfo], limits: ArchiveLimits) -> None:
    if len(members) > limits.num_files:
        raise DatasetError(
            _(
                "The zip holds {num_files:,} files; up to {limit:,} are unpacked.",
                num_files=len(members),
                limit=limits.num_files,
            )
        )
    total = sum(member.file_size for member in members)
    if total > limits.total_bytes:
        raise DatasetError(
            _(
                "The zip unpacks to {size:,.1f} GB; up to {limit:g} GB are taken.",
                size=total / GB,
                limit=limits.total_bytes / GB,
            )
        )
    packed = sum(member.compress_size for member in members)
    if total > limits.ratio_counts_from_bytes and total > limits.ratio * max(1, packed):
        raise DatasetError(_("The zip unpacks to over 200 times its size, like a zip bomb."))
    if any(member.flag_bits & 0x1 for member in members):
        raise DatasetError(_("The zip is encrypted. Unpack it yourself and drop the folder."))


def _member_problem(member: zipfile.ZipInfo) -> Problem | None:
    name = member.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if "__MACOSX" in parts:
        return _problem(N_("Mac's notes"), "note", _("What a Mac keeps beside files (__MACOSX) is not unpacked."))
    if not parts or parts[0].startswith("/") or ".." in parts or any(":" in part or "\0" in part for part in parts):
        return _problem(N_("name leads out"), "reject", _("Its name leads out of the zip, so it is not unpacked."))
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG):
        return _problem(N_("not a file"), "reject", _("It is a link or a device, not a file, so it is not unpacked."))
    return None


_NO_NAME = (errno.ENAMETOOLONG, errno.EILSEQ)


def _place_problem(place: Path) -> Problem | None:
    """Why no file can be made there; its folder is made where one can. One odd name costs its own file alone."""
    try:
        if _is_taken(place):
            return _problem(N_("name twice"), "reject", _("Another file of the zip has its name."))
        place.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in _NO_NAME:
            raise
        sentence = _(
            "Its name, or its folder's, is too long for this disk, or has letters that it does not take, so it is not "
            "unpacked. Shorten it, then pack again."
        )
        return _problem(N_("name too long"), "reject", sentence)
    return None


def _is_taken(place: Path) -> bool:
    """Whether a file or a folder is there, or a file where its folder would be."""
    try:
        place.lstat()
    except FileNotFoundError:
        return False
    except NotADirectoryError:
        return True
    return True


def _write(opened: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> None:
    """Write one member, and never more than it declares."""
    written = 0
    try:
        with opened.open(member) as packed, place.open("wb") as file:
            while chunk := packed.read(_CHUNK):
                written += len(chunk)
                if written > member.file_size:
                    raise DatasetError(_("The zip holds more than it declares, like a zip bomb."))
                file.write(chunk)
    except (zlib.error, EOFError) as error:
        name = _escaped(member.filename)[:200]
        raise DatasetError(
            _("{name} in the zip is damaged ({error}). Pack it again.", name=name, error=error)
        ) from error


def _with_one_mac_note(skipped_files: list[SkippedFile]) -> tuple[SkippedFile, ...]:
    notes = [skipped_file for skipped_file in skipped_files if skipped_file.problem.code == "Mac's notes"]
    others = [skipped_file for skipped_file in skipped_files if skipped_file.problem.code != "Mac's notes"]
    return (*others, *([SkippedFile(name="__MACOSX", problem=notes[0].problem)] if notes else ()))


def _problem(code: str, severity: Severity, sentence: str) -> Problem:
    return Problem(code=code, severity=severity, sentence=sentence)


def _escaped(name: str) -> str:
    """With escapes for halves of letters, which no file system and no JSON takes."""
    return name.encode("utf-8", "backslashreplace").decode()


MAX_PATH_LENGTH = 1000
NOT_TAKEN = "not-taken.json"
_REPEATS = re.compile(r"\d+_")  # a kohya folder counts only below the source
_LEFTOVERS = TypeAdapter(tuple[SkippedFile, ...])


@dataclass(frozen=True)
class DroppedFile:
    """A file as the page sent it: where it lay below what was dropped, and where it lies now. Both are hostile."""

    relative: str
    uploaded: Path


def take_files(files: Sequence[DroppedFile], folder: Path, *, uploads: Path) -> tuple[SkippedFile, ...]:
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
    skipped_files: list[SkippedFile] = []
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        num_taken = 0
        moved: dict[Path, Path] = {}
        for file in files:
            if same := moved.get(file.uploaded):  # Gradio keeps files of one name and one content once
                shutil.copy2(same, file.uploaded)
            place = _place(file, partial, uploads)
            if isinstance(place, SkippedFile):
                skipped_files.append(place)
                continue
            if _is_zip(file):
                skipped_files += extract_zip(file.uploaded, place)
            else:
                moved[file.uploaded] = Path(shutil.move(file.uploaded, place))
            num_taken += 1
        if num_taken == 0:
            reasons = [skipped_file.problem.sentence for skipped_file in skipped_files[:1]]
            raise DatasetError(" ".join([_("None of the dropped files can be used."), *reasons]))
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # which is there where it was not renamed
    return tuple(skipped_files)


def keep_not_taken(file: Path, skipped_files: Sequence[SkippedFile]) -> None:
    """Remember what was not taken, for as long as the dataset is there.

    Raises:
        OSError: where it cannot be written.
    """
    if skipped_files:
        write_atomically(file, _LEFTOVERS.dump_json(tuple(skipped_files), indent=2))


def read_not_taken(file: Path) -> tuple[SkippedFile, ...]:
    """What `keep_not_taken` wrote; () where it wrote nothing."""
    if not file.is_file():
        return ()
    try:
        return _LEFTOVERS.validate_json(read_file(file))
    except ValidationError:
        sentence = _("What was not taken from the drop is no longer known: {file} is damaged.", file=file)
        return (
            SkippedFile(name=file.name, problem=Problem(code=N_("list damaged"), severity="note", sentence=sentence)),
        )


def common_folder(files: Sequence[DroppedFile]) -> str:
    """The name for the dataset: the folder that was dropped, the zip's or the file's stem."""
    tops = {PurePosixPath(file.relative).parts[0] for file in files if PurePosixPath(file.relative).parts}
    return PurePosixPath(tops.pop()).stem if len(tops) == 1 else _("dropped images")


def only_folder(folder: Path) -> Path:
    """The folder inside, where that is all there is; else the folder itself."""
    entries = [entry for entry in folder.iterdir() if not (folder_problem(entry.name) or file_problem(entry.name))]
    if len(entries) != 1 or not entries[0].is_dir() or _REPEATS.match(entries[0].name):
        return folder
    return only_folder(entries[0])


def _place(file: DroppedFile, folder: Path, uploads: Path) -> Path | SkippedFile:
    """Where a file goes, or why it is not taken."""
    parts = PurePosixPath(file.relative.replace("\\", "/")).parts
    if (
        not parts
        or len(file.relative) > MAX_PATH_LENGTH
        or "\0" in file.relative
        or any(part in ("..", "/") or ":" in part for part in parts)
        or _escaped(file.relative) != file.relative
    ):
        return _refused(file, _("its name leads out of the dropped folder, or is no text"))
    uploaded = file.uploaded.resolve()
    if not uploaded.is_relative_to(uploads.resolve()) or not uploaded.is_file():
        return _refused(file, _("it did not arrive"))
    place = folder.joinpath(*parts)
    place = place.with_suffix("") if _is_zip(file) else place
    problem = _place_problem(place)
    if problem is None:
        return place
    if problem.code == "name twice":
        return _refused(file, _("another file of that name was dropped too"))
    return _refused(
        file, _("its name, or its folder's, is too long for this disk, or has letters that it does not take")
    )


def _is_zip(file: DroppedFile) -> bool:
    return PurePosixPath(file.relative).suffix.lower() == ".zip"


def _refused(file: DroppedFile, reason: str) -> SkippedFile:
    sentence = _("It was not taken: {reason}. Rename it, or drop it by itself.", reason=reason)
    return SkippedFile(
        name=_escaped(file.relative)[:200], problem=Problem(code=N_("not taken"), severity="reject", sentence=sentence)
    )
