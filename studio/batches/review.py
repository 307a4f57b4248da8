"""What a person decides of a batch's images, and which of them a page shows.

An image that a person rejects moves to `rejected` and is no part of the dataset any more, until it is kept after all;
its row in the ledger says so, so that a batch that goes on leaves it there.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

from pydantic import ValidationError

from studio.batches.folder import BatchFolder, read_batch_settings
from studio.batches.ledger import (
    ItemFacts,
    ItemKey,
    ItemRow,
    ItemState,
    Ledger,
    RejectionRow,
    item_keys,
    latest_row,
    read_items,
    read_rejections,
    rows_of,
)
from studio.batches.outputs import write_metadata, write_shards
from studio.batches.plan import BatchPlan
from studio.batches.report import write_report
from studio.core.errors import BatchError
from studio.core.language import _
from studio.images.scores.image import PictureScores
from studio.jobs.folder import BUSY_STATES, status_or

Decision = Literal["keep", "reject", "again"]
TAKES = "takes"
ALL = "all"
PER_PAGE = 24
NEWEST, NUMBER = "newest", "number"
SCORES: Mapping[str, tuple[str, bool]] = {
    "whiteness": ("scores.border.whiteness", True),
    "sharpness": ("scores.sharpness", True),
    "colour": ("scores.colour.difference", False),
    "centring": ("scores.centring.offset", False),
    "distance": ("scores.nearest.distance", True),
}
"""Where an image's facts have a score, and whether a greater one is better."""


@dataclass(frozen=True)
class ReviewQuery:
    """Which images are shown.

    Attributes:
        state: of the items; `all`; or `takes`: images that were made and not taken.
        sort: `newest`, `number`, or a score with `best` or `worst`, such as `sharpness worst`.
        page: from 1.
        value: a column and the value that the items have in it; None for all.
    """

    state: str = ALL
    sort: str = NEWEST
    page: int = 1
    value: tuple[str, str] | None = None


@dataclass(frozen=True)
class ReviewedImage:
    """An image of a batch, or an item that has none.

    Attributes:
        path: None where there is no image.
        reason: why the image is missing or was not accepted; "" where it was.
        attempt: of one that was not taken, which try it was, from 1; of others how many it took.
        is_take: whether it was made and not taken.
    """

    item: int
    state: ItemState
    path: Path | None
    prompt: str
    seed: int
    attempt: int
    seconds: float = 0.0
    reason: str = ""
    scores: PictureScores | None = None
    is_take: bool = False


@dataclass(frozen=True)
class ReviewPage:
    """Some of a batch's images.

    Attributes:
        query: as it was asked for; its page is one that there is.
        counts: of each state how many items have it, with `all` and `takes`; of the chosen value alone.
        num_again: how many items are to be made again, whichever value is chosen.
        values: of each column the values that one can choose.
    """

    images: tuple[ReviewedImage, ...] = ()
    query: ReviewQuery = ReviewQuery()
    num_pages: int = 1
    counts: Mapping[str, int] = field(default_factory=dict)
    num_again: int = 0
    values: Mapping[str, Sequence[str]] = field(default_factory=dict)


def review(folder: BatchFolder, plan: Callable[[], BatchPlan], query: ReviewQuery) -> ReviewPage:
    """The requested page of images, or the last one if the request is past the end.

    Raises:
        BatchError: where a ledger or the plan cannot be read.
    """
    score, __, end = query.sort.partition(" ")
    path, high_is_best = SCORES.get(score, SCORES["whiteness"])
    keys = item_keys(folder.ledgers, score=path)
    takes = list(read_rejections(folder.ledgers))
    num_again = sum(key.state == "again" for key in keys)
    # There may be no plan yet; of a column with very many values they are only counted.
    counted = plan().value_counts() if keys or takes else {}
    values = {column: tuple(numbers) for column, numbers in counted.items() if isinstance(numbers, Mapping)}
    value = query.value if query.value and query.value[1] in values.get(query.value[0], ()) else None
    if value is not None:
        having = set(plan().with_value(sorted({*(key.item for key in keys), *(take.item for take in takes)}), *value))
        keys = [key for key in keys if key.item in having]
        takes = [take for take in takes if take.item in having]
    counts = Counter[str](key.state for key in keys)
    counts[ALL], counts[TAKES] = len(keys), len(takes)
    chosen = [key for key in keys if query.state in (ALL, key.state)]
    chosen = _sorted(chosen, score, high_first=high_is_best == (end == "best"))
    num_pages = max(1, -(-(len(takes) if query.state == TAKES else len(chosen)) // PER_PAGE))
    number = min(max(1, query.page), num_pages)
    shown = slice((number - 1) * PER_PAGE, number * PER_PAGE)
    images = (
        [_take(folder, plan, take) for take in takes[::-1][shown]]
        if query.state == TAKES
        else [_item(folder, plan, key.item) for key in chosen[shown]]
    )
    shown_query = ReviewQuery(query.state, query.sort, number, value)
    return ReviewPage(tuple(images), shown_query, num_pages, counts, num_again, values)


def _sorted(keys: Sequence[ItemKey], sort: str, *, high_first: bool) -> list[ItemKey]:
    """What has no score comes last, by its number."""
    if sort == NUMBER:
        return list(keys)
    if sort not in SCORES:
        return sorted(keys, key=lambda key: (key.made_at, key.item), reverse=True)
    sign = -1 if high_first else 1
    return sorted(keys, key=lambda key: (key.score is None, sign * (key.score or 0.0)))


def _item(folder: BatchFolder, plan: Callable[[], BatchPlan], item: int) -> ReviewedImage:
    row = latest_row(row for __, row in rows_of(folder.ledgers, item))
    try:
        scores = ItemFacts.model_validate_json(row.facts).scores
    except ValidationError:
        scores = None  # of another version: the image can be looked at all the same
    return ReviewedImage(
        item=item,
        state=row.state,
        path=folder.root / row.file if row.file else None,
        prompt=plan().item(item).generation.prompt,
        seed=row.seed,
        attempt=row.attempts,
        seconds=row.seconds,
        reason=row.reason,
        scores=scores,
    )


def scores_by_key(folder: BatchFolder) -> dict[str, PictureScores]:
    """The scores of a batch's images, as far as they were scored, by their keys in its dataset.

    Raises:
        BatchError: where a ledger cannot be read.
    """
    found = {}
    for row in read_items(folder.ledgers):
        if row.state != "done" or not row.file:
            continue
        try:
            scores = ItemFacts.model_validate_json(row.facts).scores
        except ValidationError:  # of another version
            continue
        if scores is not None:
            found[(folder.root / row.file).relative_to(folder.dataset).as_posix()] = scores
    return found


def _take(folder: BatchFolder, plan: Callable[[], BatchPlan], take: RejectionRow) -> ReviewedImage:
    return ReviewedImage(
        item=take.item,
        state="failed",
        path=folder.root / take.file if take.file else None,
        prompt=plan().item(take.item).generation.prompt,
        seed=take.seed,
        attempt=take.attempt + 1,
        reason=take.reason,
        is_take=True,
    )


def decide(folder: BatchFolder, plan: BatchPlan, item: int, decision: str) -> None:
    """Keep an image, reject it, or ask for another one; the dataset, its shards and the report follow at once.

    Of a batch that is being worked on they follow when it ends; another image is made when the batch goes on.

    Raises:
        BatchError: where there is no such item or decision, or it cannot be decided now.
        OSError: where a file cannot be moved or written.
    """
    rows = rows_of(folder.ledgers, item)
    if decision not in get_args(Decision) or not rows:
        raise BatchError(
            _("The batch {name} has no image {item:,} to decide on. Look at it again.", name=folder.name, item=item)
        )
    status = status_or("failed", folder)
    if status.state == "preparing":
        raise BatchError(_("The batch is looking through its files. Try again when it runs or has ended."))
    row = latest_row(row for __, row in rows)
    if decision == "keep":
        _keep(folder, row, rows)
    else:
        _set_aside(folder, row, rows, "rejected" if decision == "reject" else "again")
    if status.state not in BUSY_STATES:
        _write_dataset(folder, plan)


def _keep(folder: BatchFolder, row: ItemRow, rows: Sequence[tuple[Path, ItemRow]]) -> None:
    if row.state == "done":
        return
    if not (row.file and (folder.root / row.file).is_file()):
        raise BatchError(_("There is no image #{item:,} to keep. Make it again instead.", item=row.item))
    back = folder.picture(row.item, read_batch_settings(folder).picture_format)
    back.parent.mkdir(parents=True, exist_ok=True)
    _move(folder.root / row.file, back)
    kept = {"state": "done", "file": back.relative_to(folder.root).as_posix(), "reason": ""}
    _write(rows, row.model_copy(update=kept))


def _set_aside(
    folder: BatchFolder, row: ItemRow, rows: Sequence[tuple[Path, ItemRow]], state: Literal["rejected", "again"]
) -> None:
    if state == "rejected" and not row.file:
        raise BatchError(_("There is no image #{item:,} to reject: it could not be made.", item=row.item))
    at, file = folder.root / row.file, row.file
    if state == "rejected" and not at.is_file():
        raise BatchError(
            _("There is no image #{item:,} to reject: {path} is gone. Make it again instead.", item=row.item, path=at)
        )
    if row.state == "done":
        file = f"{folder.rejected.name}/{row.item:07}-try{row.attempts}{at.suffix}"
    # The row first: a run that goes on meanwhile would make an image again that is gone from the dataset.
    _write(rows, row.model_copy(update={"state": state, "file": file, "reason": ""}))
    if file != row.file and at.is_file():  # one that is gone can still be made again
        folder.rejected.mkdir(exist_ok=True)
        _move(at, folder.root / file)


def _move(source: Path, target: Path) -> None:
    """An image, and its caption beside it."""
    source.replace(target)
    if (caption := source.with_suffix(".txt")).is_file():
        caption.replace(target.with_suffix(".txt"))


def _write(rows: Sequence[tuple[Path, ItemRow]], row: ItemRow) -> None:
    for path, __ in rows:
        ledger = Ledger(path)
        try:
            ledger.add(row)
        finally:
            ledger.close()


def _write_dataset(folder: BatchFolder, plan: BatchPlan) -> None:
    write_metadata(folder, plan)
    per_shard = read_batch_settings(folder).pictures_per_shard
    if per_shard and folder.shards.is_dir():
        write_shards(folder, pictures_per_shard=per_shard)
    if folder.report.is_file():
        write_report(folder, plan, finished=status_or("failed", folder).state == "finished")
