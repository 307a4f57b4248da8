"""Reading a source folder in the layout that it has, or that the user says it has."""

from pathlib import Path

from studio.dataset.problems import Problem
from studio.dataset.recipe import LayoutChoice, LayoutName
from studio.dataset.sidecar_layout import has_kohya_folders, read_kohya, read_sidecars
from studio.dataset.source import Leftover, SourceReading
from studio.dataset.table_layout import fits, read_by_table
from studio.dataset.walk import Walk, walk_folder


def read_source(folder: Path, choice: LayoutChoice) -> SourceReading:
    """Find every picture of a folder and the caption that belongs to it. No picture is opened.

    Raises:
        DatasetError: where the folder cannot be read, or not in the layout that was chosen.
    """
    walk = walk_folder(folder)
    recognised = recognise(walk)
    layout = choice.layout or ("table" if choice.table and recognised[0] == "sidecar" else recognised[0])
    if layout in ("sidecar", "kohya"):
        pictures, leftovers = (read_kohya if layout == "kohya" else read_sidecars)(walk)
        reading = SourceReading(
            layout=layout,
            recognised=recognised,
            pictures=tuple(pictures),
            tables=tuple(walk.tables),
            leftovers=(*leftovers, *_unused(walk.tables, "table not used", "The layout reads no table.")),
        )
    else:
        reading = read_by_table(walk, layout, choice, recognised)
    others = _unused(walk.others, "other file", "It is neither a picture nor a caption, so it is not used.")
    return SourceReading(**{**vars(reading), "leftovers": (*walk.leftovers, *reading.leftovers, *others)})


def recognise(walk: Walk) -> tuple[LayoutName, ...]:
    """Every layout that fits, best first; captions beside the pictures always fit."""
    tests: tuple[tuple[LayoutName, bool], ...] = (
        ("fashion", fits(walk, "fashion")),
        ("imagefolder", fits(walk, "imagefolder")),
        ("kohya", has_kohya_folders(walk)),
        ("table", not fits(walk, "fashion") and fits(walk, "table")),
    )
    return (*(name for name, does in tests if does), "sidecar")


def _unused(names: list[str], code: str, sentence: str) -> list[Leftover]:
    return [Leftover(name=name, problem=Problem(code=code, severity="note", sentence=sentence)) for name in names]
