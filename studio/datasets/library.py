"""The datasets of `user_data/datasets/`: each a folder with its recipe, its edits, and what was dropped in.

Those of them that are in memory, the page's ones, each with its check.
"""

import itertools
import re
import threading
import time
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from natsort import natsorted
from pydantic import ValidationError

from studio.core.errors import DatasetError
from studio.core.files import read_file, write_atomically
from studio.core.language import _
from studio.core.paths import unreserved
from studio.core.text import counted
from studio.datasets.captions import name_of
from studio.datasets.checker import PictureChecker
from studio.datasets.opened import OpenedDataset
from studio.datasets.rows import CountTokens
from studio.datasets.source import DatasetRecipe

RECIPE = "recipe.json"
FILES = "files"
SNAPSHOT = "snapshot.jsonl"
MAX_NAME_LENGTH = 80
MAX_NAME_BYTES = 180  # systems allow 255, and a run has its time before the name
KEPT_IN_MEMORY = 4  # a page that shows another one has it read again
CLOSE_SECONDS = 10

_NOT_IN_NAMES = re.compile(r"[^\w .()+-]+")


class DatasetLibrary:
    """The datasets of one folder. It keeps nothing in memory: what counts is on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Every dataset with a recipe, in natural order."""
        if not self.folder.is_dir():
            return []
        return natsorted(entry.name for entry in self.folder.iterdir() if (entry / RECIPE).is_file())

    def known_name(self, typed: str) -> str | None:
        """The dataset with this name, whether its accents are typed as one character or two; None if there is none."""
        return next((name for name in self.names() if name_of(name) == name_of(typed)), None)

    def place(self, name: str) -> Path:
        """The folder of a dataset, there or not.

        Raises:
            DatasetError: where the name is not one that the library gives.
        """
        if not name or (name != safe_name(name) and name not in self.names()):  # made before a rule was
            raise DatasetError(_("name must be letters, digits, spaces and . ( ) + - _, got {name!r}.", name=name))
        return self.folder / name

    def free_name(self, wanted: str) -> str:
        """The wanted name made safe, with a number where it is taken."""
        name, number = safe_name(wanted), 1
        stem = name[: MAX_NAME_LENGTH - 6].encode()[: MAX_NAME_BYTES - 6].decode(errors="ignore")
        while (self.folder / name).exists():
            number += 1
            name = f"{stem} {number}"
        return name

    def name_of_source(self, source: Path) -> str | None:
        """The dataset that reads this folder; None where there is none."""
        return next((name for name in self.names() if self._reads(name, source)), None)

    def collection(self, wanted: str) -> tuple[str, Path]:
        """A dataset whose files the studio keeps, to be made or made already: its name and where they lie.

        It has the wanted name, or that with a number where another dataset is called so.
        """
        names = itertools.chain([wanted], (f"{wanted}-{number}" for number in itertools.count(2)))
        kept = ((name, self.place(name) / FILES) for name in names)
        return next((name, files) for name, files in kept if not files.parent.exists() or self._reads(name, files))

    def recipe(self, name: str) -> DatasetRecipe:
        """The recipe of a dataset.

        Raises:
            DatasetError: where there is no such dataset, or its recipe is damaged.
        """
        path = self.place(name) / RECIPE
        try:
            return DatasetRecipe.model_validate_json(read_file(path))
        except FileNotFoundError as error:
            raise DatasetError(_("There is no dataset {name} any more. Open its folder again.", name=name)) from error
        except ValidationError as error:
            sentence = _(
                "The recipe of {name} cannot be read ({path}: {mistakes}). Open the folder of its images again under "
                "another name; the edits are in edits.jsonl beside the recipe.",
                name=name,
                path=path,
                mistakes=counted(error.error_count(), "mistake", "mistakes"),
            )
            raise DatasetError(sentence) from error

    def save_recipe(self, name: str, recipe: DatasetRecipe) -> None:
        """Keep a recipe, new or changed.

        Raises:
            OSError: where it cannot be written; the old one is untouched.
        """
        write_atomically(self.place(name) / RECIPE, recipe.model_dump_json(indent=2).encode() + b"\n")

    def open(self, name: str, *, count_tokens: CountTokens) -> OpenedDataset:
        """Open a dataset; its images are not checked yet.

        Raises:
            DatasetError: where it or its source cannot be read.
        """
        return OpenedDataset(name, self.place(name), self.recipe(name), count_tokens=count_tokens)

    def _reads(self, name: str, source: Path) -> bool:
        try:
            return Path(self.recipe(name).source) == source
        except DatasetError:  # said when that dataset is opened
            return False


def safe_name(wanted: str) -> str:
    """A name that is a folder's on every system, as like the wanted one as can be."""
    name = _NOT_IN_NAMES.sub("-", unicodedata.normalize("NFC", wanted)).strip(" .-")[:MAX_NAME_LENGTH]
    short = unreserved(name).encode()[:MAX_NAME_BYTES].decode(errors="ignore")
    return short.strip(" .-") or "dataset"


@dataclass
class HeldDataset:
    """A dataset in memory: which opening of all it is, and its check."""

    dataset: OpenedDataset
    number: int
    stop: threading.Event = field(default_factory=threading.Event)
    check: threading.Thread | None = None


class HeldDatasets:
    """The datasets in memory, a few, by their names. Any thread may ask."""

    def __init__(self, checker: PictureChecker) -> None:
        self._checker = checker
        self._lock = threading.RLock()
        self._held: dict[str, HeldDataset] = {}  # the last one is the one that was opened last
        self._numbers = itertools.count(int(time.time()))  # greater than any studio's before, which open pages remember

    def find(self, name: str) -> HeldDataset | None:
        """The one of that name, "" for the one that was opened last; None where it is not in memory."""
        with self._lock:
            return self._held.get(name) if name else next(reversed(self._held.values()), None)

    def make_last(self, name: str) -> None:
        """It counts as opened last."""
        with self._lock:
            self._held[name] = self._held.pop(name)

    def put(self, opened: OpenedDataset, *, is_last: bool) -> None:
        """Hold it, in place of what was held under its name, and begin to check it.

        Args:
            is_last: False where nobody opened it just now, but a page shows it still.
        """
        with self._lock:
            held, before = HeldDataset(opened, next(self._numbers)), self._held.pop(opened.name, None)
            self._held = {**self._held, opened.name: held} if is_last else {opened.name: held, **self._held}
            others = [name for name in self._held if name != opened.name]
            forgotten = [self._held.pop(name) for name in others[: max(0, len(self._held) - KEPT_IN_MEMORY)]]
            for other in (*forgotten, *([before] if before else [])):
                other.stop.set()
            self.begin_check(held, after=before.check if before else None)

    def begin_check(self, held: HeldDataset, *, after: threading.Thread | None) -> None:
        """Look at whatever of it was not looked at yet, in the background, once another thread has ended."""

        def run() -> None:
            if after is not None:
                after.join()
            if not held.stop.is_set():
                held.dataset.check(self._checker, stop=held.stop)

        held.check = threading.Thread(target=run, name="dataset check", daemon=True)
        held.check.start()

    def close(self) -> None:
        """Stop all checks."""
        with self._lock:
            all_held = tuple(self._held.values())
        for held in all_held:
            held.stop.set()
        for held in all_held:
            if held.check is not None:
                held.check.join(CLOSE_SECONDS)
