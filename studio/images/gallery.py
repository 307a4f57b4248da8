"""Past images, read from the files themselves: there is no index that could be wrong."""

import hashlib
import io
import os
import re
import threading
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from PIL import Image, ImageOps

from studio.core.errors import PictureFileError
from studio.core.files import FileStamp, file_stamp, write_atomically
from studio.core.language import _, language
from studio.core.records import Label, label_beside, label_or_none
from studio.core.results import ImageRecord
from studio.images.files import PILLOW_ERRORS, open_picture, read_picture_text, shown_name

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_PICTURE = re.compile(r"(?P<time>\d{6}-\d{6})-seed(?P<seed>\d+)(?:-(?P<copy>\d{1,9}))?\.png", re.ASCII)
_MAX_THUMBNAIL_PIXELS = 50_000_000
_MAX_CACHED = 50_000
_LABEL_ENDING = ".label.json"
_MAX_LOOKS = 16
_SETTLED_NANOSECONDS = 2 * 10**9  # file systems date changes coarsely: of a folder that is younger, more may come
STAR = "★"

_FileKey = tuple[Path, FileStamp]


@dataclass(frozen=True)
class PastPicture:
    """An image that was made, its record, and what a person noted on it."""

    path: Path
    record: ImageRecord
    label: Label

    @property
    def name(self) -> str:
        """`2026-11-25/103000-000000-seed42.png`, by which `History.path_of` finds it."""
        return picture_name(self.path)


@dataclass(frozen=True)
class HistoryPage:
    """Some past images, newest first.

    Attributes:
        number: which page this is, from 1.
        num_pages: at least 1.
        num_pictures: how many there are on all pages, with those of this page that cannot be read.
        unreadable: why an image is not shown, a sentence for each: of this page, or of all that were searched.
    """

    pictures: tuple[PastPicture, ...]
    number: int
    num_pages: int
    num_pictures: int
    unreadable: tuple[str, ...]


@dataclass(frozen=True)
class _Searched:
    """What a search needs to know of a file; `problem` says why it cannot be read, in the language `spoken`."""

    words: str = ""
    seed: str = ""
    problem: str = ""
    spoken: str = ""


class History:
    """The images in the outputs folder. Any thread may ask."""

    def __init__(self, outputs: Path) -> None:
        self._outputs = outputs
        self._lock = threading.Lock()
        self._searched: dict[_FileKey, _Searched] = {}
        self._starred: tuple[tuple[tuple[str, int], ...], tuple[Path, ...]] | None = None
        self._looks: dict[tuple[int, int, str, str], tuple[tuple[tuple[str, int], ...], HistoryPage]] = {}

    def path_of(self, name: str) -> Path:
        """The file of an image that a page named; it may be gone.

        Raises:
            PictureFileError: for what is no name of an image of ours.
        """
        day, __, file = name.partition("/")
        if not _DAY.fullmatch(day) or not _PICTURE.fullmatch(file):
            raise PictureFileError(_("That is not one of the studio's images."))
        return self._outputs / day / file

    def look(self, number: int, *, per_page: int = 24, search: str = "") -> HistoryPage:
        """`page`, for those who ask for the same again and again: nothing is read as long as no folder has changed."""
        asked, folders = (number, per_page, search, language()), _changed_at(self._outputs)
        before = self._looks.get(asked)
        if before is not None and before[0] == folders:
            return before[1]
        page = self.page(number, per_page=per_page, search=search)
        if len(self._looks) >= _MAX_LOOKS:
            self._looks.clear()
        if time.time_ns() - max((at for __, at in folders), default=0) > _SETTLED_NANOSECONDS:
            self._looks[asked] = folders, page
        return page

    def page(self, number: int, *, per_page: int = 24, search: str = "") -> HistoryPage:
        """One page of images, newest first; a number past either end gives the page there.

        Without a search only the files of that page are opened. A search reads every file that it has not read
        before; it finds images where each of its words is part of the prompts, the model, a LoRA's name or the
        scheduler or of its note, is the seed, or is ★ where it has a star. Never raises for a file or a folder that
        cannot be read.
        """
        assert per_page > 0
        words = _normal(search).split()
        paths, labels = _newest_first(self._outputs)
        unreadable: list[str] = []
        if words:
            paths, unreadable = self._find(paths, words, labels)
        num_pages = max(1, -(-len(paths) // per_page))
        number = min(max(number, 1), num_pages)
        pictures: list[PastPicture] = []
        for path in paths[(number - 1) * per_page : number * per_page]:
            try:
                pictures.append(PastPicture(path, _read_record(path), _label(path, labels)))
            except PictureFileError as error:
                unreadable.append(_problem(path, error))
        return HistoryPage(tuple(pictures), number, num_pages, len(paths), tuple(unreadable))

    def starred(self) -> tuple[Path, ...]:
        """The images that have a star, newest first; only labels are opened, and only where a folder has changed."""
        folders = _changed_at(self._outputs)
        if self._starred is None or self._starred[0] != folders:
            paths, labels = _newest_first(self._outputs)
            found = tuple(path for path in paths if _label(path, labels).starred)
            settled = time.time_ns() - max((at for __, at in folders), default=0) > _SETTLED_NANOSECONDS
            self._starred = (folders if settled else (), found)
        return self._starred[1]

    def _find(self, paths: list[Path], words: list[str], labels: frozenset[Path]) -> tuple[list[Path], list[str]]:
        """The images that have all the words, and why others could not be searched."""
        found: list[Path] = []
        problems: list[str] = []
        for path, searched in self._search_all(paths):
            if searched.problem:
                problems.append(searched.problem)
                continue
            noted = _label_words(_label(path, labels))
            if all(word in searched.words or word in noted or word == searched.seed for word in words):
                found.append(path)
        return found, problems

    def _search_all(self, paths: list[Path]) -> list[tuple[Path, _Searched]]:
        with self._lock:  # two searches at once would read every file twice
            cached, self._searched = self._searched, {}
            results: list[tuple[Path, _Searched]] = []
            for path in paths:
                key = _file_key(path)
                searched = cached.get(key) if key else None
                if searched is None or searched.spoken not in ("", language()):
                    searched = _search_file(path)
                results.append((path, searched))
                # Made anew at each search: so files that are gone leave it.
                if key and len(self._searched) < _MAX_CACHED:
                    self._searched[key] = searched
            return results


def _file_key(path: Path) -> _FileKey | None:
    try:
        return path, file_stamp(path)
    except OSError:
        return None


def _read_record(path: Path) -> ImageRecord:
    text = read_picture_text(path)
    if text.record is None:
        raise PictureFileError(_("{name} has no record of this version of LoRA Studio.", name=shown_name(path)))
    return text.record


def _search_file(path: Path) -> _Searched:
    try:
        record = _read_record(path)
    except PictureFileError as error:
        return _Searched(problem=_problem(path, error), spoken=language())
    settings = record.settings
    loras = [lora.name for lora in settings.loras] + [lora.name for lora in record.loras]
    texts = [settings.prompt, settings.negative_prompt, record.model, *loras, settings.scheduler, record.scheduler]
    return _Searched(words=_normal("\n".join(texts)), seed=str(settings.seed))


def _label(path: Path, labels: frozenset[Path]) -> Label:
    """Of an image; only those are looked for that are known to be there."""
    file = label_beside(path) if labels else path
    return label_or_none(file) if file in labels else Label()


def _label_words(label: Label) -> str:
    return _normal(f"{label.note}\n{STAR * label.starred}")


def _problem(path: Path, error: PictureFileError) -> str:
    return f"{path.parent.name}: {error}"


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _newest_first(outputs: Path) -> tuple[list[Path], frozenset[Path]]:
    """(the files that are named as `new_picture_path` names them, those that label them); nothing is opened."""
    named = [(day, name) for day in _names(outputs) if _DAY.fullmatch(day) for name in _names(outputs / day)]
    found = [
        ((day, match["time"], int(match["copy"] or 1), name), Path(outputs, day, name))
        for day, name in named
        if (match := _PICTURE.fullmatch(name))
    ]
    labels = frozenset(Path(outputs, day, name) for day, name in named if name.endswith(_LABEL_ENDING))
    return [path for __, path in sorted(found, reverse=True)], labels


def picture_name(path: Path) -> str:
    """What an image of ours is called on a page: its day and its file."""
    return f"{path.parent.name}/{path.name}"


def _changed_at(outputs: Path) -> tuple[tuple[str, int], ...]:
    """When files came to each day's folder, or left it: labels are replaced whole, so they count."""
    try:
        with os.scandir(outputs) as entries:
            return tuple(sorted((entry.name, entry.stat().st_mtime_ns) for entry in entries))
    except OSError:
        return ()


def _names(folder: Path) -> Iterator[str]:
    try:
        yield from os.listdir(folder)  # noqa: PTH208 - ten thousand paths cost ten times their names
    except OSError:
        return


def new_picture_path(outputs: Path, *, now: datetime, seed: int, folder: Path | None = None) -> Path:
    """Where an image made now is saved: `outputs/<yyyy-mm-dd>/<hhmmss-ffffff>-seed<seed>.png`, a name not yet taken.

    In `folder` itself where one is given. Nothing is made. Two processes that ask at the same microsecond get the same
    name.
    """
    folder, stem = folder or outputs / f"{now:%Y-%m-%d}", f"{now:%H%M%S-%f}-seed{seed}"
    path, copy = folder / f"{stem}.png", 1
    while os.path.lexists(path):
        copy += 1
        path = folder / f"{stem}-{copy}.png"
    return path


def thumbnail(path: Path, *, size: int = 256, cache: Path) -> Path:
    """A small JPEG of an image, at most `size` pixels wide and high, made once and kept in the folder `cache`.

    An image that was changed (another stamp) gets a new one. Transparency becomes white.

    Raises:
        PictureFileError: not an image, broken, or over 50 megapixels.
        OSError: where the cache cannot be written.
    """
    key = _file_key(path)
    if key is None:
        raise PictureFileError(_("{name} cannot be opened. It may have been moved or deleted.", name=shown_name(path)))
    identity = os.fsencode(path.absolute()) + f"\0{key[1]}\0{size}".encode()
    kept = cache / f"{hashlib.sha256(identity).hexdigest()[:32]}.jpg"
    if not kept.is_file():
        write_atomically(kept, _small_jpeg(path, size))
    return kept


def _small_jpeg(path: Path, size: int) -> bytes:
    with open_picture(path) as picture:
        if picture.width * picture.height > _MAX_THUMBNAIL_PIXELS:
            raise PictureFileError(
                _(
                    "{name} has {width} × {height} pixels: it is too large.",
                    name=shown_name(path),
                    width=picture.width,
                    height=picture.height,
                )
            )
        try:
            picture.draft("RGB", (size, size))  # a JPEG is decoded small at once
            small = picture.convert("RGBA")
            small.thumbnail((size, size))
            upright = ImageOps.exif_transpose(small)
        except PILLOW_ERRORS as error:
            raise PictureFileError(_("{name} is broken: {error}.", name=shown_name(path), error=error)) from error
    white = Image.new("RGBA", upright.size, "white")
    buffer = io.BytesIO()
    Image.alpha_composite(white, upright).convert("RGB").save(buffer, format="JPEG", quality=85)
    return buffer.getvalue()
