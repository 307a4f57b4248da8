"""Images of a dataset on another ground: copies made in worker processes, used when somebody says so."""

import hashlib
import io
import shutil
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from PIL import Image

from studio.core.errors import DatasetError, PictureFileError, system_error_message
from studio.core.files import read_file, write_atomically
from studio.core.language import _, for_later, said
from studio.core.records import KeptText, Record
from studio.core.text import counted
from studio.datasets.checker import PictureChecker
from studio.datasets.inspection import measure_border_whiteness, png_of
from studio.datasets.opened import OpenedDataset
from studio.datasets.source import DatasetRow
from studio.images.decoding import open_rgb
from studio.images.grounds import change_ground
from studio.images.records import GroundSettings
from studio.images.scores.summary import WHITE_SHARE

MASKS = "masks"
PROPOSED = "grounds"
PREVIEW_SIDE = 384


class GroundResult(Record):
    """What became of one image.

    Attributes:
        key: the image's, in its dataset.
        made_from: the file that was changed: the result is of no use once the dataset reads another one.
        stem: of the names of its files: `.png` the copy, `-masklabel.png` its mask, `-before.jpg` and `-after.jpg`.
        whiteness: of the border, before and after.
        problem: why there is none; "" where there is.
    """

    key: str
    made_from: str
    stem: str
    whiteness: tuple[float, float] = (0.0, 0.0)
    problem: KeptText = ""


@dataclass
class GroundWork:
    """The images of one dataset that are being changed, or wait to be used. Any thread may read.

    Attributes:
        made: by key, in no fixed order.
        problem: why it ended early; "" where it did not.
    """

    settings: GroundSettings
    keys: tuple[str, ...]
    folder: Path
    made: dict[str, GroundResult] = field(default_factory=dict)
    stop: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    problem: KeptText = ""

    @property
    def running(self) -> bool:
        """Whether images are being changed now."""
        return not self.done.is_set()

    @property
    def words(self) -> str:
        """How far it is."""
        num_made, num_images = len(self.made), len(self.keys)
        return _("{num_made:,} of {num_images:,} images are ready.", num_made=num_made, num_images=num_images)

    @property
    def results(self) -> list[GroundResult]:
        """In the order of the images."""
        made = dict(self.made)
        return [made[key] for key in self.keys if key in made]


class GroundChanger:
    """The work on grounds, one for each dataset; a new one takes the place of what was not used. Any thread may ask."""

    def __init__(self, checker: PictureChecker, folder: Path) -> None:
        """Nothing is made yet.

        Args:
            folder: of the cache, which the page may serve.
        """
        self._checker = checker
        self._folder = folder / PROPOSED
        self._works: dict[str, GroundWork] = {}

    def find(self, dataset: str) -> GroundWork | None:
        """The work on a dataset; None where there is none."""
        return self._works.get(dataset)

    def is_running(self, dataset: str) -> bool:
        """Whether its images are being changed now."""
        work = self.find(dataset)
        return work is not None and work.running

    def begin(self, opened: OpenedDataset, keys: Sequence[str], settings: GroundSettings) -> GroundWork:
        """Begin to change images in the background.

        Raises:
            DatasetError: where images are being changed already, there is none, or nothing is asked for.
            OSError: where what was not used cannot be removed.
        """
        if self.is_running(opened.name):
            raise DatasetError(_("Images of {name} are being changed already. Stop that first.", name=opened.name))
        if not (settings.white or settings.subject_percent or settings.masks):
            raise DatasetError(_("Choose what to do with the images: nothing would change.")).about("white")
        self.discard(opened.name)
        paths = {key: opened.row(key).path for key in keys}
        if not paths:
            raise DatasetError(_("There is no image to change."))
        folder = self._folder / hashlib.sha256(opened.name.encode()).hexdigest()[:16]
        work = self._works[opened.name] = GroundWork(settings, tuple(paths), folder)
        threading.Thread(
            target=self._work, args=(work, paths, opened.recipe.background), name="grounds", daemon=True
        ).start()
        return work

    def discard(self, dataset: str) -> None:
        """Stop, and forget what was made."""
        work = self._works.pop(dataset, None)
        if work is not None:
            work.stop.set()
            shutil.rmtree(work.folder, ignore_errors=True)  # a cache; what is being written now goes with the next one

    def close(self) -> None:
        """Stop all work."""
        for work in tuple(self._works.values()):
            work.stop.set()

    def _work(self, work: GroundWork, paths: dict[str, Path], background: str) -> None:
        def change(key: str) -> None:
            if work.stop.is_set():
                return
            with for_later():
                try:
                    made = self._checker.run(make_copy, key, paths[key], work.folder, background, work.settings)
                except PictureFileError as error:  # what a worker cannot say itself
                    made = GroundResult(key=key, made_from=str(paths[key]), stem="", problem=error.args[0])
            work.made[key] = made

        try:
            with ThreadPoolExecutor(self._checker.num_workers) as pool:
                list(pool.map(change, paths))
        except CancelledError:  # the workers were ended
            if not work.stop.is_set():  # and not as the studio ends
                with for_later():
                    work.problem = _("The processes that change images ended. Preview again.")
        except OSError as error:
            with for_later():
                work.problem = system_error_message(error)
        finally:
            work.done.set()


def make_copy(key: str, path: Path, folder: Path, background: str, settings: GroundSettings) -> GroundResult:
    """Change one image; its copy, its mask and both previews are written into the folder. Runs in a worker.

    Raises:
        OSError: where they cannot be written.
    """
    stem = f"{PurePosixPath(key).stem[:40]}-{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    with for_later():
        try:
            before = open_rgb(path, background=background)
            changed = change_ground(before, settings)
        except PictureFileError as error:
            return GroundResult(key=key, made_from=str(path), stem=stem, problem=error.args[0])
    copy = png_of(changed.image)
    stem = f"{stem}-{hashlib.sha256(copy).hexdigest()[:8]}"
    files = {
        ".png": copy,
        "-masklabel.png": png_of(changed.mask),
        "-before.jpg": _preview(before),
        "-after.jpg": _preview(changed.image),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for ending, content in files.items():
        (folder / f"{stem}{ending}").write_bytes(content)
    whiteness = (measure_border_whiteness(before), measure_border_whiteness(changed.image))
    return GroundResult(key=key, made_from=str(path), stem=stem, whiteness=whiteness)


def _preview(image: Image.Image) -> bytes:
    small, content = image.copy(), io.BytesIO()
    small.thumbnail((PREVIEW_SIDE, PREVIEW_SIDE), Image.Resampling.BICUBIC)
    small.save(content, format="JPEG", quality=90)
    return content.getvalue()


def use_copies(opened: OpenedDataset, work: GroundWork, *, keys: Sequence[str] | None = None) -> int:
    """Have a dataset read the copies from now on, undone as one, and keep the masks; how many images.

    An image that the dataset reads from another file by now is left out.

    Args:
        keys: of these images alone; None for all.

    Raises:
        DatasetError: where there is nothing to use.
        OSError: where they cannot be kept; nothing is changed then, or only masks are missing.
    """
    settings = work.settings
    results = [
        result
        for result in work.results
        if not result.problem
        and (keys is None or result.key in keys)
        and opened.has(result.key)
        and str(opened.row(result.key).path) == result.made_from
    ]
    if not results:
        raise DatasetError(_("There is no image to use: the dataset has changed since the preview."))
    if settings.white or settings.subject_percent:
        images = results[0].key if len(results) == 1 else counted(len(results), "image", "images")
        copies = ((result.key, read_file(work.folder / f"{result.stem}.png")) for result in results)
        opened.use_copies(copies, what=describe(settings, images))
    if settings.masks:
        for result in results:
            mask = PurePosixPath(result.key).with_suffix("")
            write_atomically(
                opened.folder / MASKS / f"{mask}-masklabel.png", read_file(work.folder / f"{result.stem}-masklabel.png")
            )
    for result in results:
        work.made.pop(result.key, None)
    return len(results)


def on_other_grounds(rows: Sequence[DatasetRow]) -> list[str]:
    """The keys of images whose background is not white, of those that were checked."""
    return [row.key for row in rows if row.facts is not None and row.facts.border_whiteness < WHITE_SHARE]


def put_on_white(opened: OpenedDataset, cache: Path) -> int:
    """Have a checked dataset read copies on pure white of all images on another background; how many. Blocks.

    An image without a subject that can be told stays as it is.

    Raises:
        DatasetError: where images cannot be changed.
        OSError: where copies cannot be kept.
    """
    if not (keys := on_other_grounds([row for row in opened.rows if row.is_used])):
        return 0
    checker = PictureChecker(cache / "picture-checks.db", cache / "dataset-thumbnails")
    changer = GroundChanger(checker, cache / "trainings")  # what waits on the page is the page's own
    try:
        work = changer.begin(opened, keys, GroundSettings())
        work.done.wait()
        if work.problem:
            raise DatasetError(said(work.problem))
        return use_copies(opened, work) if any(not made.problem for made in work.results) else 0
    finally:
        changer.discard(opened.name)
        checker.close()


def describe(settings: GroundSettings, images: str) -> str:
    """What was done, for the undo button."""
    if settings.white and settings.subject_percent:
        return _("{images} centred on white", images=images)
    return _("{images} on white", images=images) if settings.white else _("{images} centred", images=images)
