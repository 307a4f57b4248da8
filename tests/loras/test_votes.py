"""Votes are counted, kept, and never lost; the interval is Wilson's."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest

from studio.core.errors import LoraError
from studio.loras.votes import CONFIDENCE_Z, Vote, VoteCount, Winner, add_vote, count_votes, read_votes, votes_file


def vote(winner: Winner, *, left: str = "base", right: str = "x 0.8", seed: int = 1) -> Vote:
    at = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
    return Vote(left=left, right=right, winner=winner, prompt="a “shoe” é", seed=seed, voted_at=at)


def counted(num_left: int, num_right: int, num_neither: int = 0) -> VoteCount:
    return VoteCount(left="base", right="x", num_left=num_left, num_right=num_right, num_neither=num_neither)


def wilson(num_wins: int, count: int) -> tuple[float, float]:
    """The shares at which the normal test just rejects what was seen, found by bisection."""
    seen = num_wins / count

    def excess(share: float) -> float:
        return abs(seen - share) - CONFIDENCE_Z * math.sqrt(share * (1 - share) / count)

    def root(inside: float, outside: float) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if excess(middle) <= 0 else (inside, middle)
        return inside

    return root(seen, 0.0), root(seen, 1.0)


def test_votes_between_two_sides_are_counted() -> None:
    winners: Sequence[Winner] = ("left", "right", "right", "neither", "right", "neither")
    count = count_votes([vote(winner) for winner in winners], left="base", right="x 0.8")
    assert (count.num_left, count.num_right, count.num_neither) == (1, 3, 2)


def test_votes_between_other_sides_are_not_counted() -> None:
    votes = [vote("left", right="x 0.7"), vote("left", left="y"), vote("left", left="x 0.8", right="base")]
    count = count_votes(votes, left="base", right="x 0.8")
    assert (count.num_left, count.num_right, count.num_neither) == (0, 0, 0)


def test_the_interval_of_8_in_10_is_wilsons() -> None:
    assert counted(2, 8).interval == pytest.approx((0.490, 0.943), abs=0.0005)


@pytest.mark.parametrize(("num_left", "num_right"), [(0, 1), (1, 0), (3, 3), (1, 9), (30, 70), (0, 40), (999, 1)])
def test_the_interval_is_where_the_normal_test_just_rejects(num_left: int, num_right: int) -> None:
    assert counted(num_left, num_right).interval == pytest.approx(wilson(num_right, num_left + num_right), abs=1e-9)


def test_the_interval_never_leaves_0_to_1() -> None:
    for num in range(1, 300):
        for count in (counted(0, num), counted(num, 0)):
            assert count.interval is not None
            assert 0 <= count.interval[0] < count.interval[1] <= 1


def test_undecided_votes_do_not_change_the_interval() -> None:
    assert counted(2, 8, 50).interval == counted(2, 8).interval


def test_before_the_first_decided_vote_there_is_no_interval() -> None:
    assert counted(0, 0, 5).interval is None


def test_before_the_first_decided_vote_the_sentence_says_so() -> None:
    assert counted(0, 0, 5).sentence == "No decided vote yet between base and x."


def test_few_votes_do_not_decide() -> None:
    assert counted(2, 8, 1).sentence == (
        "x: 8, base: 2, no difference: 1. x wins 49 to 94% of decided votes (95% confidence): not decided yet."
    )


def test_enough_votes_for_the_right_decide() -> None:
    assert counted(1, 9).sentence.endswith(": x is preferred.")


def test_enough_votes_for_the_left_decide() -> None:
    assert counted(9, 1).sentence.endswith(": base is preferred.")


def test_before_the_first_vote_there_are_none(tmp_path: Path) -> None:
    assert read_votes(tmp_path / "nowhere", "x") == ()


def test_votes_survive_in_order(tmp_path: Path) -> None:
    votes = (vote("left"), vote("neither", seed=2**63 - 1), vote("right", left="y"))
    for one in votes:
        add_vote(tmp_path / "loras", "x", one)
    assert read_votes(tmp_path / "loras", "x") == votes


def test_adding_a_vote_answers_all_of_them(tmp_path: Path) -> None:
    add_vote(tmp_path, "x", vote("left"))
    assert add_vote(tmp_path, "x", vote("right")) == (vote("left"), vote("right"))


def test_every_lora_has_its_own_votes(tmp_path: Path) -> None:
    add_vote(tmp_path, "x", vote("left"))
    add_vote(tmp_path, "x.v2", vote("right"))
    assert read_votes(tmp_path, "x") == (vote("left"),)


def test_votes_of_a_file_elsewhere_lie_in_the_folder_too(tmp_path: Path) -> None:
    assert votes_file(tmp_path, "/elsewhere/x.safetensors").parent == tmp_path


DAMAGED = [b"", b"{", b"{}", b"[1]", b'[{"left": "base"}]', b"\xff\xfe", b"null"]


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_votes_are_said_to_be_so(tmp_path: Path, content: bytes) -> None:
    votes_file(tmp_path, "x").write_bytes(content)
    with pytest.raises(LoraError, match=r"x\.votes\.json cannot be read\. Move the file away"):
        read_votes(tmp_path, "x")


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_votes_are_not_overwritten(tmp_path: Path, content: bytes) -> None:
    votes_file(tmp_path, "x").write_bytes(content)
    with pytest.raises(LoraError, match="cannot be read"):
        add_vote(tmp_path, "x", vote("left"))
    assert votes_file(tmp_path, "x").read_bytes() == content


def test_votes_of_another_version_are_not_overwritten(tmp_path: Path) -> None:
    add_vote(tmp_path, "x", vote("left"))
    path = votes_file(tmp_path, "x")
    newer = path.read_text().replace('"seed"', '"mood": "good", "seed"')
    path.write_text(newer)
    with pytest.raises(LoraError, match="cannot be read"):
        add_vote(tmp_path, "x", vote("right"))
    assert path.read_text() == newer
