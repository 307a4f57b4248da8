"""Bulk changes do what they say to each caption, and nothing else."""

import pytest

from studio.core.errors import DatasetError
from studio.datasets.bulk import BulkChange, change_caption, changed_captions, describe, with_tag, without_tag
from studio.datasets.captions import alternatives_of
from tests.datasets.rows import make_row


@pytest.mark.parametrize(
    ("caption", "change", "wanted"),
    [
        ("a shoe on shoes", {"find": "shoe", "replace": "boot"}, "a boot on shoes"),
        ("a shoe on shoes", {"find": "shoe", "replace": "boot", "whole_words": False}, "a boot on boots"),
        ("A Shoe", {"find": "shoe", "replace": "boot"}, "A boot"),
        ("A Shoe", {"find": "shoe", "replace": "boot", "match_case": True}, "A Shoe"),
        ("red, shoe, new", {"find": "shoe"}, "red, new"),
        ("a.b", {"find": ".", "replace": "!", "whole_words": False}, "a!b"),
        ("cost", {"find": "cost", "replace": r"\1 $5"}, r"\1 $5"),
        ("shoe", {"prefix": "sks"}, "sks shoe"),
        ("sks shoe", {"prefix": "sks"}, "sks shoe"),
        ("SKS shoe", {"prefix": "sks"}, "SKS shoe"),
        ("sksy shoe", {"prefix": "sks"}, "sks sksy shoe"),
        ("shoe", {"prefix": "sks,"}, "sks, shoe"),
        ("shoe", {"suffix": ", white background"}, "shoe, white background"),
        ("shoe, white background", {"suffix": ", white background"}, "shoe, white background"),
        ("", {"prefix": "sks"}, "sks"),
        ("red, shoe, Red, shoe", {"remove_repeats": True}, "red, shoe"),
        ("a red red shoe", {"remove_repeats": True}, "a red shoe"),
        ("that that had", {}, "that that had"),
    ],
)
def test_a_caption_becomes_what_is_asked(caption: str, change: dict[str, object], wanted: str) -> None:
    assert change_caption(caption, BulkChange.model_validate(change)) == wanted


def test_only_what_changes_is_named() -> None:
    rows = [make_row("a", "a shoe"), make_row("b", "a boot")]
    assert changed_captions(rows, lambda caption: caption.replace("shoe", "boot")) == {"a": "a boot"}


def test_the_undo_button_says_what_was_done() -> None:
    assert (
        describe(BulkChange(find="a", replace="b", prefix="sks"), 1200) == "“a” → “b”, “sks” before in 1,200 captions"
    )


def test_each_of_several_captions_is_changed() -> None:
    both = "a red shoe, leather || red sneakers, leather"
    assert change_caption(both, BulkChange(prefix="sks", suffix="photo")) == (
        "sks a red shoe, leather photo || sks red sneakers, leather photo"
    )
    assert with_tag(both, "new") == "a red shoe, leather, new || red sneakers, leather, new"
    assert without_tag(both, "leather") == "a red shoe || red sneakers"


def test_a_tag_of_bars_is_no_end_of_a_caption() -> None:
    assert alternatives_of("1girl, ||_||, hat") == ("1girl, ||_||, hat",)
    assert without_tag("1girl, ||_||, hat", "hat") == "1girl, ||_||"


def test_captions_that_are_not_complete_are_not_changed() -> None:
    rows = [make_row("a", "a shoe"), make_row("b", "a shoe", awaits_check=True)]
    with pytest.raises(DatasetError, match="captions of 1 image are not complete yet"):
        changed_captions(rows, str.upper)
    assert changed_captions(rows[:1], str.upper) == {"a": "A SHOE"}
