"""Votes in the blind comparison: which side was preferred, kept beside the LoRAs, and counted."""

import json
import math
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from studio.core.errors import LoraError
from studio.core.files import read_file, write_atomically
from studio.core.language import _
from studio.core.records import Record

Winner = Literal["left", "right", "neither"]
CONFIDENCE_Z = 1.96  # 95 %


class Vote(Record):
    """One look at one pair. `left` and `right` are the sides' names in the comparison, as `white-ground 0.8`."""

    left: str
    right: str
    winner: Winner
    prompt: str
    seed: int
    voted_at: datetime


_VOTES: TypeAdapter[tuple[Vote, ...]] = TypeAdapter(tuple[Vote, ...])


class VoteCount(Record):
    """How the votes between two sides stand."""

    left: str
    right: str
    num_left: int
    num_right: int
    num_neither: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the right side's share of the decided votes; None before the first.

        Wilson's score interval (1927), which holds for few votes too.
        """
        decided = self.num_left + self.num_right
        if decided == 0:
            return None
        share, z2 = self.num_right / decided, CONFIDENCE_Z**2
        middle = share + z2 / (2 * decided)
        spread = CONFIDENCE_Z * math.sqrt(share * (1 - share) / decided + z2 / (4 * decided**2))
        low, high = (middle - spread) / (1 + z2 / decided), (middle + spread) / (1 + z2 / decided)
        return max(0.0, low), min(1.0, high)

    @property
    def sentence(self) -> str:
        """The count, the interval, and what it allows to say."""
        if self.interval is None:
            return _("No decided vote yet between {left} and {right}.", left=self.left, right=self.right)
        low, high = self.interval
        verdict = _("not decided yet")
        if low > 0.5 or high < 0.5:
            verdict = _("{side} is preferred", side=self.right if low > 0.5 else self.left)
        return _(
            "{right}: {num_right}, {left}: {num_left}, no difference: {num_neither}. "
            "{right} wins {low:.0f} to {high:.0f}% of decided votes (95% confidence): {verdict}.",
            right=self.right,
            num_right=self.num_right,
            left=self.left,
            num_left=self.num_left,
            num_neither=self.num_neither,
            low=100 * low,
            high=100 * high,
            verdict=verdict,
        )


def votes_file(folder: Path, lora: str) -> Path:
    """Where the votes of a LoRA lie: beside the LoRAs that users add, for shipped ones too."""
    return folder / f"{Path(lora).name}.votes.json"


def read_votes(folder: Path, lora: str) -> tuple[Vote, ...]:
    """All votes of a LoRA, oldest first.

    Raises:
        LoraError: where the file cannot be read.
    """
    path = votes_file(folder, lora)
    if not path.is_file():
        return ()
    try:
        return _VOTES.validate_json(read_file(path))
    except (OSError, ValidationError) as error:
        raise LoraError(
            _("The votes in {path} cannot be read. Move the file away to start again.", path=path)
        ) from error


def add_vote(folder: Path, lora: str, vote: Vote) -> tuple[Vote, ...]:
    """Keep one more vote.

    Raises:
        LoraError: where the votes before it cannot be read: they are not overwritten.
        OSError: where it cannot be written.
    """
    votes = (*read_votes(folder, lora), vote)
    text = json.dumps(_VOTES.dump_python(votes, mode="json"), indent=1)
    write_atomically(votes_file(folder, lora), text.encode())
    return votes


def count_votes(votes: Iterable[Vote], *, left: str, right: str) -> VoteCount:
    """Count the votes between two sides."""
    winners = [vote.winner for vote in votes if (vote.left, vote.right) == (left, right)]
    return VoteCount(
        left=left,
        right=right,
        num_left=winners.count("left"),
        num_right=winners.count("right"),
        num_neither=winners.count("neither"),
    )


def rename_in_votes(folder: Path, lora: str, before: str) -> None:
    """Have the votes of a LoRA, which is one of their sides, call it as it is called now.

    Raises:
        OSError: where they cannot be written.
    """

    def side(words: str) -> str:
        parts = [part.partition(before) for part in words.split(" + ")]
        return " + ".join(
            lora + rest if not head and mark and _is_strength(rest) else head + mark + rest
            for head, mark, rest in parts
        )

    try:
        votes = read_votes(folder, lora)
    except LoraError:  # they stay as they are, and whoever asks for them says so
        return
    if votes:
        renamed = [vote.model_copy(update={"left": side(vote.left), "right": side(vote.right)}) for vote in votes]
        text = json.dumps(_VOTES.dump_python(tuple(renamed), mode="json"), indent=1)
        write_atomically(votes_file(folder, lora), text.encode())


def _is_strength(rest: str) -> bool:
    """What may follow a LoRA's name in that of a side: nothing, or a strength."""
    try:
        return not rest or (rest[0] == " " and math.isfinite(float(rest)))
    except ValueError:
        return False
