"""An open dataset: its rows as they stand, checked in the background, changed by edits that are saved at once."""

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from studio.core.errors import DatasetError, PictureFileError, system_error_message
from studio.core.files import write_atomically
from studio.core.language import _, for_later, said
from studio.core.text import counted
from studio.datasets.captions import check_typed, guess_caption
from studio.datasets.checker import CheckProgress, PictureChecker
from studio.datasets.edits import Edit, EditLog, FocusChange, SwitchChange, TextChange
from studio.datasets.inspection import copy_name, png_of
from studio.datasets.query import DatasetQuery, RowPage, find_rows, take_page
from studio.datasets.reading import read_source
from studio.datasets.rows import Bucket, CountTokens, assign_bucket, buckets_for, make_row, take_rows
from studio.datasets.source import DatasetRecipe, DatasetRow, Focus, SkippedFile, SourcePicture, SourceReading
from studio.datasets.upload import NOT_TAKEN, read_not_taken
from studio.datasets.walk import OnProgress
from studio.images.decoding import open_rgb
from studio.images.records import MEASURED_COLUMNS, PictureFacts

CONVERTED = "converted"
EDITS = "edits.jsonl"
VERSIONS_WHILE_CHECKING = 10


class OpenedDataset:
    """One dataset in memory. Any thread may ask and change; changes are on the disk when the call returns.

    Attributes:
        name: of the dataset.
        folder: what the studio keeps of it: recipe, edits, converted copies.
        recipe: how it is read.
        reading: what was found in its source.
        not_taken: what was dropped on the page with it, but not taken.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        recipe: DatasetRecipe,
        *,
        count_tokens: CountTokens,
        on_progress: OnProgress | None = None,
    ) -> None:
        """Read the source folder; no image is decoded yet.

        Args:
            on_progress: told now and then how many files and folders were seen.

        Raises:
            DatasetError: where it cannot be read so.
            OSError: where the edits cannot be read.
        """
        self.name = name
        self.folder = folder
        self.recipe = recipe
        with for_later():  # pages in several languages show it
            self.reading: SourceReading = read_source(Path(recipe.source), recipe.layout, on_progress=on_progress)
        self.pictures = take_rows(self.reading.pictures, recipe)
        self.buckets: tuple[Bucket, ...] = buckets_for(recipe.resolution)
        self._count_tokens = count_tokens
        self._by_key = {picture.key: picture for picture in self.pictures}
        self.not_taken = read_not_taken(folder / NOT_TAKEN)
        self._edits = EditLog(folder / EDITS)
        self._lock = threading.RLock()
        self._facts: dict[Path, PictureFacts] = {}
        self._rows: dict[str, DatasetRow] = {}
        self._stale: set[str] = set(self._by_key)
        self._num_changes = 0
        self._running = False
        self._check_problem = ""

    # What there is

    @property
    def num_changes(self) -> int:
        """Changes since it was opened, steps of undo and redo among them."""
        return self._num_changes

    @property
    def version(self) -> str:
        """Another one after every change that a page would show; while images are checked, ten times in all."""
        progress = self.progress
        steps = VERSIONS_WHILE_CHECKING * progress.num_checked // max(1, progress.num_pictures)
        return f"{self._num_changes}-{steps}-{progress.running}"

    @property
    def skipped_files(self) -> tuple[SkippedFile, ...]:
        """What became no image, edits that cannot be read, and what of the drop was not taken."""
        return (*self.reading.skipped_files, *self._edits.damaged, *self.not_taken)

    @property
    def progress(self) -> CheckProgress:
        """How far the check is."""
        with self._lock:
            checked = sum(self._path_of(picture) in self._facts for picture in self.pictures)
            return CheckProgress(checked, len(self.pictures), self._running, said(self._check_problem))

    @property
    def rows(self) -> list[DatasetRow]:
        """Every row, in the natural order of keys."""
        with self._lock:
            for key in self._stale:
                self._rows[key] = self._make_row(self._by_key[key])
            self._stale.clear()
            return [self._rows[picture.key] for picture in self.pictures]

    def has(self, key: str) -> bool:
        """Whether an image has that key."""
        return key in self._by_key

    def row(self, key: str) -> DatasetRow:
        """One row.

        Raises:
            DatasetError: where no image has that key.
        """
        with self._lock:
            if key in self._stale or key not in self._rows:
                self._rows[key] = self._make_row(self._picture(key))
                self._stale.discard(key)
            return self._rows[key]

    def found(self, query: DatasetQuery) -> list[DatasetRow]:
        """All rows that the query lets through."""
        return find_rows(self.rows, query, bucket_of=self.bucket_words)

    def page_with(self, query: DatasetQuery, key: str) -> int:
        """The number of the page of those found that has an image; the query's own where none has."""
        keys = [row.key for row in self.found(query)]
        return keys.index(key) // query.per_page + 1 if key in keys else query.page

    def page(self, query: DatasetQuery) -> RowPage:
        """One page of them."""
        return take_page(self.found(query), query)

    def bucket_words(self, row: DatasetRow) -> str:
        """`512 × 640`; "" for an image that cannot be read."""
        if row.facts is None or not row.facts.is_usable:
            return ""
        bucket = assign_bucket(row.facts.width, row.facts.height, self.buckets).bucket
        return f"{bucket.width} × {bucket.height}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Of its table, then what is measured of each image."""
        return tuple(dict.fromkeys((*self.reading.columns, *MEASURED_COLUMNS)))

    def facts_of(self, picture: SourcePicture) -> PictureFacts | None:
        """What the check found of an image; None before it was checked."""
        return self._facts.get(self._path_of(picture))

    @property
    def next_undo(self) -> str:
        """What undo would take back, in words."""
        return self._edits.next_undo

    @property
    def next_redo(self) -> str:
        """What redo would do again, in words."""
        return self._edits.next_redo

    # The check

    def check(self, checker: PictureChecker, *, stop: threading.Event | None = None) -> None:
        """Look at every image that was not looked at yet. Blocks; rows tell of each as soon as it is checked."""
        with self._lock:
            self._running, self._check_problem = True, ""
            paths = {self._path_of(picture): picture.key for picture in self.pictures}
            missing = [path for path in paths if path not in self._facts]

        def take(path: Path, facts: PictureFacts) -> None:
            with self._lock:
                self._facts[path] = facts
                self._stale.add(paths[path])

        try:
            with for_later():
                checker.check(missing, background=self.recipe.background, on_checked=take, stop=stop)
        except (OSError, sqlite3.Error, BrokenProcessPool) as error:
            with for_later():
                self._check_problem = system_error_message(error)
        finally:
            with self._lock:
                self._running = False

    def refresh(self) -> None:
        """Take over what another process changed, as `dataset caption` does."""
        with self._lock:
            if self._edits.refresh():
                self._touch(tuple(self._by_key))

    def set_caption(self, key: str, caption: str) -> None:
        """Type a caption; the source's file stays as it is.

        Raises:
            DatasetError: where no image has that key.
            OSError: where it cannot be saved; nothing is changed then.
        """
        self.set_captions({key: caption}, what=_("caption of {key}", key=key))

    def set_captions(self, captions: Mapping[str, str], *, what: str) -> int:
        """Change many captions at once, undone as one; those that stay the same are left out.

        Returns:
            How many changed.

        Raises:
            DatasetError: where an image is not there, or a text is no caption; nothing is changed then.
            OSError: where they cannot be saved; nothing is changed then.
        """
        with self._lock:
            changes = {}
            for key, caption in captions.items():
                row, wanted = self.row(key), check_typed(key, " ".join(caption.split()))
                if wanted != row.caption:
                    changes[key] = TextChange(before=self._edits.captions.get(key), after=wanted)
            return self._apply(Edit(what=what, captions=changes))

    def reset_captions(self, keys: Sequence[str]) -> int:
        """Give images the caption of their source again; how many changed."""
        with self._lock:
            edited = {key: self._edits.captions[key] for key in keys if key in self._edits.captions}
            changes = {key: TextChange(before=before, after=None) for key, before in edited.items()}
            what = _("restored the original caption of {num_images:,}", num_images=len(edited))
            return self._apply(Edit(what=what, captions=changes))

    def set_excluded(self, keys: Sequence[str], excluded: bool) -> int:
        """Take images out of training, or back in; how many changed."""
        with self._lock:
            changes, images = self._switched(keys, excluded, self._edits.excluded)
            what = _("excluded {images}", images=images) if excluded else _("included {images}", images=images)
            return self._apply(Edit(what=what, excluded=changes))

    def set_starred(self, keys: Sequence[str], starred: bool) -> int:
        """Mark images, or take the mark back; how many changed."""
        with self._lock:
            changes, images = self._switched(keys, starred, self._edits.starred)
            what = _("starred {images}", images=images) if starred else _("unstarred {images}", images=images)
            return self._apply(Edit(what=what, starred=changes))

    def _switched(self, keys: Sequence[str], on: bool, now: set[str]) -> tuple[dict[str, SwitchChange], str]:
        change = SwitchChange(before=not on, after=on)
        changes = {key: change for key in keys if self._picture(key) and (key in now) != on}
        return changes, next(iter(changes)) if len(changes) == 1 else counted(len(changes), "image", "images")

    def set_focus(self, key: str, focus: Focus | None) -> None:
        """Move an image's crop; None: back to the centre."""
        with self._lock:
            change = FocusChange(before=self._edits.focus.get(self._picture(key).key), after=focus)
            if change.before != change.after:
                self._apply(Edit(what=_("crop of {key}", key=key), focus={key: change}))

    def recode_caption(self, key: str) -> str:
        """Read a caption that is not UTF-8 in the encoding that fits it best, and keep it as an edit.

        Returns:
            The encoding.

        Raises:
            DatasetError: where no encoding fits, or the image has no caption file.
        """
        file = Path(self.recipe.source) / self._picture(key).caption_from
        if not self._picture(key).caption_from or not file.is_file():
            raise DatasetError(_("{key} has no caption file to read again.", key=key))
        caption, encoding = guess_caption(file)
        self.set_captions({key: caption}, what=_("caption of {key} read as {encoding}", key=key, encoding=encoding))
        return encoding

    def convert(self, key: str, checker: PictureChecker) -> Path:
        """Keep an upright RGB copy of an image and use that from now on; the source's file stays as it is.

        Raises:
            DatasetError: where the image cannot be read.
            OSError: where the copy cannot be written.
        """
        picture = self._picture(key)
        try:
            image = open_rgb(picture.path, background=self.recipe.background)
        except PictureFileError as error:
            raise DatasetError(_("{key} cannot be converted: {error}", key=key, error=error)) from error
        self.use_copies({key: png_of(image)}, what=_("converted a copy of {key}", key=key))
        self.check(checker)
        return self.row(key).path

    def use_copies(self, copies: Mapping[str, bytes], *, what: str) -> None:
        """Keep these PNG files, by the keys of their images, and read them from now on; undone as one."""
        names = {key: copy_name(self._picture(key).key, content) for key, content in copies.items()}
        for key, name in names.items():
            write_atomically(self.folder / CONVERTED / name, copies[key])
        with self._lock:
            now = self._edits.converted
            changes = {key: TextChange(before=now.get(key), after=name) for key, name in names.items()}
            self._apply(Edit(what=what, converted=changes))

    def undo(self) -> str:
        """Take the last change back; what it was, in words."""
        return self._step(self._edits.undo)

    def redo(self) -> str:
        """Do again what was taken back last; what it was, in words."""
        return self._step(self._edits.redo)

    def _step(self, act: Callable[[], Edit]) -> str:
        with self._lock:
            edit = act()
            self._touch(edit.keys)
            return edit.what

    def _apply(self, edit: Edit) -> int:
        """Make a change, unless it changes nothing; how many images it changes."""
        if edit.keys:
            self._edits.apply(edit)
            self._touch(edit.keys)
        return len(edit.keys)

    def _touch(self, keys: Sequence[str]) -> None:
        self._stale.update(key for key in keys if key in self._by_key)
        self._num_changes += 1

    def _picture(self, key: str) -> SourcePicture:
        if key not in self._by_key:
            raise DatasetError(
                _("The dataset {name} has no image {key}. Open it again to see what there is.", name=self.name, key=key)
            )
        return self._by_key[key]

    def _path_of(self, picture: SourcePicture) -> Path:
        copy = self._edits.converted.get(picture.key)
        return self.folder / CONVERTED / copy if copy else picture.path

    def _make_row(self, picture: SourcePicture) -> DatasetRow:
        path = self._path_of(picture)
        with for_later():
            return make_row(
                picture,
                path=path,
                recipe=self.recipe,
                edits=self._edits,
                facts=self._facts.get(path),
                buckets=self.buckets,
                count_tokens=self._count_tokens,
            )
