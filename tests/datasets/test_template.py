"""Captions from columns: missing values leave no gap, and a template reaches nothing but columns."""

import pytest

from studio.core.errors import DatasetError
from studio.datasets.rows import check_template, columns_of, fill_template

ROW = {"colour": "red", "type": "Casual Shoes", "usage": "", "season": "NA", "odd": "{colour}", "a b": "x"}


@pytest.mark.parametrize(
    ("template", "caption"),
    [
        ("{colour} {type}", "red Casual Shoes"),
        ("{colour} {usage} {type}", "red Casual Shoes"),
        ("{usage} {colour}", "red"),
        ("{type}, {usage}, {season}, {colour}", "Casual Shoes, red"),
        ("{usage}, {colour}, {season}", "red"),
        ("{type} ({usage}), {colour}", "Casual Shoes, red"),
        ("{type} ({usage}, {colour})", "Casual Shoes (red)"),
        ("{type} [{season}]", "Casual Shoes"),
        ("{type} , {colour} .", "Casual Shoes, red."),
        ("photo of {colour} {usage}, white background", "photo of red, white background"),
        ("{usage}{season}", ""),
        ("{{{colour}}}", "{red}"),
        ("{odd}", "{colour}"),
        ("{ colour }", "red"),
        ("{a b}", "x"),
        ("plain", "plain"),
    ],
)
def test_what_is_missing_leaves_no_gap(template: str, caption: str) -> None:
    assert fill_template(template, ROW) == caption


@pytest.mark.parametrize("template", ["{colour.__class__}", "{colour[0]}", "{0}", "{colour!r}", "{colour:>10}", "{}"])
def test_a_template_reaches_nothing_but_columns(template: str) -> None:
    with pytest.raises(DatasetError, match="not there"):
        fill_template(template, ROW)


def test_an_unknown_column_is_named_with_those_there_are() -> None:
    with pytest.raises(DatasetError, match=r"'price'.*colour, type"):
        check_template("{price}", ("colour", "type"))


@pytest.mark.parametrize("template", ["{colour", "colour}", "{a{b}}"])
def test_a_lone_brace_is_said_with_its_place(template: str) -> None:
    with pytest.raises(DatasetError, match="single"):
        columns_of(template)


def test_columns_come_in_order_and_once() -> None:
    assert columns_of("{b} {a} {b} {{c}}") == ("b", "a")
