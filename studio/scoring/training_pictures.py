"""The pictures of a dataset as training takes them, to be searched for the nearest."""

from collections.abc import Callable
from pathlib import Path

from studio.dataset.library import DatasetLibrary
from studio.dataset.reading import read_source
from studio.dataset.recipe import DatasetRecipe
from studio.dataset.rows import take_rows
from studio.errors import DatasetError
from studio.paths import UserData, typed_path
from studio.scoring.nearest import NearestIndex


def nearest_index(dataset: str, user_data: UserData, *, tell: Callable[[str], None]) -> NearestIndex:
    """The index of a dataset, by its name or its folder.

    Args:
        tell: told in sentences how many pictures are looked at, and which are left out.

    Raises:
        DatasetError: where it cannot be found or read.
    """
    recipe = _recipe_of(dataset, user_data)
    pictures = take_rows(read_source(Path(recipe.source), recipe.layout).pictures, recipe)
    tell(f"Looking at {len(pictures):,} training pictures …")
    index = NearestIndex.build([picture.path for picture in pictures], background=recipe.background)
    for file in index.unreadable:
        tell(f"{file.name} of the dataset is left out: {file.reason}")
    return index


def _recipe_of(dataset: str, user_data: UserData) -> DatasetRecipe:
    folder = typed_path(dataset)
    if folder.is_dir():
        return DatasetRecipe(source=str(folder.resolve()))
    library = DatasetLibrary(user_data.datasets)
    if dataset not in library.names():
        known = ", ".join(library.names()) or "none yet"
        raise DatasetError(f"dataset must be a folder or the name of a dataset ({known}), got {dataset!r}.")
    return library.recipe(dataset)
