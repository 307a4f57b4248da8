"""The doctor's report, with duplicates and statistics.

Images that are there twice: the same file, or one that looks the same.

What is in a dataset, in numbers: sizes, captions, words, brightness, values of its columns.
The doctor's report: what needs fixing, what is worth knowing, and how many images training will use.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from studio.core.errors import DatasetError, PictureFileError
from studio.core.language import N_, _, ngettext
from studio.core.records import Record
from studio.datasets.opened import OpenedDataset
from studio.datasets.query import EMPTY_VALUE, NUM_BINS, bin_of, words_of
from studio.datasets.rows import captions_all_alike
from studio.datasets.snapshot import (
    MASK_BACKGROUND,
    SeenMask,
    fitting_notes,
    make_snapshot,
    mask_notes,
    see_mask,
    with_masks,
)
from studio.datasets.source import LAYOUT_TITLES, WITHOUT_ROW, DatasetRow, SkippedFile
from studio.images.decoding import open_rgb
from studio.images.records import PictureFacts, Problem, Severity

MAX_DISTANCE = 6
"""Of 64 bits of the difference hash: as far as re-encoded and resized copies of images on white get."""
MAX_TINY_DIFFERENCE = 1.0
"""Mean difference of 8 × 8 RGB pixels, of 255. Such copies get to 0.93; other colours of one shape start at 6."""
MAX_ASPECT_DIFFERENCE = 0.05
MAX_PAIRS = 500
_BLOCK = 512


@dataclass(frozen=True)
class DuplicatePair:
    """Two images; the first stands before the second in the dataset. `distance` is in bits of 64."""

    first_key: str
    second_key: str
    exact: bool
    distance: int


@dataclass(frozen=True)
class DuplicateSearch:
    """The pairs, exact ones first, then the nearest; `num_left_out` are beyond the number that is kept."""

    pairs: tuple[DuplicatePair, ...]
    num_left_out: int


def find_duplicates(rows: Sequence[DatasetRow], *, max_distance: int = MAX_DISTANCE) -> DuplicateSearch:
    """Every copy beside the first of its kind, and pairs that look alike.

    Images without any difference between neighbouring places (one flat colour) look like nothing, and are compared
    by their bytes only.
    """
    usable = [row for row in rows if row.facts is not None and row.facts.is_usable]
    firsts: list[DatasetRow] = []
    exact = []
    by_content: dict[str, list[DatasetRow]] = defaultdict(list)
    for row in usable:
        same = by_content[_facts(row).sha256]
        if same:
            exact.append(DuplicatePair(same[0].key, row.key, exact=True, distance=0))
        else:
            firsts.append(row)
        same.append(row)
    near = _near_pairs([row for row in firsts if int(_facts(row).perceptual_hash, 16)], max_distance)
    pairs = [*exact, *sorted(near, key=lambda pair: pair.distance)]
    return DuplicateSearch(tuple(pairs[:MAX_PAIRS]), max(0, len(pairs) - MAX_PAIRS))


def _near_pairs(rows: Sequence[DatasetRow], max_distance: int) -> list[DuplicatePair]:
    """All pairs within the distances and of nearly one shape, in blocks that keep memory small."""
    hashes_N = np.array([int(_facts(row).perceptual_hash, 16) for row in rows], dtype=np.uint64)
    tiny_NC = np.array([list(bytes.fromhex(_facts(row).tiny)) for row in rows], dtype=np.int16)
    aspects_N = np.array([_facts(row).width / _facts(row).height for row in rows])
    pairs = []
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        distances_BN = np.bitwise_count(hashes_N[block, None] ^ hashes_N[None, start:])
        for i, j in np.argwhere(distances_BN <= max_distance):
            first, second = start + int(i), start + int(j)
            if first >= second or abs(aspects_N[first] / aspects_N[second] - 1) > MAX_ASPECT_DIFFERENCE:
                continue
            if np.abs(tiny_NC[first] - tiny_NC[second]).mean() <= MAX_TINY_DIFFERENCE:
                distance = int(distances_BN[i, j])
                pairs.append(DuplicatePair(rows[first].key, rows[second].key, exact=False, distance=distance))
    return pairs


def _facts(row: DatasetRow) -> PictureFacts:
    assert row.facts is not None
    return row.facts


NUM_SIZES = 12
NUM_WORDS = 30
NUM_VALUES = 12


@dataclass(frozen=True)
class Counts:
    """Names with how often each occurs, most first; `num_others` occurrences of names that are not listed."""

    items: tuple[tuple[str, int], ...]
    num_others: int = 0


@dataclass(frozen=True)
class DatasetStatistics:
    """Of the images that training will use.

    Attributes:
        num_pictures: how many those are.
        caption_words: (words of a caption, captions with so many), fewest words first.
        brightness, border_whiteness: images in ten equal parts of 0 to 1.
        columns: the values of each column of the table.
    """

    num_pictures: int
    sizes: Counts
    buckets: Counts
    caption_words: tuple[tuple[int, int], ...]
    words: Counts
    brightness: tuple[int, ...]
    border_whiteness: tuple[int, ...]
    columns: dict[str, Counts]


def summarise(rows: Sequence[DatasetRow], *, bucket_of: Callable[[DatasetRow], str]) -> DatasetStatistics:
    """Count everything once.

    Args:
        bucket_of: a row's bucket in words; "" where it has none.
    """
    used = [(row, row.facts) for row in rows if row.is_used and row.facts is not None]
    words = [words_of(row.caption) for row, __ in used]
    columns = dict.fromkeys(
        column for row, __ in used for column, value in row.columns.items() if value or column in row.attributes
    )
    return DatasetStatistics(
        num_pictures=len(used),
        sizes=_counts((f"{facts.width} × {facts.height}" for __, facts in used), NUM_SIZES),
        buckets=_counts((bucket_of(row) for row, __ in used), NUM_SIZES * 2),
        caption_words=tuple(sorted(Counter(map(len, words)).items())),
        words=_counts((word for caption in words for word in set(caption)), NUM_WORDS),
        brightness=_bins([facts.brightness for __, facts in used]),
        border_whiteness=_bins([facts.border_whiteness for __, facts in used]),
        columns={
            column: _counts((row.columns.get(column) or EMPTY_VALUE for row, __ in used), NUM_VALUES)
            for column in columns
            if column.lower() not in ("id", "file_name")  # a name each: No statistics yet
        },
    )


def _counts(names: Iterable[str], num_listed: int) -> Counts:
    counts = Counter(names)
    listed = counts.most_common(num_listed)
    return Counts(tuple(listed), counts.total() - sum(number for __, number in listed))


def _bins(shares: Sequence[float]) -> tuple[int, ...]:
    counts = Counter(map(bin_of, shares))
    return tuple(counts[i] for i in range(NUM_BINS))


WHY_NO_FLIP = N_(
    "Mirroring images (flip augmentation) is off, and should stay so where left and "
    "right matter: lettering, logos, the side from which a product is shown. It can be "
    "switched on for a training."
)


class Finding(Record):
    """A problem of one file."""

    name: str
    problem: Problem
    excluded: bool = False


class Duplicate(Record):
    """Two images that are the same, or nearly."""

    first: str
    second: str
    exact: bool
    distance: int


class DatasetReport(Record):
    """A dataset as the check left it.

    Attributes:
        num_found: images in the source; `num_taken` of them pass the recipe's choice of rows.
        num_without_row: images beside those, which the table that was read does not name.
        num_used: how many training will use; `num_shown` counts each as often as it is repeated in an epoch.
        findings: of images, worst first; leftovers too.
        warnings: what is only seen in the whole, a sentence each.
        masks: how a mask folder fits the images, a sentence each; () where none was given.
    """

    source: str
    layout: str
    other_layouts: tuple[str, ...]
    num_found: int
    num_taken: int
    num_unchecked: int
    num_rejected: int
    num_excluded: int
    num_used: int
    num_shown: int
    num_with_caption: int
    num_skipped_files: int
    findings: tuple[Finding, ...]
    duplicates: tuple[Duplicate, ...]
    warnings: tuple[str, ...]
    masks: tuple[str, ...] = ()
    num_without_row: int = 0

    @property
    def needs_fixing(self) -> bool:
        """Whether a file is lost to training that the user did not take out, or nothing is left to train on."""
        lost = any(finding.problem.severity == "reject" and not finding.excluded for finding in self.findings)
        return lost or self.num_used == 0

    @property
    def how_many(self) -> str:
        """How the number that training will use comes about, in a sentence."""
        steps = [_("{num_found:,} found", num_found=self.num_found + self.num_without_row)]
        if self.num_without_row:
            steps.append(_("{num_without_row:,} without a row in the table", num_without_row=self.num_without_row))
        if self.num_taken != self.num_found:
            num_others = self.num_found - self.num_taken
            steps.append(_("{num_others:,} not among the chosen rows", num_others=num_others))
        if num := self.num_rejected:
            steps.append(ngettext("{num:,} that needs fixing first", "{num:,} that need fixing first", num, num=num))
        if self.num_excluded:
            steps.append(_("{num_excluded:,} excluded by you", num_excluded=self.num_excluded))
        if self.num_unchecked:
            steps.append(_("{num_unchecked:,} not checked yet", num_unchecked=self.num_unchecked))
        if self.num_shown == self.num_used:
            total = _("{num_used:,} will be trained on", num_used=self.num_used)
        else:
            total = _(
                "{num_used:,} will be trained on, shown {num_shown:,} times an epoch with their repeats",
                num_used=self.num_used,
                num_shown=self.num_shown,
            )
        return " − ".join(steps) + f" = {total}."


def make_report(dataset: OpenedDataset) -> DatasetReport:
    """Put together all that is known of a dataset now; duplicates are looked for anew."""
    rows = dataset.rows
    used = [row for row in rows if row.is_used]
    search = find_duplicates([row for row in rows if not row.excluded])
    warnings = [captions_all_alike(rows), dataset.progress.problem]
    if search.num_left_out:
        sentence = _(
            "{num:,} more pairs look alike than are listed: exclude some, then look again.", num=search.num_left_out
        )
        warnings.append(sentence)
    return DatasetReport(
        source=dataset.recipe.source,
        layout=_(LAYOUT_TITLES[dataset.reading.layout]),
        other_layouts=tuple(_(LAYOUT_TITLES[n]) for n in dataset.reading.recognised if n != dataset.reading.layout),
        num_found=len(dataset.reading.pictures),
        num_taken=len(rows),
        num_unchecked=sum(row.facts is None and not row.excluded and not row.is_rejected for row in rows),
        num_rejected=sum(row.is_rejected and not row.excluded for row in rows),
        num_excluded=sum(row.excluded for row in rows),
        num_used=len(used),
        num_shown=sum(row.repeats for row in used),
        num_with_caption=sum(bool(row.caption) for row in rows),
        num_skipped_files=len(dataset.skipped_files),
        findings=_findings(dataset, rows),
        duplicates=tuple(
            Duplicate(first=p.first_key, second=p.second_key, exact=p.exact, distance=p.distance) for p in search.pairs
        ),
        warnings=tuple(filter(None, warnings)),
        num_without_row=num_without_row(dataset.skipped_files),
    )


def num_without_row(skipped_files: Iterable[SkippedFile]) -> int:
    """How many images the table that was read does not name."""
    return sum(file.problem.code == WITHOUT_ROW for file in skipped_files)


def add_masks(report: DatasetReport, dataset: OpenedDataset, folder: str) -> DatasetReport:
    """The report with how a mask folder fits the images, as a training would say it; masks are decoded."""
    seen, lost = list[SeenMask](), list[Finding]()
    try:
        entries = with_masks(make_snapshot(dataset.name, dataset.recipe, dataset.rows), folder).entries
    except DatasetError as error:
        entries, lost = (), [_rejected(folder, N_("no masks"), str(error))]
    for entry in entries:
        if entry.mask is None:
            continue
        try:
            grey = open_rgb(Path(entry.mask.path), background=MASK_BACKGROUND).convert("L")
        except PictureFileError as error:
            sentence = _("The mask of {key}: {error}", key=entry.key, error=error)
            lost.append(_rejected(entry.mask.path, N_("mask unreadable"), sentence))
        else:
            seen.append(see_mask(entry.key, (entry.width, entry.height), grey))
    notes = (*fitting_notes([(entry.key, entry.mask) for entry in entries]), *mask_notes(seen))
    return report.model_copy(update={"masks": notes, "findings": (*lost, *report.findings)})


def _rejected(name: str, code: str, sentence: str) -> Finding:
    return Finding(name=name, problem=Problem(code=code, severity="reject", sentence=sentence))


def count_problems(rows: Sequence[DatasetRow]) -> dict[str, int]:
    """How many images have each problem, by its code, most first."""
    counts = Counter(code for row in rows for code in {problem.code for problem in row.problems})
    return dict(counts.most_common())


_ORDER: dict[Severity, int] = {"reject": 0, "convert": 1, "note": 2}


def _findings(dataset: OpenedDataset, rows: Sequence[DatasetRow]) -> tuple[Finding, ...]:
    of_pictures = [Finding(name=r.key, problem=p, excluded=r.excluded) for r in rows for p in r.problems]
    of_others = [
        Finding(name=skipped_file.name, problem=skipped_file.problem) for skipped_file in dataset.skipped_files
    ]
    return tuple(sorted([*of_pictures, *of_others], key=lambda finding: _ORDER[finding.problem.severity]))
