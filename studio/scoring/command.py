"""`python -m studio score DIR`: the scores of a folder of pictures."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from studio.dataset.recipe import DatasetRecipe
    from studio.paths import UserData
    from studio.scoring.folder import FolderScores
    from studio.scoring.nearest import NearestIndex


def score(
    folder: Annotated[Path, typer.Argument(help="The folder of the pictures; nothing in it is changed.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="The training pictures, to see whether any was memorised: a folder or a dataset's name."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    user_data: Annotated[Path | None, typer.Option(help="Where everything is kept.", show_default="user_data")] = None,
) -> None:
    """Score pictures: ground, place, colour, sharpness, nearness to training; exit code 1 where one is unreadable."""
    from studio.paths import locate_user_data
    from studio.scoring.folder import score_folder

    index = None if dataset is None else _index_of(dataset, locate_user_data(user_data))
    scores = score_folder(folder.expanduser().resolve(), nearest=index)
    print(scores.model_dump_json(indent=2) if json else scores_text(scores))
    raise typer.Exit(1 if scores.unreadable or not scores.pictures else 0)


def scores_text(scores: "FolderScores") -> str:
    """The scores for a terminal: a line a picture, the unreadable ones, the sentences."""
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


def _index_of(dataset: str, user_data: "UserData") -> "NearestIndex":
    """The pictures of a dataset as training takes them, to be searched.

    Raises:
        DatasetError: where it cannot be found or read.
    """
    from studio.dataset.reading import read_source
    from studio.dataset.rows import take_rows
    from studio.scoring.nearest import NearestIndex

    recipe = _recipe_of(dataset, user_data)
    pictures = take_rows(read_source(Path(recipe.source), recipe.layout).pictures, recipe)
    print(f"Looking at {len(pictures):,} training pictures …", file=sys.stderr, flush=True)
    index = NearestIndex.build([picture.path for picture in pictures], background=recipe.background)
    for file in index.unreadable:
        print(f"{file.name} of the dataset is left out: {file.reason}", file=sys.stderr)
    return index


def _recipe_of(dataset: str, user_data: "UserData") -> "DatasetRecipe":
    from studio.dataset.library import DatasetLibrary
    from studio.dataset.recipe import DatasetRecipe
    from studio.errors import DatasetError

    folder = Path(dataset).expanduser()
    if folder.is_dir():
        return DatasetRecipe(source=str(folder.resolve()))
    library = DatasetLibrary(user_data.datasets)
    if dataset not in library.names():
        known = ", ".join(library.names()) or "none yet"
        raise DatasetError(f"dataset must be a folder or the name of a dataset ({known}), got {dataset!r}.")
    return library.recipe(dataset)
