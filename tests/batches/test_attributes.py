"""The box of columns."""

import pytest

from studio.batches.columns import parse_attributes
from studio.core.errors import BatchError


def test_values_are_separated_by_commas_and_trimmed() -> None:
    (column,) = parse_attributes("colour:  black,brown , off white ")
    assert column.name == "colour"
    assert column.values == ("black", "brown", "off white")
    assert column.quotas == ()


def test_a_weight_stands_before_two_colons() -> None:
    (column,) = parse_attributes("colour: black, 2::brown, 0.5::white")
    assert column.values == ("black", "brown", "white")
    assert column.weights == (1, 2, 0.5)


def test_a_quota_stands_behind_an_equals_sign() -> None:
    (column,) = parse_attributes("type: boot = 200, sandal=100")
    assert column.values == ("boot", "sandal")
    assert column.quotas == (200, 100)


def test_quotes_keep_commas_colons_and_quotes() -> None:
    (column,) = parse_attributes('text: "red, worn", 2::"a = b", "5"" heel", ""')
    assert column.values == ("red, worn", "a = b", '5" heel', "")
    assert column.weights == (1, 2, 1, 1)


def test_empty_lines_and_comments_are_no_columns() -> None:
    assert [column.name for column in parse_attributes("\n# shoes\ncolour: red\n\n  # type: x\n")] == ["colour"]


def test_columns_keep_the_order_of_the_box() -> None:
    assert [column.name for column in parse_attributes("type: a\ncolour: b\nage: c")] == ["type", "colour", "age"]


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("colour black", r"attributes line 1 must be a column's name, a colon, and values .* got 'colour black'"),
        ("a: b\ncolour:", r"attributes line 2 must be a column's name"),
        ("9: b", r"attributes line 1 must be a column's name"),
        ("prompt: a, b", r"attributes line 1: a column cannot be called prompt"),
        ("colour: red, red", r"attributes line 1, colour has the value 'red' twice\. .*2::red"),
        ("colour: red,, blue", r"attributes line 1, colour has an empty value"),
        ("colour: red, ", r"attributes line 1, colour has an empty value"),
        ("colour: x::red", r"attributes line 1, colour: a weight must be a number above 0, got 'x'"),
        ("colour: 0::red", r"a weight must be a number above 0, got '0'"),
        ("colour: nan::red", r"a weight must be a number above 0, got 'nan'"),
        ("colour: red = many", r"attributes line 1, colour: the quota of 'red' must be a whole number .* got 'many'"),
        ("colour: red = 0", r"the quota of 'red' must be a whole number from 1 on, got '0'"),
        ("colour: 2::red = 5", r"colour: 'red' has a weight and a quota"),
        ("colour: red = 5, blue, green", r"a quota for every value or for none; missing: 'blue', 'green'"),
        ('colour: "red, blue', r"attributes line 1, colour has a quote that is not closed"),
        ('colour: "red" shoe', r"a value is `black`, `2::black` or `black = 200`, got '\"red\" shoe'"),
        ("a: x = 5\nb: y = 6", r"the quotas of all columns must have one sum.*got a 5, b 6"),
        ("a: x\na: y", r"The columns 'a' and 'a' mean the same"),
        ("steps: 5\nnum_inference_steps: 6", r"'steps' and 'num_inference_steps' mean the same"),
    ],
)
def test_what_is_wrong_in_the_box_is_said_with_its_line(box: str, message: str) -> None:
    with pytest.raises(BatchError, match=message):
        parse_attributes(box)
