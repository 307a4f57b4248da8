"""A source folder read in its layout; captions beside images, kohya's folders.

Captions in files beside the images, and kohya's folders whose names give repeats and words.

Reading a source folder in the layout that it has, or that the user says it has.
"""

import re
import unicodedata
from collections import defaultdict
from pathlib import Path, PurePosixPath

from studio.datasets.captions import read_caption
from studio.datasets.source import (
    LayoutChoice,
    LayoutName,
    SkippedFile,
    SourcePicture,
    SourceReading,
)
from studio.datasets.table_layout import fits, read_by_table
from studio.datasets.walk import OnProgress, Walk, walk_folder
from studio.images.records import Problem

_REPEATS = re.compile(r"(\d{1,5})_(.*)")
REGULARISATION = frozenset(("reg", "regularization", "regularisation"))


def read_sidecars(walk: Walk) -> tuple[list[SourcePicture], list[SkippedFile]]:
    """Every image with the caption file of its name, and captions without an image."""
    captions = _by_stem(walk.captions)
    pictures_by_stem = _by_stem(walk.pictures)
    pictures = []
    for key in walk.pictures:
        stem = nfc_stem(key)
        files = captions.get(stem, [])
        if not files:
            pictures.append(SourcePicture(key, walk.path(key)))
            continue
        # .txt is what most tools write; .caption stands behind it
        file = min(files, key=lambda name: not name.lower().endswith(".txt"))
        reading = read_caption(walk.path(file))
        problems = [*reading.problems]
        if len(files) > 1:
            others = ", ".join(name for name in files if name != file)
            problems.append(_note("two captions", f"{file} is used; {others} is not. Delete the one that is wrong."))
        if len(pictures_by_stem[stem]) > 1:
            problems.append(_note("shared caption", f"{file} belongs to {len(pictures_by_stem[stem])} images."))
        pictures.append(
            SourcePicture(key, walk.path(key), caption=reading.text, caption_from=file, problems=tuple(problems))
        )
    lone = [file for stem, files in captions.items() if stem not in pictures_by_stem for file in files]
    sentence = "No image has this caption's name, so it is not used."
    return pictures, [SkippedFile(name=file, problem=_note("caption without an image", sentence)) for file in lone]


def read_kohya(walk: Walk) -> tuple[list[SourcePicture], list[SkippedFile]]:
    """The images of `N_words/` folders, each N times; the words are the caption where there is no file."""
    pictures, skipped_files = read_sidecars(walk)
    taken: list[SourcePicture] = []
    for picture in pictures:
        top = PurePosixPath(picture.key).parts[0]
        if top.lower() in REGULARISATION:
            sentence = "A regularisation image (it keeps what the model knew): not part of the dataset itself."
            skipped_files.append(SkippedFile(name=picture.key, problem=_note("regularisation", sentence)))
            continue
        match = _REPEATS.fullmatch(top) if "/" in picture.key else None
        if match is None:
            sentence = "It lies in no folder with a number (10_shoe), so it would not be trained on. Move it into one."
            problem = Problem(code="outside of repeats", severity="reject", sentence=sentence)
            skipped_files.append(SkippedFile(name=picture.key, problem=problem))
            continue
        words = match[2].strip()
        own = picture.caption is not None or any(p.severity == "reject" for p in picture.problems)
        taken.append(
            SourcePicture(
                picture.key,
                picture.path,
                caption=picture.caption if own else words,
                caption_from=picture.caption_from if own else f"the folder {top}",
                repeats=int(match[1]),
                problems=(*picture.problems, *(_NO_REPEATS if int(match[1]) == 0 else ())),
            )
        )
    return taken, skipped_files


def has_kohya_folders(walk: Walk) -> bool:
    """Whether images lie in a folder such as `10_shoe`, directly below the source."""
    return any(_REPEATS.fullmatch(key.partition("/")[0]) for key in walk.pictures if "/" in key)


def _by_stem(keys: list[str]) -> dict[str, list[str]]:
    stems = defaultdict(list)
    for key in keys:
        stems[nfc_stem(key)].append(key)
    return stems


def nfc_stem(key: str) -> str:
    """The path without its ending, in one of the two ways in which Unicode writes an accent: Macs use the other."""
    return unicodedata.normalize("NFC", str(PurePosixPath(key).with_suffix("")))


def _note(code: str, sentence: str) -> Problem:
    return Problem(code=code, severity="note", sentence=sentence)


_NO_REPEATS = (
    Problem(
        code="no repeats",
        severity="reject",
        sentence="Its folder's name asks for 0 repeats, so it is never trained on. Rename the folder.",
        remedies=("exclude",),
    ),
)


def read_source(folder: Path, choice: LayoutChoice, *, on_progress: OnProgress | None = None) -> SourceReading:
    """Find every image of a folder and the caption that belongs to it. No image is decoded.

    Args:
        on_progress: told now and then how many files and folders were seen.

    Raises:
        DatasetError: where the folder cannot be read, or not in the layout that was chosen.
    """
    walk = walk_folder(folder, on_progress=on_progress)
    recognised = recognise(walk)
    layout = choice.layout or ("table" if choice.table and recognised[0] == "sidecar" else recognised[0])
    if layout in ("sidecar", "kohya"):
        pictures, skipped_files = (read_kohya if layout == "kohya" else read_sidecars)(walk)
        reading = SourceReading(
            layout=layout,
            recognised=recognised,
            pictures=tuple(pictures),
            tables=tuple(walk.tables),
            skipped_files=(*skipped_files, *_unused(walk.tables, "table not used", "The layout reads no table.")),
        )
    else:
        reading = read_by_table(walk, layout, choice, recognised)
    others = _unused(walk.others, "other file", "It is neither an image nor a caption, so it is not used.")
    return SourceReading(**{**vars(reading), "skipped_files": (*walk.skipped_files, *reading.skipped_files, *others)})


def recognise(walk: Walk) -> tuple[LayoutName, ...]:
    """Every layout that fits, best first; captions beside the images always fit."""
    tests: tuple[tuple[LayoutName, bool], ...] = (
        ("fashion", fits(walk, "fashion")),
        ("imagefolder", fits(walk, "imagefolder")),
        ("kohya", has_kohya_folders(walk)),
        ("table", not fits(walk, "fashion") and fits(walk, "table")),
    )
    return (*(name for name, does in tests if does), "sidecar")


def _unused(names: list[str], code: str, sentence: str) -> list[SkippedFile]:
    return [SkippedFile(name=name, problem=Problem(code=code, severity="note", sentence=sentence)) for name in names]
