"""`python -m studio score DIR`: the scores of a folder of images."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.options import JsonOption, UserDataOption
from studio.core.paths import locate_user_data, typed_path

if TYPE_CHECKING:
    from studio.datasets.scores import FolderScores


def score(
    folder: Annotated[Path, typer.Argument(help="The folder of the images; nothing in it is changed.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="The training images, to detect memorised ones: a folder or a dataset's name."),
    ] = None,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Score images: ground, place, colour, sharpness, nearness to training; exit code 1 where one is unreadable."""
    from studio.datasets.scores import nearest_index, score_folder

    def report(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    index = None if dataset is None else nearest_index(dataset, locate_user_data(user_data), report=report)
    scores = score_folder(typed_path(folder).resolve(), nearest=index)
    print(scores.model_dump_json(indent=2) if json else scores_text(scores))
    raise typer.Exit(1 if scores.unreadable or not scores.pictures else 0)


def scores_text(scores: "FolderScores") -> str:
    """The scores for a terminal: a line an image, the unreadable ones, the sentences."""
    lines = [str(scores.folder), ""]
    for picture in scores.pictures:
        found = picture.scores
        parts = [f"white {found.border.whiteness:.2f}"]
        parts.append(f"offset {found.centring.offset:.3f}" if found.centring else "no subject")
        if found.colour:
            name = "" if found.colour.is_named_right else f", rather {found.colour.nearest_word}"
            parts.append(f"{found.colour.asked} ΔE {found.colour.difference:.1f}{name}")
        if found.sharpness is not None:
            parts.append(f"sharpness {found.sharpness:.2f}")
        if found.nearest:
            parts.append(f"{found.nearest.likeness} ({found.nearest.distance:.2f} from {found.nearest.path.name})")
        lines.append(f"  {picture.name}: {' · '.join(parts)}")
    if scores.unreadable:
        lines += ["", f"Could not be read ({len(scores.unreadable):,})"]
        lines += [f"  {file.name}: {file.reason}" for file in scores.unreadable]
    return "\n".join([*lines, "", *scores.summary.sentences])
