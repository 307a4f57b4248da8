"""A source folder read in its layout; captions beside images, kohya's folders.

Captions in files beside the images, and kohya's folders whose names give repeats and words.

Reading a source folder in the layout that it has, or that the user says it has.
"""

import re
from collections import Counter
from pathlib import Path, PurePosixPath

from studio.core.language import N_, _
from studio.datasets.captions import find_captions, read_caption
from studio.datasets.source import (
    LayoutChoice,
    LayoutName,
    SkippedFile,
    SourcePicture,
    SourceReading,
)
from studio.datasets.table_layout import FolderTables, fits, read_by_table, unused_tables
from studio.datasets.walk import OnProgress, Walk, walk_folder
from studio.images.records import Problem

_REPEATS = re.compile(r"(\d{1,5})_(.*)")
_PROJECT_IMAGES, _PROJECT_OUTPUT = "img", frozenset(("log", "model"))  # of kohya_ss
REGULARISATION = frozenset(("reg", "regularization", "regularisation"))


def read_sidecars(walk: Walk) -> tuple[list[SourcePicture], list[SkippedFile]]:
    """Every image with the caption file of its name, and captions without an image."""
    captions = find_captions(walk.pictures, walk.captions)
    num_pictures = Counter(file for files in captions.values() for file in files)
    pictures = []
    for key in walk.pictures:
        files = captions[key]
        if not files:
            pictures.append(SourcePicture(key, walk.path(key)))
            continue
        file = files[0]
        reading = read_caption(walk.path(file))
        problems = [*reading.problems]
        if len(files) > 1:
            others = ", ".join(files[1:])
            sentence = _("{file} is used; {others} is not. Delete the one that is wrong.", file=file, others=others)
            problems.append(_note(N_("two captions"), sentence))
        if num_pictures[file] > 1:
            sentence = _("{file} belongs to {num_images} images.", file=file, num_images=num_pictures[file])
            problems.append(_note(N_("shared caption"), sentence))
        pictures.append(
            SourcePicture(key, walk.path(key), caption=reading.text, caption_from=file, problems=tuple(problems))
        )
    lone = [file for file in walk.captions if file not in num_pictures]
    sentence = _("No image has this caption's name, so it is not used.")
    return pictures, [SkippedFile(name=file, problem=_note(N_("caption without an image"), sentence)) for file in lone]


def read_kohya(walk: Walk) -> tuple[list[SourcePicture], list[SkippedFile]]:
    """The images of `N_words/` folders, each N times; the words are the caption where there is no file.

    The folders lie in the source itself, or in its `img/`, as in kohya_ss's projects with `reg/`, `log/` and `model/`.
    """
    is_project = any(_is_in_project(key) for key in walk.pictures)
    pictures, skipped_files = read_sidecars(walk)
    taken: list[SourcePicture] = []
    for picture in pictures:
        top = PurePosixPath(picture.key).parts[0]
        if top.lower() in REGULARISATION:
            sentence = _(
                "A regularisation image (it keeps what the model knew): not part of the dataset "
                "itself. Open {folder} as a separate dataset, then select it under Regularisation "
                "images on the Training tab.",
                folder=top,
            )
            skipped_files.append(SkippedFile(name=picture.key, problem=_note(N_("regularisation"), sentence)))
            continue
        if is_project and top.lower() in _PROJECT_OUTPUT:
            sentence = _("It lies in {folder}, where kohya_ss puts what it makes: not part of the dataset.", folder=top)
            skipped_files.append(SkippedFile(name=picture.key, problem=_note(N_("output of kohya_ss"), sentence)))
            continue
        match = _repeats_of(picture.key)
        if match is None:
            sentence = _(
                "It lies in no folder with a number (10_shoe), so it would not be trained on. Move it into one."
            )
            problem = Problem(code=N_("outside of repeats"), severity="reject", sentence=sentence)
            skipped_files.append(SkippedFile(name=picture.key, problem=problem))
            continue
        words = " ".join(match[2].split())
        own = picture.caption is not None or any(p.severity == "reject" for p in picture.problems)
        taken.append(
            SourcePicture(
                picture.key,
                picture.path,
                caption=picture.caption if own else words,
                caption_from=picture.caption_from if own else _("the folder {name}", name=match[0]),
                repeats=int(match[1]),
                problems=(*picture.problems, *([] if int(match[1]) else [_no_repeats()])),
            )
        )
    return taken, skipped_files


def has_kohya_folders(walk: Walk) -> bool:
    """Whether images lie in a folder such as `10_shoe`, directly below the source or its `img/`."""
    return any(_repeats_of(key) for key in walk.pictures)


def _repeats_of(key: str) -> re.Match[str] | None:
    folders = PurePosixPath(key).parts[:-1]
    if folders and folders[0].lower() == _PROJECT_IMAGES:
        folders = folders[1:]
    return _REPEATS.fullmatch(folders[0]) if folders else None


def _is_in_project(key: str) -> bool:
    return key.lower().startswith(f"{_PROJECT_IMAGES}/") and _repeats_of(key) is not None


def _note(code: str, sentence: str) -> Problem:
    return Problem(code=code, severity="note", sentence=sentence)


def _no_repeats() -> Problem:
    sentence = _("Its folder's name asks for 0 repeats, so it is never trained on. Rename the folder.")
    return Problem(code=N_("no repeats"), severity="reject", sentence=sentence, remedies=("exclude",))


def read_source(folder: Path, choice: LayoutChoice, *, on_progress: OnProgress | None = None) -> SourceReading:
    """Find every image of a folder and the caption that belongs to it. No image is decoded.

    Args:
        on_progress: told now and then how many files and folders were seen.

    Raises:
        DatasetError: where the folder cannot be read, or not in the layout that was chosen.
    """
    walk = walk_folder(folder, on_progress=on_progress)
    tables = FolderTables(walk)
    recognised = recognise(tables)
    layout = choice.layout or ("table" if choice.table and recognised[0] == "sidecar" else recognised[0])
    if layout in ("sidecar", "kohya"):
        pictures, skipped_files = (read_kohya if layout == "kohya" else read_sidecars)(walk)
        reading = SourceReading(
            layout=layout,
            recognised=recognised,
            pictures=tuple(pictures),
            tables=tuple(walk.tables),
            skipped_files=(*skipped_files, *unused_tables(tables, (), _("The layout reads no table."))),
        )
    else:
        reading = read_by_table(tables, layout, choice, recognised)
    others = _unused(walk.others, N_("other file"), _("It is neither an image nor a caption, so it is not used."))
    return SourceReading(**{**vars(reading), "skipped_files": (*walk.skipped_files, *reading.skipped_files, *others)})


def recognise(tables: FolderTables) -> tuple[LayoutName, ...]:
    """Every layout that fits, best first; captions beside the images always fit."""
    is_fashion = fits(tables, "fashion")
    tests: tuple[tuple[LayoutName, bool], ...] = (
        ("fashion", is_fashion),
        ("imagefolder", fits(tables, "imagefolder")),
        ("kohya", has_kohya_folders(tables.walk)),
        ("table", not is_fashion and fits(tables, "table")),
    )
    return (*(name for name, does in tests if does), "sidecar")


def _unused(names: list[str], code: str, sentence: str) -> list[SkippedFile]:
    return [SkippedFile(name=name, problem=Problem(code=code, severity="note", sentence=sentence)) for name in names]
