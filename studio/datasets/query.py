"""Which rows are shown: searched, filtered, sorted, a page at a time."""

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, MaxLen
from natsort import natsort_keygen
from pydantic import Field

from studio.core.language import N_, _, number
from studio.core.settings import Settings
from studio.datasets.source import YOUR_EDIT, DatasetRow

SortName = Literal[
    "name", "caption", "longest caption", "shortest caption", "largest", "smallest", "least white border"
]
SORT_TITLES: dict[SortName, str] = {
    "name": N_("name"),
    "caption": N_("caption"),
    "longest caption": N_("longest caption"),
    "shortest caption": N_("shortest caption"),
    "largest": N_("largest"),
    "smallest": N_("smallest"),
    "least white border": N_("least white border"),
}
SORT_NAMES = tuple(SORT_TITLES)

ANY = N_("any")
ANY_PROBLEM = N_("any problem")
NO_PROBLEM = N_("no problem")
NEEDS_FIXING = N_("needs fixing")
EXCLUDED = N_("excluded")
EDITED = N_("edited caption")
NOT_CHECKED = N_("not checked yet")
STARRED = N_("starred")
STATES = (ANY, NEEDS_FIXING, ANY_PROBLEM, NO_PROBLEM, STARRED, EXCLUDED, EDITED, NOT_CHECKED)
"""Filters besides the problems' own codes; these are known in English and shown in the reader's language."""

NUM_BINS = 10
EMPTY_VALUE = N_("(empty)")
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")
FacetName = Literal["bucket", "size", "length", "word", "brightness", "whiteness", "column"]
FACET_TITLES: dict[FacetName, str] = {
    "bucket": N_("Buckets (training sizes)"),
    "size": N_("Image sizes"),
    "length": N_("Words in a caption"),
    "word": N_("Most frequent words"),
    "brightness": N_("Brightness, 0 dark to 1 light"),
    "whiteness": N_("Share of the border that is white"),
    "column": N_("Column"),
}


def words_of(caption: str) -> list[str]:
    """The words of a caption, as statistics count them."""
    return [word.casefold() for word in _WORD.findall(caption)]


def bin_of(share: float) -> int:
    """Which of ten equal parts of 0 to 1 a number lies in."""
    return min(NUM_BINS - 1, int(share * NUM_BINS))


def bin_name(number: int) -> str:
    """`0.3 to 0.4`, whatever the reader's language."""
    return f"{number / NUM_BINS:.1f} to {(number + 1) / NUM_BINS:.1f}"


class Facet(Settings):
    """One bar of the statistics: the used images that it counts."""

    name: FacetName = Field(description=N_("What is counted."))
    value: str = Field(
        max_length=2000, description=N_("The bar's own name: `512 × 640`, `4 to 6`, `0.3 to 0.4`, `boots`.")
    )
    column: str = Field("", max_length=2000, description=N_("Of the table, where that is what is counted."))

    @property
    def title(self) -> str:
        """What its chart is called."""
        return self.column if self.name == "column" else _(FACET_TITLES[self.name])

    @property
    def label(self) -> str:
        """What its bar is called: its value in the reader's language."""
        if self.value == EMPTY_VALUE:
            return _(EMPTY_VALUE)
        low, to, high = self.value.partition(" to ")
        if not to or self.name not in ("length", "brightness", "whiteness"):
            return self.value
        try:
            form = ".0f" if self.name == "length" else ".1f"
            return _("{low} to {high}", low=number(float(low), form), high=number(float(high), form))
        except ValueError:
            return self.value

    def has(self, row: DatasetRow, *, bucket_of: Callable[[DatasetRow], str]) -> bool:
        """Whether its bar counts an image."""
        if not row.is_used or row.facts is None:
            return False
        match self.name:
            case "bucket":
                return bucket_of(row) == self.value
            case "size":
                return f"{row.facts.width} × {row.facts.height}" == self.value
            case "length":
                low, __, high = self.value.partition(" to ")
                num_words = len(words_of(row.caption))
                return low.isdecimal() and int(low) <= num_words <= int(high if high.isdecimal() else low)
            case "word":
                return self.value in words_of(row.caption)
            case "brightness":
                return bin_name(bin_of(row.facts.brightness)) == self.value
            case "whiteness":
                return bin_name(bin_of(row.facts.border_whiteness)) == self.value
            case "column":
                return (row.columns.get(self.column) or EMPTY_VALUE) == self.value


class DatasetQuery(Settings):
    """What the user asked to see."""

    search: str = Field("", title=N_("Search"), description=N_("Words in the caption or file name; all must match."))
    problem: str = Field(ANY, title=N_("State"), description=N_("A state, or the name of a problem."))
    bucket: str = Field(ANY, title=N_("Bucket"), description=N_("The size the image is trained at."))
    column: str = Field(ANY, title=N_("Column"), description=N_("A column of the table."))
    value: str = Field(ANY, title=N_("Value"), description=N_("A value of that column."))
    facets: Annotated[tuple[Facet, ...], MaxLen(20)] = Field(
        (), title=N_("Bars"), description=N_("Bars of the statistics; all must count an image.")
    )
    sort: SortName = Field("name", title=N_("Order"), description=N_("Sort order."))
    page: Annotated[int, Ge(1)] = Field(1, title=N_("Page"), description=N_("From 1."))
    per_page: Annotated[int, Ge(1), Le(500)] = Field(60, title=N_("Images a page"), description=N_("At most 500."))


@dataclass(frozen=True)
class RowPage:
    """Some rows, and where they stand among those that were found.

    Attributes:
        number: which page this is, from 1; a number past the end gives the last one.
        num_pages: at least 1.
        num_rows: on all pages.
        before, after: the rows next to these, on the pages before and after; None at the ends.
    """

    rows: tuple[DatasetRow, ...]
    number: int
    num_pages: int
    num_rows: int
    before: DatasetRow | None = None
    after: DatasetRow | None = None


def find_rows(
    rows: Sequence[DatasetRow], query: DatasetQuery, *, bucket_of: Callable[[DatasetRow], str]
) -> list[DatasetRow]:
    """All rows that the query lets through, in its order.

    Args:
        bucket_of: a row's bucket in words (`512 × 640`); "" where it has none.
    """
    words = _folded(query.search).split()
    found = [
        row
        for row in rows
        if _has_state(row, query.problem)
        and (query.bucket == ANY or bucket_of(row) == query.bucket)
        and (ANY in (query.column, query.value) or row.columns.get(query.column, "") == query.value)
        and (not words or _has_words(row, words))
        and all(facet.has(row, bucket_of=bucket_of) for facet in query.facets)
    ]
    if query.sort != "name":  # they come in the order of their names
        found.sort(key=_SORT_KEYS[query.sort])
    return found


def take_page(found: Sequence[DatasetRow], query: DatasetQuery) -> RowPage:
    """One page of them."""
    num_pages = max(1, -(-len(found) // query.per_page))
    number = min(query.page, num_pages)
    start = (number - 1) * query.per_page
    end = start + query.per_page
    return RowPage(
        tuple(found[start:end]),
        number,
        num_pages,
        len(found),
        before=found[start - 1] if start else None,
        after=found[end] if end < len(found) else None,
    )


def _has_state(row: DatasetRow, state: str) -> bool:
    if state == ANY:
        return True
    if state == EXCLUDED:
        return row.excluded
    if state == STARRED:
        return row.starred
    if state == NEEDS_FIXING:
        return row.is_rejected and not row.excluded
    if state == ANY_PROBLEM:
        return bool(row.problems)
    if state == NO_PROBLEM:
        return row.facts is not None and not row.problems
    if state == EDITED:
        return row.caption_from == YOUR_EDIT
    if state == NOT_CHECKED:
        return row.facts is None
    return any(problem.code == state for problem in row.problems)


def _has_words(row: DatasetRow, words: Sequence[str]) -> bool:
    text = _folded(f"{row.caption} {row.key}")
    return all(word in text for word in words)


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _pixels(row: DatasetRow) -> int:
    return row.facts.width * row.facts.height if row.facts else 0


_by_nature = natsort_keygen()
_SORT_KEYS: dict[SortName, Callable[[DatasetRow], Any]] = {
    "caption": lambda row: (not row.caption, _by_nature(row.caption.casefold())),
    "longest caption": lambda row: -len(row.caption),
    "shortest caption": lambda row: len(row.caption),
    "largest": lambda row: -_pixels(row),
    "smallest": _pixels,
    "least white border": lambda row: row.facts.border_whiteness if row.facts else 1.0,
}
