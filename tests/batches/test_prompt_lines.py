"""One prompt a line, with sd-scripts' options."""

import pytest

from studio.batches.rows import read_lines
from studio.core.errors import BatchError


def only_line(text: str) -> tuple[str, dict[str, str]]:
    (row,) = read_lines([text], 0, "prompts")
    return row.prompt, row.options


def test_options_at_the_end_are_settings() -> None:
    prompt, options = only_line("a red shoe --w 512 --h 384 --d 7 --l 7.5 --s 20 --n blurry, bad")
    assert prompt == "a red shoe"
    assert options == {
        "width": "512",
        "height": "384",
        "seed": "7",
        "guidance_scale": "7.5",
        "num_inference_steps": "20",
        "negative_prompt": "blurry, bad",
    }


def test_the_negative_prompt_ends_at_the_next_option() -> None:
    assert only_line("a shoe --n blurry, bad hands --w 64") == (
        "a shoe",
        {"negative_prompt": "blurry, bad hands", "width": "64"},
    )


def test_dashes_that_begin_no_option_are_text() -> None:
    assert only_line("a well-made shoe -- and a boot, x--w 5") == ("a well-made shoe -- and a boot, x--w 5", {})


def test_comments_and_empty_lines_are_left_out_and_the_others_keep_their_numbers() -> None:
    rows = list(read_lines(["# shoes", "", "a", "  # b", "c #1"], 0, "prompts"))
    assert [(row.number, row.prompt) for row in rows] == [(3, "a"), (5, "c #1")]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a shoe --am 1", r"p\.txt line 1: --am is no option here\. Available: --w \(width\), .*leave it out"),
        ("a shoe --w 1 --w 2", r"p\.txt line 1 has --w twice"),
        ("a shoe --w", r"p\.txt line 1: --w \(width\) needs a value behind it"),
        ("--w 64", r"p\.txt line 1 has no prompt, only options"),
        ("a\0b", r"p\.txt line 1 is no prompt: it holds a zero byte"),
    ],
)
def test_what_is_wrong_in_a_line_is_said_with_its_number(line: str, message: str) -> None:
    with pytest.raises(BatchError, match=message):
        list(read_lines([line], 0, "p.txt"))
