"""From a dataset's name or a folder to a snapshot: exactly what is trained on, and what is not, with reasons."""

from dataclasses import dataclass

from studio.dataset.checker import PictureChecker
from studio.dataset.library import DatasetLibrary
from studio.dataset.opened import OpenedDataset
from studio.dataset.recipe import DatasetRecipe
from studio.dataset.snapshot import Snapshot, make_snapshot
from studio.errors import DatasetError
from studio.paths import UserData, assets_folder, typed_path
from studio.settings import SHIPPED_MODEL
from studio.tokens import TokenCounter


@dataclass(frozen=True)
class TakenSnapshot:
    """A snapshot, and a sentence for every picture of the dataset that is not in it."""

    snapshot: Snapshot
    left_out: tuple[str, ...]


def take_snapshot(name: str, user_data: UserData) -> TakenSnapshot:
    """Look at every picture of a dataset and keep which are good, with sha256 and caption.

    Args:
        name: of a dataset of the Dataset tab, else the path of a folder.

    Raises:
        DatasetError: where there is neither, or nothing in it can be trained on.
        OSError: where the cache of checks cannot be written.
    """
    dataset = _open(name, user_data)
    checker = PictureChecker(user_data.cache / "picture-checks.db", user_data.cache / "dataset-thumbnails")
    try:
        dataset.check(checker)
    finally:
        checker.close()
    if dataset.progress.problem:
        raise DatasetError(f"{name} could not be checked: {dataset.progress.problem}")
    rows = dataset.rows
    left_out = [f"{row.key} is left out: you excluded it." for row in rows if row.excluded]
    for row in rows:
        if row.is_rejected and not row.excluded:
            reason = next(problem.sentence for problem in row.problems if problem.severity == "reject")
            left_out.append(f"{row.key} is left out: {reason}")
    return TakenSnapshot(make_snapshot(dataset.name, dataset.recipe, rows), tuple(left_out))


def _open(name: str, user_data: UserData) -> OpenedDataset:
    count_tokens = TokenCounter(assets_folder() / SHIPPED_MODEL / "tokenizer" / "tokenizer.json").count_plain
    library = DatasetLibrary(user_data.datasets)
    if name in library.names():
        return library.open(name, count_tokens=count_tokens)
    folder = typed_path(name)
    if not folder.is_dir():
        known = ", ".join(library.names()) or "none yet"
        raise DatasetError(
            f"There is no dataset and no folder {name}. Datasets: {known}. Give one of these or the path of a folder."
        )
    source = folder.resolve()
    if known_name := library.name_of_source(source):  # with the edits that were made on the Dataset tab
        return library.open(known_name, count_tokens=count_tokens)
    nowhere = user_data.cache / "no-edits"
    return OpenedDataset(source.name, nowhere, DatasetRecipe(source=str(source)), count_tokens=count_tokens)
