"""Images of a folder or a dataset, scored or searched for the nearest.

The images of a dataset as training takes them, to be searched for the nearest.

The scores of a folder of images; each file that cannot be read is named.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from studio.core.errors import DatasetError, PictureFileError
from studio.core.files import open_file, without_marks
from studio.core.language import _
from studio.core.paths import UserData, leads_out, typed_path
from studio.core.records import Record
from studio.datasets.library import DatasetLibrary
from studio.datasets.reading import read_source
from studio.datasets.rows import take_rows
from studio.datasets.source import DatasetRecipe
from studio.datasets.walk import walk_folder
from studio.images.decoding import open_rgb
from studio.images.files import read_picture_text
from studio.images.scores.image import PictureScores, score_picture, summarise_scores
from studio.images.scores.likeness import NearestIndex, Unreadable
from studio.images.scores.summary import ScoreSummary


def nearest_index(dataset: str, user_data: UserData, *, report: Callable[[str], None]) -> NearestIndex:
    """The index of a dataset, by its name or its folder.

    Args:
        tell: told in sentences how many images are looked at, and which are left out.

    Raises:
        DatasetError: where it cannot be found or read.
    """
    recipe = _recipe_of(dataset, user_data)
    pictures = take_rows(read_source(Path(recipe.source), recipe.layout).pictures, recipe)
    report(_("Looking at {num_pictures:,} training images …", num_pictures=len(pictures)))
    index = NearestIndex.build([picture.path for picture in pictures], background=recipe.background)
    for file in index.unreadable:
        report(_("{name} of the dataset is left out: {reason}", name=file.name, reason=file.reason))
    return index


def _recipe_of(dataset: str, user_data: UserData) -> DatasetRecipe:
    folder = typed_path(dataset)
    if folder.is_dir():
        return DatasetRecipe(source=str(folder.resolve()))
    library = DatasetLibrary(user_data.datasets)
    name = library.known_name(dataset)
    if name is None:
        sentence = _(
            "dataset must be a folder or the name of a dataset ({names}), got {dataset!r}.",
            names=", ".join(library.names()) or _("none yet"),
            dataset=dataset,
        )
        raise DatasetError(sentence)
    return library.recipe(name)


_MAX_PROMPT_BYTES = 100_000


class ScoredPicture(Record):
    """An image by its path below the folder, the prompt that it was compared with, and its scores."""

    name: str
    prompt: str
    scores: PictureScores


class FolderScores(Record):
    """All images of a folder, in natural order, and what of it could not be read."""

    folder: Path
    pictures: tuple[ScoredPicture, ...]
    unreadable: tuple[Unreadable, ...]
    summary: ScoreSummary


def score_folder(
    folder: Path,
    *,
    nearest: NearestIndex | None = None,
    background: str = "#ffffff",
    on_picture: Callable[[int, int], None] = lambda number, total: None,
) -> FolderScores:
    """Score every image of a folder and below it.

    Args:
        background: `#rrggbb`, what transparency is laid on.
        on_picture: told how many were looked at, and of how many.

    Raises:
        DatasetError: where it is no folder, or cannot be read.
    """
    walk = walk_folder(folder)
    pictures: list[ScoredPicture] = []
    unreadable = [
        Unreadable(name=left.name, reason=left.problem.sentence)
        for left in walk.skipped_files
        if left.problem.severity == "reject"
    ]
    for number, name in enumerate(walk.pictures, start=1):
        path = walk.path(name)
        try:
            picture = np.asarray(open_rgb(path, background=background))
        except PictureFileError as error:
            unreadable.append(Unreadable(name=name, reason=str(error)))
        else:
            prompt = prompt_of(path, folder)
            scores = score_picture(picture, prompt=prompt, nearest=nearest)
            pictures.append(ScoredPicture(name=name, prompt=prompt, scores=scores))
        on_picture(number, len(walk.pictures))
    summary = summarise_scores([picture.scores for picture in pictures])
    return FolderScores(folder=folder, pictures=tuple(pictures), unreadable=tuple(unreadable), summary=summary)


def prompt_of(path: Path, folder: Path) -> str:
    """The prompt inside an image's file, else the text of the .txt beside it; "" where there is neither.

    Args:
        folder: where the image lies; a .txt that leads out of it through a link is not read.
    """
    try:
        return read_picture_text(path).settings.prompt
    except PictureFileError:
        beside = path.with_suffix(".txt")
    try:
        if not beside.is_file() or leads_out(beside, folder):
            return ""
        with open_file(beside) as file:
            return without_marks(file.read(_MAX_PROMPT_BYTES).decode(errors="replace")).strip()
    except OSError:
        return ""
