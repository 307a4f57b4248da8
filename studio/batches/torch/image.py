"""One item's image until it is taken: made, checked, scored, compared, written.

Which images a batch does not take: by their scores.

One item's image: made, checked, scored, and written with all that made it; tried again where it is not taken.
Images that show the same as an earlier one are made again: at the end, by item, so that who made them and in
which order does not matter.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from studio.batches.folder import BatchFolder
from studio.batches.ledger import ItemFacts, ItemRow, RejectionRow, read_items
from studio.batches.plan import BatchItem, BatchPlan
from studio.batches.settings import BatchSettings
from studio.core.errors import CancelledError, InvalidImageError, error_message
from studio.core.files import read_file
from studio.core.language import N_, _
from studio.core.results import ImageRecord
from studio.core.settings import SEED_MAX
from studio.engine.pipeline import GeneratedImage, PipelineManager
from studio.engine.progress import RunWatcher
from studio.images.a1111 import to_parameters
from studio.images.files import PARAMETERS_KEY, encode_picture
from studio.images.scores.image import PictureScores, score_picture
from studio.images.scores.likeness import NearestIndex

_TOO_DARK = N_("Its border whiteness is {value:.3g}; at least {limit:g} is required.")
_TOO_BLURRED = N_("Its sharpness is {value:.3g}; at least {limit:g} is required.")
_TOO_NEAR = N_("Its distance to the nearest training image is {value:.3g}; at least {limit:g} is required.")
_TOO_FAR_OFF = N_("Its subject is off the centre by {value:.3g}; at most {limit:g} is required.")
_TOO_UNLIKE = N_("Its colour differs from the prompt's by ΔE {value:.3g}; at most {limit:g} is required.")


def refusal(scores: PictureScores, settings: BatchSettings) -> str:
    """Why an image is not taken, in a sentence; "" where it is. A score that it does not have refuses nothing."""
    offset = scores.centring.offset if scores.centring else None
    difference = scores.colour.difference if scores.colour else None
    distance = scores.nearest.distance if scores.nearest else None
    rules = (
        (_TOO_DARK, scores.border.whiteness, settings.least_whiteness, True),
        (_TOO_BLURRED, scores.sharpness, settings.least_sharpness, True),
        (_TOO_NEAR, distance, settings.least_distance, True),
        (_TOO_FAR_OFF, offset, settings.most_offset, False),
        (_TOO_UNLIKE, difference, settings.most_colour_difference, False),
    )
    for words, value, limit, is_least in rules:
        if value is not None and limit is not None and (value < limit if is_least else value > limit):
            return _(words, value=value, limit=limit)
    return ""


BATCH_KEY = "lora-studio-batch"


def derived_seed(seed: int, attempt: int) -> int:
    """The seed of an item's n-th further try: its own at 0, then numbers that no neighbour has."""
    if attempt == 0:
        return seed
    digest = hashlib.sha256(f"{seed}:{attempt}".encode()).digest()
    return int.from_bytes(digest[:8], "big") & SEED_MAX


def _refuse_nothing(_content: str) -> str:
    return ""


@dataclass(frozen=True)
class PictureMaker:
    """Makes items' images.

    Attributes:
        nearest: the training images that distances are measured to; None where there are none.
        write: writes a file, waiting for room where the disk is full.
        reject: notes an image that was not taken.
        item_error: told of an error that ended an item.
        watcher: told of steps, and asked whether to cancel.
    """

    manager: PipelineManager
    settings: BatchSettings
    folder: BatchFolder
    nearest: NearestIndex | None
    write: Callable[[Path, bytes], None]
    reject: Callable[[RejectionRow], None]
    item_error: Callable[[BatchItem, Exception], None]
    watcher: RunWatcher

    def make(
        self,
        item: BatchItem,
        *,
        first_attempt: int = 0,
        again: bool = False,
        also_refused: Callable[[str], str] = _refuse_nothing,
    ) -> ItemRow:
        """Make an item until an image of it is taken, or its tries are used up; the image is on the disk then.

        Whatever is raised over an item (settings that a library cannot take, memory for its size, a file that the
        disk does not write) is that item's: it is failed then, with tries left.

        Args:
            first_attempt: tries before it were used up already.
            again: a person asked for it, so that it is tried once at least.
            also_refused: why an image of this content is not taken; "" where it is.

        Raises:
            GenerationCancelledError: where the watcher cancelled; the item is as if never begun.
        """
        started, reason = time.perf_counter(), ""
        end = max(self.settings.max_retries + 1, first_attempt + again)
        for attempt in range(first_attempt, end):
            try:
                outcome = self._attempt(item, attempt, also_refused=also_refused, started=started)
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - the one boundary of an item: the batch goes on without it
                self.item_error(item, error)
                spent = time.perf_counter() - started
                return failed_row(
                    item.index, item.generation.seed, error_message(error), attempts=attempt, seconds=spent
                )
            if isinstance(outcome, ItemRow):
                return outcome
            reason = outcome
        return failed_row(
            item.index,
            item.generation.seed,
            reason or _("It was rejected, and no retries are left."),
            attempts=end,
            seconds=time.perf_counter() - started,
        )

    def _attempt(
        self, item: BatchItem, attempt: int, *, also_refused: Callable[[str], str], started: float
    ) -> ItemRow | str:
        """The item's row, where an image of this attempt is taken and on the disk; else why it is not taken."""
        seed = derived_seed(item.generation.seed, attempt)
        try:
            made = self.manager.generate(
                item.generation.model_copy(update={"seed": seed}), watcher=self.watcher.of_picture(item.index)
            )
            scores = score_picture(made.picture, prompt=item.caption, nearest=self.nearest)
            content = content_of(made.picture)
        except InvalidImageError as error:
            copy = error.rejected_file.relative_to(self.folder.root).as_posix() if error.rejected_file else ""
            self._note(item, attempt, seed=seed, reason=str(error), file=copy)
            return str(error)
        reason = refusal(scores, self.settings) or also_refused(content)
        if not reason:
            facts = ItemFacts(checks=made.record.checks, scores=scores)
            return self._keep(item, made, facts, content, attempts=attempt + 1, started=started)
        copy = f"rejected/{item.index:07}-try{attempt + 1}.png"
        self.write(self.folder.root / copy, encode_picture(made.picture, self._texts(item, made.record)))
        self._note(item, attempt, seed=seed, reason=reason, file=copy)
        return reason

    def set_aside(self, item: BatchItem, attempt: int, reason: str) -> None:
        """Note that an image which was taken before is not taken after all; a copy of it stays in `rejected`.

        Raises:
            OSError, BatchError: where it cannot be written or noted.
        """
        path = self.folder.picture(item.index, self.settings.picture_format)
        copy = f"rejected/{item.index:07}-try{attempt + 1}{path.suffix}"
        if path.is_file():
            self.write(self.folder.root / copy, read_file(path))
        self._note(item, attempt, seed=derived_seed(item.generation.seed, attempt), reason=reason, file=copy)

    def _keep(
        self,
        item: BatchItem,
        made: GeneratedImage,
        facts: ItemFacts,
        content: str,
        *,
        attempts: int,
        started: float,
    ) -> ItemRow:
        settings = self.settings
        path = self.folder.picture(item.index, settings.picture_format)
        texts = self._texts(item, made.record)
        encoded = encode_picture(made.picture, texts, picture_format=settings.picture_format, quality=settings.quality)
        if settings.text_sidecars:
            self.write(path.with_suffix(".txt"), item.caption.encode() + b"\n")
        self.write(path, encoded)
        return ItemRow(
            item=item.index,
            state="done",
            file=path.relative_to(self.folder.root).as_posix(),
            sha256=hashlib.sha256(encoded).hexdigest(),
            num_bytes=len(encoded),
            content=content,
            seed=made.record.settings.seed,
            attempts=attempts,
            seconds=time.perf_counter() - started,
            made_at=_now(),
            facts=facts.model_dump_json(),
        )

    def _texts(self, item: BatchItem, record: ImageRecord) -> dict[str, str]:
        """What the file tells. No time and no duration: the same item is the same file, whenever it is made."""
        reported = {
            "item": item.index,
            "caption": item.caption,
            "attributes": item.attributes,
            **record.model_dump(mode="json", exclude={"timings", "made_at"}),
        }
        return {PARAMETERS_KEY: to_parameters(record), BATCH_KEY: json.dumps(reported, ensure_ascii=False)}

    def _note(self, item: BatchItem, attempt: int, *, seed: int, reason: str, file: str) -> None:
        self.reject(RejectionRow(item=item.index, attempt=attempt, seed=seed, reason=reason, file=file, made_at=_now()))


def failed_row(item: int, seed: int, reason: str, *, attempts: int, seconds: float = 0.0) -> ItemRow:
    """An item of which there is no image.

    Args:
        attempts: images of it that were made and not taken; fewer than its tries where an error ended it.
    """
    return ItemRow(
        item=item, state="failed", seed=seed, attempts=attempts, seconds=seconds, made_at=_now(), reason=reason
    )


def content_of(picture_HWC: np.ndarray) -> str:
    """What an image shows, for finding copies: 64 bits of perceptual hash as hex, and the pixels' sha256."""
    small = imagehash.phash(Image.fromarray(picture_HWC))
    return f"{small}:{hashlib.sha256(picture_HWC.tobytes()).hexdigest()}"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


_COPY = N_("It shows the same as another image of the batch.")


@dataclass
class Contents:
    """What the images show, in order of their items: 17 bytes each, so that a million fit."""

    settings: BatchSettings
    items: list[int] = field(default_factory=list)
    hashes: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    pixels: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint64))
    attempts: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, folder: BatchFolder, settings: BatchSettings) -> "Contents":
        """Of every image that is done."""
        items, attempts, contents = [], [], []
        for row in read_items(folder.ledgers):
            if row.state == "done":
                items.append(row.item)
                attempts.append(row.attempts)
                contents.append(_numbers(row.content))
        table = np.array(contents, np.uint64).reshape(-1, 2)
        return cls(settings, items, table[:, 0].copy(), table[:, 1].copy(), attempts)

    def is_copy(self, content: tuple[int, int], *, before: int) -> bool:
        """Whether one of the images before a place shows the same."""
        small, pixels = (np.uint64(number) for number in content)
        if self.settings.reject_copies and bool((self.pixels[:before] == pixels).any()):
            return True
        bits = self.settings.near_duplicate_bits
        return bits > 0 and bool((np.bitwise_count(self.hashes[:before] ^ small) <= bits).any())


def remake_copies(
    folder: BatchFolder,
    settings: BatchSettings,
    plan: BatchPlan,
    maker: PictureMaker,
    add: Callable[[ItemRow], None],
) -> None:
    """Make every image again that shows the same as one before it, until it does not or its tries are used up.

    Args:
        add: notes an item.

    Raises:
        GenerationCancelledError: where the maker's watcher cancelled.
        OSError, BatchError: where something cannot be written.
    """
    if not (settings.reject_copies or settings.near_duplicate_bits):
        return
    contents = Contents.of(folder, settings)
    if not settings.near_duplicate_bits and len(np.unique(contents.pixels)) == len(contents.items):
        return
    place = 0
    while place < len(contents.items):
        content = int(contents.hashes[place]), int(contents.pixels[place])
        if not contents.is_copy(content, before=place):
            place += 1
            continue
        row = _remake(contents, place, plan=plan, maker=maker)
        add(row)
        if row.state == "done":
            contents.hashes[place], contents.pixels[place] = _numbers(row.content)
            place += 1
        else:  # it is no image of the batch any more
            contents.hashes, contents.pixels = np.delete(contents.hashes, place), np.delete(contents.pixels, place)
            del contents.items[place], contents.attempts[place]


def _remake(contents: Contents, place: int, *, plan: BatchPlan, maker: PictureMaker) -> ItemRow:
    def also_refused(content: str) -> str:
        return _(_COPY) if contents.is_copy(_numbers(content), before=place) else ""

    item, tried = plan.item(contents.items[place]), contents.attempts[place]
    maker.set_aside(item, tried - 1, _(_COPY))
    return maker.make(item, first_attempt=tried, also_refused=also_refused)


def _numbers(content: str) -> tuple[int, int]:
    """(perceptual hash, 64 bits of the pixels' sha256)."""
    small, pixels = content.split(":")
    return int(small, 16), int(pixels[:16], 16)
