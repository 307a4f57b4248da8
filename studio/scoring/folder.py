"""The scores of a folder of pictures; each file that cannot be read is named."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from studio.dataset.pictures import open_rgb
from studio.dataset.walk import walk_folder
from studio.errors import PictureFileError
from studio.picture_files import read_picture_text
from studio.results import Fact
from studio.scoring.nearest import NearestIndex, Unreadable
from studio.scoring.picture import PictureScores, score_picture
from studio.scoring.summarise import summarise_scores
from studio.scoring.summary import ScoreSummary

_MAX_PROMPT_BYTES = 100_000


class ScoredPicture(Fact):
    """A picture by its path below the folder, the prompt that it was compared with, and its scores."""

    name: str
    prompt: str
    scores: PictureScores


class FolderScores(Fact):
    """All pictures of a folder, in natural order, and what of it could not be read."""

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
    """Score every picture of a folder and below it.

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
        for left in walk.leftovers
        if left.problem.severity == "reject"
    ]
    for number, name in enumerate(walk.pictures, start=1):
        path = walk.path(name)
        try:
            picture = np.asarray(open_rgb(path, background=background))
        except PictureFileError as error:
            unreadable.append(Unreadable(name=name, reason=str(error)))
        else:
            prompt = prompt_of(path)
            scores = score_picture(picture, prompt=prompt, nearest=nearest)
            pictures.append(ScoredPicture(name=name, prompt=prompt, scores=scores))
        on_picture(number, len(walk.pictures))
    summary = summarise_scores([picture.scores for picture in pictures])
    return FolderScores(folder=folder, pictures=tuple(pictures), unreadable=tuple(unreadable), summary=summary)


def prompt_of(path: Path) -> str:
    """The prompt inside a picture's file, else the text of the .txt beside it; "" where there is neither."""
    try:
        return read_picture_text(path).settings.prompt
    except PictureFileError:
        beside = path.with_suffix(".txt")
    try:
        if not beside.is_file():
            return ""
        with beside.open("rb") as file:
            return file.read(_MAX_PROMPT_BYTES).decode("utf-8-sig", "replace").strip()
    except OSError:
        return ""
