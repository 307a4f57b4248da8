"""Every file below a source folder: images, captions, tables, the rest; nothing is left out without a word.

What systems and tools put beside the images is recognised by its name, so that none of it is trained on.
"""

import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from natsort import natsorted

from studio.core.errors import DatasetError
from studio.core.files import open_file
from studio.core.language import N_, _
from studio.core.paths import leads_out
from studio.datasets.captions import name_of, stem_of
from studio.datasets.source import CAPTION_SUFFIXES, PICTURE_SUFFIXES, TABLE_SUFFIXES, SkippedFile
from studio.images.formats import RAW_SUFFIXES, START_BYTES, picture_kind
from studio.images.records import Problem, Severity

MAX_FILES = 300_000
MAX_DEPTH = 32
PROGRESS_STEP = 20_000
"""Files and folders from one report of progress to the next."""
OnProgress = Callable[[int], None]


@dataclass
class Walk:
    """What lies below a folder, as paths with forward slashes below it, in natural order.

    Attributes:
        images, captions, tables, others: by what their names end in; images by their first bytes too.
        leftovers: what is not used whatever the layout: names, folders, links, files of systems and tools.
        num_seen: files and folders.
    """

    folder: Path
    pictures: list[str] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    skipped_files: list[SkippedFile] = field(default_factory=list)
    num_seen: int = 0

    def path(self, key: str) -> Path:
        """Where a file of the walk lies."""
        return self.folder / key

    def skip(self, key: str, problem: Problem) -> None:
        """Name what is not used, and why."""
        shown = key.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self.skipped_files.append(SkippedFile(name=shown, problem=problem))


def walk_folder(
    folder: Path,
    *,
    on_progress: OnProgress | None = None,
    progress_step: int = PROGRESS_STEP,
    max_files: int = MAX_FILES,
) -> Walk:
    """Look through a folder and all below it, but not through links out of it, nor into folders of systems and tools.

    Args:
        on_progress: told now and then how many files and folders were seen.

    Raises:
        DatasetError: where it is not a folder, cannot be read, or holds more files than a dataset has.
    """
    try:
        status = folder.stat()
    except OSError as error:
        raise DatasetError(
            _(
                "{folder} cannot be found ({reason}). Check that its disk is connected.",
                folder=folder,
                reason=error.strerror,
            )
        ) from error
    if not stat.S_ISDIR(status.st_mode):
        raise DatasetError(_("{folder} is not a folder. Give the folder in which the images lie.", folder=folder))
    found = Walk(folder)

    def count() -> None:
        found.num_seen += 1
        if found.num_seen > max_files:
            sentence = _(
                "{folder} holds more than {limit:,} files and folders. Give the folder in which the images lie.",
                folder=folder,
                limit=max_files,
            )
            raise DatasetError(sentence)
        if on_progress and found.num_seen % progress_step == 0:
            on_progress(found.num_seen)

    try:
        _walk(found, PurePosixPath(), count)
    except PermissionError as error:
        raise DatasetError(_("{folder} is not readable. Change its permissions.", folder=folder)) from error
    _set_aside(found)
    for names in (found.pictures, found.captions, found.tables, found.others):
        names[:] = natsorted(names)
    return found


def _walk(found: Walk, below: PurePosixPath, count: Callable[[], None]) -> None:
    with os.scandir(found.folder / below) as entries:
        for entry in entries:
            count()
            key = (below / entry.name).as_posix()
            if (problem := _problem_of(found, entry, key)) is not None:
                found.skip(key, problem)
            elif _is_folder(entry):
                _enter(found, PurePosixPath(key), count)
            else:
                _sort_in(found, key)


def _problem_of(found: Walk, entry: "os.DirEntry[str]", key: str) -> Problem | None:
    """Why an entry is not used whatever it holds; None where it is."""
    if not _is_unicode(key):
        sentence = _("Its name is not UTF-8, so it can be neither shown nor saved in a dataset. Rename it.")
        return _problem(N_("name not UTF-8"), "reject", sentence)
    is_folder = _is_folder(entry)
    if problem := (folder_problem if is_folder else file_problem)(entry.name):
        return problem
    if entry.is_symlink() and leads_out(Path(entry.path), found.folder):
        is_lost = is_folder or _suffix(key) in _USED_SUFFIXES
        sentence = _(
            "A link that leads out of the folder, so it is not read. Put the files themselves into the folder."
        )
        return _problem(N_("link leads out"), "reject" if is_lost else "note", sentence)
    if entry.is_symlink() and is_folder:
        sentence = _("A link to a folder of this dataset, which is read where it lies, and not a second time.")
        return _problem(N_("linked folder"), "note", sentence)
    if is_folder and len(PurePosixPath(key).parts) > MAX_DEPTH:
        sentence = _(
            "It lies more than {limit} folders deep, so it is not looked into. Move its images up.", limit=MAX_DEPTH
        )
        return _problem(N_("too deep"), "reject", sentence)
    return None


def _enter(found: Walk, below: PurePosixPath, count: Callable[[], None]) -> None:
    key = below.as_posix()
    if _suffix(key) in PICTURE_SUFFIXES:
        found.pictures.append(key)
    try:
        _walk(found, below, count)
    except OSError as error:
        sentence = _(
            "The folder cannot be read ({reason}), so its images are missing. Change its permissions.",
            reason=error.strerror,
        )
        found.skip(key, _problem(N_("unreadable folder"), "reject", sentence))


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that loops: the check says so of an image
        return False


def _sort_in(found: Walk, key: str) -> None:
    suffix = _suffix(key)
    if suffix in PICTURE_SUFFIXES:
        found.pictures.append(key)
    elif suffix in CAPTION_SUFFIXES:
        found.captions.append(key)
    elif suffix in TABLE_SUFFIXES:
        found.tables.append(key)
    else:
        found.others.append(key)


def _set_aside(found: Walk) -> None:
    """Judge what is called like no image by its first bytes, and name what other programs made of the images."""
    named, others = frozenset(found.pictures), found.others
    found.others = []
    for key in others:
        if original := backup_of(key, named):
            sentence = _("Another program's backup of {original}: it is not used.", original=original)
            found.skip(key, _problem(N_("backup"), "note", sentence))
        else:
            (found.pictures if _starts_like_picture(found, key) else found.others).append(key)
    problems = by_products(found.pictures, found.captions)
    for key, problem in problems.items():
        found.skip(key, problem)
    found.pictures = [key for key in found.pictures if key not in problems]


def _starts_like_picture(found: Walk, key: str) -> bool:
    path = found.path(key)
    try:
        status = path.stat()  # before opening: opening a FIFO waits for ever
        if not stat.S_ISREG(status.st_mode) or not status.st_size:
            return False
        with open_file(path) as file:
            return picture_kind(file.read(START_BYTES)) != ""
    except OSError as error:
        sentence = _("It cannot be read ({reason}), so it is not known whether it is an image.", reason=error.strerror)
        found.skip(key, _problem(N_("unreadable file"), "note", sentence))
        return False


def _suffix(key: str) -> str:
    return PurePosixPath(key).suffix.lower()


def _is_unicode(name: str) -> bool:
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


_USED_SUFFIXES = frozenset((*PICTURE_SUFFIXES, *CAPTION_SUFFIXES, *TABLE_SUFFIXES))


def _problem(code: str, severity: Severity, sentence: str) -> Problem:
    return Problem(code=code, severity=severity, sentence=sentence)


_SYSTEM_FOLDERS = {
    "@eadir": N_("Synology's thumbnails"),
    "@tmp": N_("Synology's temporary files"),
    "#recycle": N_("Synology's recycle bin"),
    "#snapshot": N_("Synology's snapshots"),
    "@recycle": N_("QNAP's recycle bin"),
    "@recently-snapshot": N_("QNAP's snapshots"),
    ".@__thumb": N_("QNAP's thumbnails"),
    "$recycle.bin": N_("Windows' recycle bin"),
    "recycler": N_("Windows' recycle bin"),
    "system volume information": N_("Windows' own files"),
    "lost+found": N_("files that a file system repair found"),
    "network trash folder": N_("a Mac's trash"),
    "temporary items": N_("a Mac's temporary files"),
    "__macosx": N_("what a Mac keeps beside files"),
}
_TOOL_FOLDERS = {
    "_latent_cache": N_("ai-toolkit's cache"),
    "_t_e_cache": N_("ai-toolkit's cache"),
    "_clip_vision_cache": N_("ai-toolkit's cache"),
    "_controls": N_("ai-toolkit's control images"),
}
_SYSTEM_FILES = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini"))
MASK_MARK = re.compile(r"(-masklabel|[-_]mask)$", re.IGNORECASE)  # -masklabel: OneTrainer's
_MASK_FOLDERS = frozenset(("mask", "masks"))
_BACKUP_ENDINGS = ("_original", ".bak", ".orig", "~")


def folder_problem(name: str) -> Problem | None:
    """Why a folder of that name is not looked into; None where it is."""
    plain = name.casefold()
    if what := _SYSTEM_FOLDERS.get(plain):
        return _problem(N_("system folder"), "note", _("It holds {what}, so it is not looked into.", what=_(what)))
    if what := _TOOL_FOLDERS.get(plain):
        return _problem(N_("folder of a tool"), "note", _("It holds {what}, so it is not looked into.", what=_(what)))
    if name.startswith("."):
        return _problem(N_("hidden folder"), "note", _("A hidden folder: it is not looked into."))
    return None


def file_problem(name: str) -> Problem | None:
    """Why a file of that name is not used, whatever it holds; None where that is for its content to say."""
    if name.startswith(".") and name.casefold().endswith(".icloud"):
        sentence = _(
            "It stands for a file that is in iCloud only. Download the file in the Finder, then read the folder again."
        )
        return _problem(N_("in iCloud"), "reject", sentence)
    if name.startswith("._"):
        return _problem(N_("hidden file"), "note", _("What a Mac keeps beside a file (AppleDouble): it is not used."))
    if name.startswith("."):
        return _problem(N_("hidden file"), "note", _("A hidden file: it is not used."))
    if name.casefold() in _SYSTEM_FILES:
        return _problem(N_("system file"), "note", _("A file of Windows: it is not used."))
    return None


def by_products(pictures: Sequence[str], captions: Sequence[str]) -> dict[str, Problem]:
    """The images that another program made from an image beside them, by key; those with a caption are left alone.

    Args:
        pictures, captions: keys of the dataset's files.
    """
    stems = {_stem(key): key for key in pictures if PurePosixPath(key).suffix.lower() not in RAW_SUFFIXES}
    captioned = {_stem(key) for key in captions}
    found = {}
    for key in pictures:
        stem = _stem(key)
        if PurePosixPath(key).suffix.lower() in RAW_SUFFIXES:
            if stem in stems:
                sentence = _("A camera's RAW file: {image}, made from it, is read in its place.", image=stems[stem])
                found[key] = _problem(N_("RAW file"), "note", sentence)
        elif stem not in captioned and _plain(key) not in captioned:
            if subject := next((stems[of] for of in _masked(stem) if of in stems), None):
                sentence = _(
                    "It looks like a mask of {image}: it is not trained on. To use it, give a folder that holds masks "
                    "only as the mask folder of a training. If it is an image to learn, rename it or write a caption "
                    "for it.",
                    image=subject,
                )
                found[key] = _problem(N_("mask"), "note", sentence)
            elif stem.endswith("-condlabel") and (subject := stems.get(stem.removesuffix("-condlabel"))):
                sentence = _(
                    "It is OneTrainer's conditioning image of {image}, so it is not trained on.", image=subject
                )
                found[key] = _problem(N_("conditioning image"), "note", sentence)
    return found


def _masked(stem: str) -> Iterator[str]:
    """The stems of the images that it may be a mask of."""
    if MASK_MARK.search(stem):
        yield MASK_MARK.sub("", stem)
    path = PurePosixPath(stem)
    if path.parent.name in _MASK_FOLDERS:
        yield str(path.parent.parent / path.name)


def backup_of(key: str, pictures: Collection[str]) -> str:
    """The image that a file is another program's backup of (`a.jpg~`, `a.jpg_original`); "" where it is none."""
    originals = (key.removesuffix(ending) for ending in _BACKUP_ENDINGS if key.endswith(ending))
    return next((name for name in originals if name in pictures), "")


def _stem(key: str) -> str:
    return stem_of(key).casefold()


def _plain(key: str) -> str:
    return name_of(key).casefold()
