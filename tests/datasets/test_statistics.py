"""Statistics count what training will use, each thing once."""

import html
import re

from studio.datasets.query import FACET_TITLES, DatasetQuery, find_rows
from studio.datasets.report import summarise
from studio.datasets.source import DatasetRow
from studio.ui.datasets.browser import read_facets
from studio.ui.datasets.statistics import bars, statistics_html
from tests.datasets.rows import REJECT, make_facts, make_row

ROWS = [
    make_row("1", "red shoe, Red", attributes={"colour": "red", "id": "1"}, facts=make_facts(brightness=0.05)),
    make_row("2", "blue shoe", attributes={"colour": "blue", "id": "2"}, facts=make_facts(border_whiteness=0.0)),
    make_row("3", "", attributes={"colour": "", "id": "3"}, facts=make_facts(width=1024, brightness=1.0)),
    make_row("4", "not counted", excluded=True),
    make_row("5", "not counted", problems=(REJECT,)),
    make_row("6", "not counted", facts=None),
]
STATISTICS = summarise(ROWS, bucket_of=lambda row: "512 × 512" if row.key != "3" else "")


def test_only_what_is_trained_on_counts() -> None:
    assert STATISTICS.num_pictures == 3
    assert dict(STATISTICS.sizes.items) == {"512 × 512": 2, "1024 × 512": 1}


def test_a_word_counts_once_a_caption_and_in_any_case() -> None:
    assert dict(STATISTICS.words.items) == {"shoe": 2, "red": 1, "blue": 1}
    assert STATISTICS.caption_words == ((0, 1), (2, 1), (3, 1))


def test_shares_fall_into_ten_parts() -> None:
    assert STATISTICS.brightness == (1, 0, 0, 0, 0, 1, 0, 0, 0, 1)
    assert STATISTICS.border_whiteness == (1, 0, 0, 0, 0, 0, 0, 0, 0, 2)


def test_columns_are_counted_but_names_are_not() -> None:
    assert {name: dict(counts.items) for name, counts in STATISTICS.columns.items()} == {
        "colour": {"red": 1, "blue": 1, "(empty)": 1}
    }


def test_rare_values_are_counted_together() -> None:
    rows = [make_row(str(i), attributes={"price": str(i)}) for i in range(20)]
    counts = summarise(rows, bucket_of=lambda _: "x").columns["price"]
    assert (len(counts.items), counts.num_others) == (12, 8)


def test_charts_escape_what_files_say() -> None:
    page = statistics_html(summarise([make_row("1", attributes={"<b>": "<img onerror=x>"})], bucket_of=lambda _: "x"))
    assert "<img" not in page
    assert "<b>" not in page
    assert "&lt;img onerror=x&gt;" in page


def test_a_chart_says_its_numbers() -> None:
    page = bars("size", [("a", 10), ("b", 5)])
    assert "width:100.0%" in page
    assert "width:50.0%" in page
    assert ">10<" in page


def test_nothing_to_count_is_said() -> None:
    assert "No statistics yet" in statistics_html(summarise([], bucket_of=lambda _: ""))


def test_every_bar_finds_as_many_images_as_it_counts() -> None:
    rows = [
        make_row(
            f"{number}.png",
            "shoe " * (number % 15) + ("none" if number % 2 else "Boots"),
            attributes={"colour": "red" if number % 3 else ""},
            facts=make_facts(width=512 + number % 2, brightness=number / 40, border_whiteness=1 - number / 40),
            excluded=number == 7,
        )
        for number in range(40)
    ]

    def bucket_of(row: DatasetRow) -> str:
        return "512 × 512" if row.key < "2" else "512 × 640"

    page = statistics_html(summarise(rows, bucket_of=bucket_of))
    found = re.findall(r'data-facet="([^"]*)".*?class="number">([^<]*)<', page)
    names = set()
    for sent, number in found:
        (facet,) = read_facets(f"[{html.unescape(sent)}]")
        names.add(facet.name)
        query = DatasetQuery(facets=(facet,), per_page=500)
        assert len(find_rows(rows, query, bucket_of=bucket_of)) == int(number), facet
    assert names == set(FACET_TITLES)
    assert '<button type="button" title="Show these images">none</button>' in page, "a word like any other"
