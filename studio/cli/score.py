"""`python -m studio score DIR`: the scores of a folder of images."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.options import JsonOption, UserDataOption
from studio.core.language import _, number
from studio.core.paths import locate_user_data, typed_path

if TYPE_CHECKING:
    from studio.datasets.scores import FolderScores


def score(
    folder: Annotated[Path, typer.Argument(help=_("The folder of the images; nothing in it is changed."))],
    dataset: Annotated[
        str | None,
        typer.Option(help=_("The training images, to detect memorised ones: a folder or a dataset's name.")),
    ] = None,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Score the images of a folder."""
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
        parts = [_("white {whiteness:.0%}", whiteness=found.border.whiteness)]
        parts.append(_("offset {offset:.1%}", offset=found.centring.offset) if found.centring else _("no subject"))
        if found.colour:
            seen = f"{found.colour.asked} ΔE {number(found.colour.difference, '.1f')}"
            right, word = found.colour.is_named_right, found.colour.nearest_word
            parts.append(seen if right else _("{seen}, rather {word}", seen=seen, word=word))
        if found.sharpness is not None:
            parts.append(_("sharpness {sharpness:.2f}", sharpness=found.sharpness))
        if found.nearest:
            parts.append(
                _(
                    "{likeness} ({distance:.2f} from {name})",
                    likeness=_(found.nearest.likeness),
                    distance=found.nearest.distance,
                    name=found.nearest.path.name,
                )
            )
        lines.append(f"  {picture.name}: {' · '.join(parts)}")
    if scores.unreadable:
        lines += ["", _("Could not be read ({num_unreadable:,})", num_unreadable=len(scores.unreadable))]
        lines += [f"  {file.name}: {file.reason}" for file in scores.unreadable]
    return "\n".join([*lines, "", *scores.summary.sentences])
