"""The dataset on the desk: which one is open, and the check that runs on it. One for all tabs of the page."""

import re
import shutil
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.core.errors import DatasetError, StudioError, system_error_message
from studio.core.files import write_atomically
from studio.core.paths import UserData, typed_path
from studio.core.results import Record
from studio.datasets.checker import PictureChecker
from studio.datasets.library import FILES, DatasetLibrary
from studio.datasets.opened import CheckProgress, OpenedDataset
from studio.datasets.rows import CountTokens
from studio.datasets.source import DatasetRecipe, DatasetRow
from studio.datasets.upload import NOT_TAKEN, DroppedFile, common_folder, keep_not_taken, take_files
from studio.datasets.walk import OnProgress, file_problem, folder_problem

LAST_OPENED = "last-opened.txt"
_REPEATS = re.compile(r"\d+_")  # a kohya folder counts only below the source

Stamp = tuple[int, int]
"""When a caption was read: which opening of a dataset, which change since. A later one is greater."""


class TypedCaption(Record):
    """A caption as it was typed, and the image that it was typed for.

    Attributes:
        dataset: the dataset's name.
        key: the image's key in it.
        text: all that was in the box.
        page: which page of a browser sends it.
        number: greater in every text that the same page sends later.
    """

    dataset: str
    key: str
    text: str
    page: str
    number: int


@dataclass(frozen=True)
class SessionView:
    """All that the page must follow, at one moment.

    Attributes:
        name: of the open dataset; "" where none is.
        version: changes whenever the page would show something else.
        problem: why the last dataset could not be opened; "" where it could.
    """

    name: str = ""
    version: str = ""
    progress: CheckProgress | None = None
    problem: str = ""

    @property
    def active(self) -> bool:
        """True while images are being checked."""
        return self.progress is not None and self.progress.running


class DatasetSession:
    """Opens datasets one at a time. Any thread may ask."""

    def __init__(self, user_data: UserData, *, count_tokens: CountTokens) -> None:
        self.library = DatasetLibrary(user_data.datasets)
        self.thumbnails = user_data.cache / "dataset-thumbnails"
        self._checker = PictureChecker(user_data.cache / "picture-checks.db", self.thumbnails)
        self._count_tokens = count_tokens
        self._lock = threading.RLock()
        self._reading = threading.Lock()  # held while a source is read: a caption saved meanwhile would be missed
        self._latest: dict[tuple[str, str], TypedCaption] = {}
        self._opened: OpenedDataset | None = None
        self._num_opened = int(time.time())  # greater than that of any studio before, which open pages remember
        self._problem = ""
        self._stop = threading.Event()
        self._check: threading.Thread | None = None

    @property
    def view(self) -> SessionView:
        """What the page must follow."""
        with self._lock:
            opened = self._opened
            if opened is None:
                return SessionView(problem=self._problem, version=f"none-{self._num_opened}")
            version = f"{self._num_opened}-{opened.version}"
            return SessionView(opened.name, version, opened.progress, self._problem)

    @property
    def opened(self) -> OpenedDataset:
        """The open dataset.

        Raises:
            DatasetError: where none is.
        """
        if self._opened is None:
            raise DatasetError("No dataset is open. Drop a folder, or type its path.")
        return self._opened

    @property
    def is_open(self) -> bool:
        """Whether a dataset is open."""
        return self._opened is not None

    @property
    def stamp(self) -> Stamp:
        """Take it before the captions that are sent with it: what is newer than its stamp does no harm."""
        with self._lock:
            return self._num_opened, self._opened.num_changes if self._opened else 0

    def opened_as(self, name: str) -> OpenedDataset:
        """The open dataset, where it is the one that a page acts on.

        Raises:
            DatasetError: where another was opened meanwhile.
        """
        if self.opened.name != name:
            raise DatasetError(
                f"Nothing was changed: this page shows the dataset {name}, and {self.opened.name} was opened "
                f"meanwhile, perhaps in another tab. Open {name} again to change it."
            )
        return self.opened

    def restore(self) -> None:
        """Open what was open when the studio was last used; why it cannot be is in the view."""
        last = self.library.folder / LAST_OPENED
        if not last.is_file():
            return
        try:
            self.open_name(last.read_text(encoding="utf-8", errors="replace").strip())
        except StudioError as error:
            self._problem = str(error)
        except OSError as error:
            self._problem = system_error_message(error)

    def open_name(self, name: str) -> OpenedDataset:
        """Open a dataset of the library and begin to check it.

        Raises:
            DatasetError: where it or its images cannot be read; the one before stays open.
        """
        with self._reading:
            opened = self.library.open(name, count_tokens=self._count_tokens)
            self._put(opened)
        return opened

    def open_folder(
        self,
        typed: str,
        *,
        resolution: int | None = None,
        name: str = "",
        on_progress: OnProgress | None = None,
    ) -> OpenedDataset:
        """Open a folder where it is: as the dataset that reads it already, or as a new one.

        Args:
            name: of a new one, where it is not the folder's.
            resolution: of a new one, where it is not the usual.
            on_progress: told now and then how many files and folders of a new one were seen.

        Raises:
            DatasetError: where it is not a folder, or holds nothing that could be a dataset.
        """
        if not typed.strip():
            raise DatasetError("Type the path of a folder, or drop one.")
        source = typed_path(typed)
        if not source.is_absolute():
            raise DatasetError(f"Type the whole path, from the beginning: {typed.strip()!r} is only a part of one.")
        source = source.resolve()
        known = self.library.name_of_source(source)
        if known is None:
            recipe = DatasetRecipe(source=str(source))
            recipe = recipe if resolution is None else recipe.model_copy(update={"resolution": resolution})
            known = self._create(self.library.free_name(name or source.name), recipe, on_progress)
        return self.open_name(known)

    def open_dropped(self, files: Sequence[DroppedFile], *, uploads: Path) -> OpenedDataset:
        """Keep dropped files as the source of a new dataset, and open it.

        Raises:
            DatasetError: where nothing of them can be used; nothing is kept then.
            OSError: where the disk is full; nothing is kept then.
        """
        if not files:
            raise DatasetError("Nothing arrived. Drop a folder, images or a zip.")
        name = self.library.free_name(common_folder(files))
        source = self.library.place(name) / FILES
        try:
            not_taken = take_files(files, source, uploads=uploads)
            self._create(name, DatasetRecipe(source=str(_only_folder(source))))
            keep_not_taken(self.library.place(name) / NOT_TAKEN, not_taken)
        except (DatasetError, OSError):
            shutil.rmtree(self.library.place(name))  # copies only: what was dropped is still where it was
            raise
        return self.open_name(name)

    def change_recipe(self, recipe: DatasetRecipe) -> OpenedDataset:
        """Read the open dataset in another way; edits stay.

        Raises:
            DatasetError: where the source cannot be read so; the recipe stays as it was.
        """
        with self._reading:
            before = self.opened
            place = self.library.place(before.name)
            opened = OpenedDataset(before.name, place, recipe, count_tokens=self._count_tokens)
            self.library.save_recipe(before.name, recipe)
            self._put(opened)
        return opened

    def save_caption(self, typed: TypedCaption) -> tuple[DatasetRow, Stamp]:
        """Save a caption in the dataset it was typed for, also where another is open by now.

        A text that arrives after a later one of the same page changes nothing.

        Returns:
            The image as it stands then, and when that was.

        Raises:
            DatasetError: where the dataset or its image is gone, or the text is no caption; nothing is changed then.
            OSError: where it cannot be saved; nothing is changed then.
        """
        with self._reading:
            opened = self._opened
            if opened is None or opened.name != typed.dataset:
                opened = self.library.open(typed.dataset, count_tokens=self._count_tokens)
            place = (typed.dataset, typed.key)
            latest = self._latest.get(place)
            if latest is None or latest.page != typed.page or latest.number < typed.number:
                opened.set_caption(typed.key, typed.text)
                self._latest[place] = typed
            stamp = self._num_opened, opened.num_changes
            return opened.row(typed.key), stamp

    def count_tokens(self, caption: str) -> int:
        """How many tokens a caption has."""
        return self._count_tokens(caption)

    def check(self) -> None:
        """Look at whatever of the open dataset was not looked at yet, in the background."""
        with self._lock:
            if self._opened is not None:
                self._begin_check(self._opened)

    def convert(self, key: str) -> None:
        """Use an upright RGB copy of an image from now on."""
        self.opened.convert(key, self._checker)

    def close(self) -> None:
        """Stop the check and end its workers."""
        with self._lock:
            self._stop.set()
            check = self._check
        if check is not None:
            check.join(10)
        self._checker.close()

    def _create(self, name: str, recipe: DatasetRecipe, on_progress: OnProgress | None = None) -> str:
        """Save a new dataset, once it has been seen that its source can be read."""
        reading = OpenedDataset(
            name, self.library.place(name), recipe, count_tokens=self._count_tokens, on_progress=on_progress
        ).reading
        if not reading.pictures:
            lost = next((left for left in reading.skipped_files if left.problem.severity == "reject"), None)
            raise DatasetError(
                f"There is no image in {recipe.source} ({len(reading.skipped_files):,} other files). "
                + (f"{lost.name}: {lost.problem.sentence}" if lost else "Choose a folder with PNG, JPEG or WebP files.")
            )
        self.library.save_recipe(name, recipe)
        return name

    def _put(self, opened: OpenedDataset) -> None:
        with self._lock:
            self._stop.set()
            self._opened = opened
            self._num_opened += 1
            self._problem = ""
            write_atomically(self.library.folder / LAST_OPENED, opened.name.encode())
            self._begin_check(opened)

    def _begin_check(self, opened: OpenedDataset) -> None:
        before, stop = self._check, threading.Event()
        self._stop = stop

        def run() -> None:
            if before is not None:
                before.join()
            if not stop.is_set():
                opened.check(self._checker, stop=stop)

        self._check = threading.Thread(target=run, name="dataset check", daemon=True)
        self._check.start()


def _only_folder(folder: Path) -> Path:
    """The one folder that is all there is in it, where that is so: what was dropped had a name of its own."""
    entries = [entry for entry in folder.iterdir() if not (folder_problem(entry.name) or file_problem(entry.name))]
    if len(entries) != 1 or not entries[0].is_dir() or _REPEATS.match(entries[0].name):
        return folder
    return _only_folder(entries[0])
