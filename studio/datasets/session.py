"""The open datasets, and the checks that run on them. Which of them a page shows is its own choice (`Selection`)."""

import copy
import shutil
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from studio.core.errors import DatasetError, StudioError, error_message
from studio.core.files import read_file, read_text, remove_uploads, write_atomically
from studio.core.language import _, for_later, said
from studio.core.paths import UserData, typed_path
from studio.core.records import Record
from studio.core.text import counted
from studio.datasets.checker import CheckProgress, PictureChecker
from studio.datasets.grounds import GroundChanger
from studio.datasets.library import FILES, DatasetLibrary, HeldDataset, HeldDatasets
from studio.datasets.opened import OpenedDataset
from studio.datasets.rows import CountTokens, check_template
from studio.datasets.source import DatasetRecipe, DatasetRow
from studio.datasets.upload import NOT_TAKEN, DroppedFile, common_folder, keep_not_taken, only_folder, take_files
from studio.datasets.walk import OnProgress

LAST_OPENED = "last-opened.txt"
COLLECTED = "collected"

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
        problem: why the dataset could not be opened; "" where it could.
        opening: the name of the one that is being read; "" where none is.
    """

    name: str = ""
    version: str = ""
    progress: CheckProgress | None = None
    problem: str = ""
    opening: str = ""
    changing: bool = False

    @property
    def active(self) -> bool:
        """True while it is being read, or its images are being checked or changed."""
        return bool(self.opening) or self.changing or (self.progress is not None and self.progress.running)


class DatasetSession:
    """The datasets as a page sees them that shows the one of that name. Any thread may ask.

    Attributes:
        name: of the dataset that `opened` and all changes are about; "" for the one that was opened last.
        count_tokens: how many tokens a caption has.
    """

    def __init__(self, user_data: UserData, *, count_tokens: CountTokens) -> None:
        self.name = ""
        self.library = DatasetLibrary(user_data.datasets)
        self.thumbnails = user_data.cache / "dataset-thumbnails"
        self.checker = PictureChecker(user_data.cache / "picture-checks.db", self.thumbnails)
        self.grounds = GroundChanger(self.checker, self.thumbnails)
        # What follows is shared by the sessions of all pages: see `of`.
        self._held = HeldDatasets(self.checker)
        self.count_tokens = count_tokens
        self._lock = threading.Lock()
        self._reading = threading.RLock()  # held while a source is read: a caption saved meanwhile would be missed
        self._latest: dict[tuple[str, str], TypedCaption] = {}
        self._opening: set[str] = set()
        self._problems: dict[str, str] = {}

    def of(self, name: str) -> "DatasetSession":
        """The same datasets, for a page that shows the one of that name; "" for the one that was opened last."""
        page = copy.copy(self)
        page.name = name
        return page

    def named(self, name: str) -> "DatasetSession":
        """Likewise for a press, which is about the dataset that its page shows.

        Raises:
            DatasetError: where it shows none, or that one is gone or cannot be read.
        """
        if not name:
            raise DatasetError(_("No dataset is open. Drop a folder, or type its path."))
        self.library.recipe(name)  # raises where it is gone
        page = self.of(name)
        page.opened.refresh()  # read here, so that no handler finds later that it cannot be
        return page

    @property
    def view(self) -> SessionView:
        """What the page must follow. A dataset that is not in memory, as after a restart, is read meanwhile."""
        if (held := self._find()) is not None:
            held.dataset.refresh()
            opened, changing = held.dataset, self.grounds.is_running(held.dataset.name)
            return SessionView(opened.name, f"{held.number}-{opened.version}", opened.progress, changing=changing)
        with self._lock:
            problem = self._problems.get(self.name, "")
            if self.name and not problem and self.name not in self._opening:
                self._opening.add(self.name)
                threading.Thread(target=self._open_again, name="dataset", daemon=True).start()
            opening = self.name if self.name in self._opening else ""
            return SessionView(version=f"none-{self.name}", problem=said(problem), opening=opening)

    @property
    def opened(self) -> OpenedDataset:
        """The dataset; it is read first where it is not in memory.

        Raises:
            DatasetError: where none is open, or it cannot be read.
        """
        if (held := self._find()) is not None:
            return held.dataset
        if not self.name:
            raise DatasetError(_("No dataset is open. Drop a folder, or type its path."))
        with self._reading:
            held = self._find()
            return held.dataset if held else self._read(self.name, is_last=False)

    @property
    def is_open(self) -> bool:
        """Whether it is in memory."""
        return self._find() is not None

    @property
    def stamp(self) -> Stamp:
        """Take it before the captions that are sent with it: what is newer than its stamp does no harm."""
        held = self._find()
        return (held.number, held.dataset.num_changes) if held else (0, 0)

    def restore(self) -> None:
        """Open what was open when the studio was last used; why it cannot be is in the view."""
        last = self.library.folder / LAST_OPENED
        if not last.is_file():
            return
        try:
            self.open_name(read_text(last, errors="replace").strip())
        except (StudioError, OSError) as error:
            self._problems[""] = error_message(error)

    def show(self, name: str) -> OpenedDataset:
        """A dataset of the library, which is the one opened last from now on; it is not read again where it is open.

        Raises:
            DatasetError: where it or its images cannot be read.
        """
        with self._reading:
            held = self._held.find(name)
            if held is None:
                return self.open_name(name)
            self._held.make_last(name)
            self._remember(name)
            return held.dataset

    def open_name(self, name: str) -> OpenedDataset:
        """Read a dataset of the library, also where it is open already, and begin to check it.

        Raises:
            DatasetError: where it or its images cannot be read; what is open stays as it is.
        """
        return self._read(name, is_last=True)

    def open_folder(
        self, typed: str, *, resolution: int | None = None, name: str = "", on_progress: OnProgress | None = None
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
            raise DatasetError(_("Type the path of a folder, or drop one."))
        source = typed_path(typed)
        if not source.is_absolute():
            raise DatasetError(
                _("Type the whole path, from the beginning: {typed!r} is only a part of one.", typed=typed.strip())
            )
        source = source.resolve()
        known = self.library.name_of_source(source)
        if known is None:
            recipe = DatasetRecipe(source=str(source))
            recipe = recipe if resolution is None else recipe.model_copy(update={"resolution": resolution})
            known = self._create(self.library.free_name(name or source.name), recipe, on_progress)
        return self.open_name(known)

    def open_dropped(self, files: Sequence[DroppedFile], *, uploads: Path) -> OpenedDataset:
        """Keep dropped files as the source of a new dataset, and open it. None stays among the uploads.

        Raises:
            DatasetError: where nothing of them can be used; nothing is kept then.
            OSError: where the disk is full; nothing is kept then.
        """
        if not files:
            raise DatasetError(_("Nothing arrived. Drop a folder, images or a zip."))
        name = self.library.free_name(common_folder(files))
        source = self.library.place(name) / FILES
        try:
            not_taken = take_files(files, source, uploads=uploads)
            self._create(name, DatasetRecipe(source=str(only_folder(source))))
            keep_not_taken(self.library.place(name) / NOT_TAKEN, not_taken)
        except (DatasetError, OSError):
            shutil.rmtree(self.library.place(name))  # copies only: what was dropped is still where it was
            raise
        finally:
            remove_uploads([file.uploaded for file in files], uploads)
        return self.open_name(name)

    def collect(self, pictures: Mapping[Path, str], into: str = COLLECTED) -> OpenedDataset:
        """Put copies of images, with their captions, into a dataset of the studio's, made where it is not there.

        Raises:
            DatasetError, OSError: where an image or the dataset cannot be read, or a copy written.
        """
        with self._reading:
            name, source = self.library.collection(into)
            for picture, caption in pictures.items():
                write_atomically(source / picture.name, read_file(picture))
                write_atomically(source / f"{picture.stem}.txt", f"{caption}\n".encode())
            if name not in self.library.names():
                self._create(name, DatasetRecipe(source=str(source)))
            return self._read(name, is_last=False)

    def change_recipe(self, recipe: DatasetRecipe) -> OpenedDataset:
        """Read the dataset in another way; edits stay.

        Raises:
            DatasetError: where the source cannot be read so, or has no column that the template names; the recipe
                stays as it was.
        """
        with self._reading:
            before = self.opened
            opened = OpenedDataset(before.name, before.folder, recipe, count_tokens=self.count_tokens)
            check_template(recipe.template or "", opened.columns)
            self.library.save_recipe(before.name, recipe)
            self._put(opened, is_last=True)
        return opened

    def save_caption(self, typed: TypedCaption) -> tuple[DatasetRow, Stamp]:
        """Save a caption in the dataset it was typed for, whichever this page shows by now.

        A text that arrives after a later one of the same page changes nothing.

        Returns:
            The image as it stands then, and when that was.

        Raises:
            DatasetError: where the dataset or its image is gone, or the text is no caption; nothing is changed then.
            OSError: where it cannot be saved; nothing is changed then.
        """
        with self._reading:
            page = self.named(typed.dataset)
            opened = page.opened
            place = (typed.dataset, typed.key)
            latest = self._latest.get(place)
            if latest is None or latest.page != typed.page or latest.number < typed.number:
                opened.set_caption(typed.key, typed.text)
                self._latest[place] = typed
            stamp = page.stamp
            return opened.row(typed.key), stamp

    def check(self) -> None:
        """Look at whatever of the dataset was not looked at yet, in the background."""
        held = self._find()
        if held is not None:
            self._held.begin_check(held, after=held.check)

    def close(self) -> None:
        """Stop the checks and end their workers."""
        for part in (self.grounds, self._held, self.checker):
            part.close()

    def _create(self, name: str, recipe: DatasetRecipe, on_progress: OnProgress | None = None) -> str:
        """Save a new dataset, once it has been seen that its source can be read."""
        reading = OpenedDataset(
            name, self.library.place(name), recipe, count_tokens=self.count_tokens, on_progress=on_progress
        ).reading
        if not reading.pictures:
            bad = next((left for left in reading.skipped_files if left.problem.severity == "reject"), None)
            others = counted(len(reading.skipped_files), "other file", "other files")
            sentence = _("There is no image in {source} ({others}).", source=recipe.source, others=others)
            why = f"{bad.name}: {bad.problem.sentence}" if bad else _("Choose a folder with PNG, JPEG or WebP files.")
            raise DatasetError(f"{sentence} {why}")
        self.library.save_recipe(name, recipe)
        return name

    def _find(self) -> HeldDataset | None:
        return self._held.find(self.name)

    def _open_again(self) -> None:
        """Read the dataset that a page shows and that is not in memory; runs in its own thread."""
        problem = ""
        with for_later():
            try:
                __ = self.opened
            except (StudioError, OSError) as error:
                problem = error_message(error)
            finally:
                with self._lock:  # a look sees both, or neither
                    self._problems[self.name] = problem
                    self._opening.discard(self.name)

    def _read(self, name: str, *, is_last: bool) -> OpenedDataset:
        with self._reading:
            opened = self.library.open(name, count_tokens=self.count_tokens)
            self._put(opened, is_last=is_last)
        return opened

    def _put(self, opened: OpenedDataset, *, is_last: bool) -> None:
        self._held.put(opened, is_last=is_last)
        if is_last:
            self._remember(opened.name)

    def _remember(self, name: str) -> None:
        self._problems.pop(name, None)
        self._problems.pop("", None)
        write_atomically(self.library.folder / LAST_OPENED, name.encode())
