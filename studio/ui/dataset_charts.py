"""A dataset's numbers as bars: HTML that a screen reader reads as a table and that follows light and dark."""

from collections.abc import Sequence

from studio.core.text import escape
from studio.dataset.statistics import NUM_BINS, Counts, DatasetStatistics

NUM_LENGTH_BARS = 12


def statistics_html(statistics: DatasetStatistics) -> str:
    """All charts of a dataset."""
    if statistics.num_pictures == 0:
        return "<p class='quiet'>There is nothing to count yet: no picture is checked and used.</p>"
    charts = [
        bars("Buckets (training sizes)", _listed(statistics.buckets)),
        bars("Picture sizes", _listed(statistics.sizes)),
        bars("Words in a caption", _lengths(statistics.caption_words)),
        bars("Most frequent words", _listed(statistics.words, others=False)),
        bars("Brightness, 0 dark to 1 light", _shares(statistics.brightness)),
        bars("Share of the border that is white", _shares(statistics.border_whiteness)),
        *(bars(column, _listed(counts)) for column, counts in statistics.columns.items()),
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def bars(title: str, rows: Sequence[tuple[str, int]]) -> str:
    """One chart: names, bars, numbers. The longest bar is the greatest number."""
    most = max((number for _, number in rows), default=0) or 1
    body = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td class="stroke" aria-hidden="true">'
        f'<span style="width:{100 * number / most:.1f}%"></span></td><td class="number">{number:,}</td></tr>'
        for name, number in rows
    )
    return f'<table class="chart"><caption>{escape(title)}</caption><tbody>{body}</tbody></table>'


def _listed(counts: Counts, *, others: bool = True) -> list[tuple[str, int]]:
    rows = [(name or "none", number) for name, number in counts.items]
    return [*rows, ("all others", counts.num_others)] if others and counts.num_others else rows


def _shares(bins: Sequence[int]) -> list[tuple[str, int]]:
    return [(f"{i / NUM_BINS:.1f} to {(i + 1) / NUM_BINS:.1f}", number) for i, number in enumerate(bins)]


def _lengths(counts: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
    """By the number of words; in steps, where there are many different ones."""
    longest = max((words for words, _ in counts), default=0)
    step = longest // NUM_LENGTH_BARS + 1
    totals: dict[int, int] = {}
    for words, number in counts:
        totals[words // step] = totals.get(words // step, 0) + number
    return [
        (str(part) if step == 1 else f"{part * step} to {part * step + step - 1}", number)
        for part, number in sorted(totals.items())
    ]
