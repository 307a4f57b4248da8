"""One item's picture: made, checked, scored, and written with all that made it; tried again where it is not taken."""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image

from studio.a1111 import to_parameters
from studio.batch_settings import BatchSettings
from studio.batches.folder import BatchFolder
from studio.batches.item import BatchItem
from studio.batches.item_facts import ItemFacts
from studio.batches.ledger import ItemRow, RejectionRow
from studio.batches.refusal import refusal
from studio.engine.pipeline import GeneratedImage, PipelineManager
from studio.engine.watching import RunWatcher
from studio.errors import CancelledError, InvalidImageError, error_sentence
from studio.picture_files import PARAMETERS_KEY, encode_picture
from studio.results import ImageRecord
from studio.scoring.nearest import NearestIndex
from studio.scoring.picture import score_picture
from studio.settings import SEED_MAX

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
    """Makes items' pictures.

    Attributes:
        nearest: the training pictures that distances are measured to; None where there are none.
        write: writes a file, waiting for room where the disk is full.
        reject: notes a picture that was not taken.
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
        self, item: BatchItem, *, first_attempt: int = 0, also_refused: Callable[[str], str] = _refuse_nothing
    ) -> ItemRow:
        """Make an item until a picture of it is taken, or its tries are used up; the picture is on the disk then.

        Whatever a library raises over an item (settings that it cannot take, memory for its size) is that item's: it
        is failed then, with tries left.

        Args:
            first_attempt: tries before it were used up already.
            also_refused: why a picture of this content is not taken; "" where it is.

        Raises:
            GenerationCancelledError: where the watcher cancelled; the item is as if never begun.
            OSError, BatchError: where it cannot be written or noted.
        """
        started, reason = time.perf_counter(), ""
        for attempt in range(first_attempt, self.settings.max_retries + 1):
            seed = derived_seed(item.generation.seed, attempt)
            try:
                made = self.manager.generate(
                    item.generation.model_copy(update={"seed": seed}), watcher=self.watcher.of_picture(item.index)
                )
                scores = score_picture(made.picture, prompt=item.caption, nearest=self.nearest)
                content = content_of(made.picture)
            except InvalidImageError as error:
                copy = error.rejected_file.relative_to(self.folder.root).as_posix() if error.rejected_file else ""
                reason = str(error)
                self._note(item, attempt, seed=seed, reason=reason, file=copy)
                continue
            except CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - the one boundary of an item: the batch goes on without it
                self.item_error(item, error)
                spent = time.perf_counter() - started
                return failed_row(
                    item.index, item.generation.seed, error_sentence(error), attempts=attempt, seconds=spent
                )
            reason = refusal(scores, self.settings) or also_refused(content)
            if not reason:
                seconds = time.perf_counter() - started
                facts = ItemFacts(checks=made.record.checks, scores=scores)
                return self._keep(item, made, facts, content, attempts=attempt + 1, seconds=seconds)
            copy = f"rejected/{item.index:07}-try{attempt + 1}.png"
            self.write(self.folder.root / copy, encode_picture(made.picture, self._texts(item, made.record)))
            self._note(item, attempt, seed=seed, reason=reason, file=copy)
        return failed_row(
            item.index,
            item.generation.seed,
            reason or "It was rejected, and no try is left.",
            attempts=self.settings.max_retries + 1,
            seconds=time.perf_counter() - started,
        )

    def set_aside(self, item: BatchItem, attempt: int, reason: str) -> None:
        """Note that a picture which was taken before is not taken after all; a copy of it stays in `rejected`.

        Raises:
            OSError, BatchError: where it cannot be written or noted.
        """
        path = self.folder.picture(item.index, self.settings.picture_format)
        copy = f"rejected/{item.index:07}-try{attempt + 1}{path.suffix}"
        if path.is_file():
            self.write(self.folder.root / copy, path.read_bytes())
        self._note(item, attempt, seed=derived_seed(item.generation.seed, attempt), reason=reason, file=copy)

    def _keep(
        self,
        item: BatchItem,
        made: GeneratedImage,
        facts: ItemFacts,
        content: str,
        *,
        attempts: int,
        seconds: float,
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
            seconds=seconds,
            made_at=_now(),
            facts=facts.model_dump_json(),
        )

    def _texts(self, item: BatchItem, record: ImageRecord) -> dict[str, str]:
        """What the file tells. No time and no duration: the same item is the same file, whenever it is made."""
        told = {
            "item": item.index,
            "caption": item.caption,
            "attributes": item.attributes,
            **record.model_dump(mode="json", exclude={"timings", "made_at"}),
        }
        return {PARAMETERS_KEY: to_parameters(record), BATCH_KEY: json.dumps(told, ensure_ascii=False)}

    def _note(self, item: BatchItem, attempt: int, *, seed: int, reason: str, file: str) -> None:
        self.reject(RejectionRow(item=item.index, attempt=attempt, seed=seed, reason=reason, file=file, made_at=_now()))


def failed_row(item: int, seed: int, reason: str, *, attempts: int, seconds: float = 0.0) -> ItemRow:
    """An item of which there is no picture.

    Args:
        attempts: pictures of it that were made and not taken; fewer than its tries where an error ended it.
    """
    return ItemRow(
        item=item, state="failed", seed=seed, attempts=attempts, seconds=seconds, made_at=_now(), reason=reason
    )


def content_of(picture_HWC: np.ndarray) -> str:
    """What a picture shows, for finding copies: 64 bits of perceptual hash as hex, and the pixels' sha256."""
    small = imagehash.phash(Image.fromarray(picture_HWC))
    return f"{small}:{hashlib.sha256(picture_HWC.tobytes()).hexdigest()}"


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
