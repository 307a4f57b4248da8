"""The scores of many images in a few numbers and sentences. Light: the page reads them.

From the scores of single images to those of a set.
"""

from collections.abc import Iterable
from typing import Literal

from studio.core.records import Record
from studio.core.text import counted

Likeness = Literal["as a copy", "close", "of its own"]

WHITE_SHARE = 0.95
"""Of the border: from here on a ground is white."""
CENTRED_OFFSET = 0.1
"""Of the shorter side: up to here a subject stands in the middle, by its centroid or by its bounding box."""


class Spread(Record):
    """Numbers in short; `count` of them, at least one."""

    mean: float
    median: float
    low: float
    high: float
    count: int


class ScoreSummary(Record):
    """The scores of a set of images.

    Attributes:
        whiteness: share of white border pixels; `num_white` images have at least 0.95.
        offset: of the subject's centroid, as a share of the shorter side; `num_centred` have at most 0.1,
            of the centroid or of the bounding box.
        num_without_subject: where no subject can be told from the ground.
        colour_difference: CIEDE2000 (2:1:1) to the word; `num_named_right` subjects are nearest to the asked word.
        sharpness: 0 to 1.
        nearest: distance to the nearest training image; how many are `as a copy` and `close`.
    """

    num_pictures: int
    whiteness: Spread | None
    num_white: int
    offset: Spread | None
    num_centred: int
    num_without_subject: int
    colour_difference: Spread | None
    num_named_right: int
    sharpness: Spread | None
    nearest: Spread | None
    num_copies: int
    num_close: int

    @property
    def named_right(self) -> float | None:
        """The share of the subjects with a colour word whose colour has the right name."""
        return None if self.colour_difference is None else self.num_named_right / self.colour_difference.count

    @property
    def copies(self) -> float | None:
        """The share of images that are as a copy of a training image; None where that was not looked for."""
        return None if self.nearest is None else self.num_copies / self.nearest.count

    @property
    def sentences(self) -> tuple[str, ...]:
        """What was found, a sentence for each score."""
        if not self.num_pictures:
            return ("There is no image to score.",)
        return tuple(filter(None, (self._of_ground(), *self._of_place(), self._of_colour(), *self._of_rest())))

    def _of_ground(self) -> str:
        assert self.whiteness is not None
        return (
            f"White backgrounds: {self.num_white:,} of {counted(self.num_pictures, 'image')}; "
            f"{self.whiteness.mean:.0%} of the border is white on average."
        )

    def _of_place(self) -> Iterable[str]:
        if self.offset is not None:
            yield (
                f"In the middle: {self.num_centred:,} of {counted(self.offset.count, 'subject')}; the median centroid "
                f"is {self.offset.median:.1%} of the shorter side away from it."
            )
        if self.num_without_subject:
            yield f"No subject can be told from the background in {counted(self.num_without_subject, 'image')}."

    def _of_colour(self) -> str:
        if self.colour_difference is None:
            return "No prompt names a colour for its subject, or no subject was found: colours were not compared."
        return (
            f"The asked colour: {self.num_named_right:,} of {counted(self.colour_difference.count, 'subject')} are "
            f"nearest to it; the median difference is {self.colour_difference.median:.1f} ΔE."
        )

    def _of_rest(self) -> Iterable[str]:
        if self.sharpness is not None:
            yield f"Sharpness: {self.sharpness.median:.2f} (median)."
        if self.nearest is not None:
            yield (
                f"Training images: {self.num_copies:,} as a copy, {self.num_close:,} close, "
                f"{self.nearest.count - self.num_copies - self.num_close:,} of their own; the median distance is "
                f"{self.nearest.median:.2f} (0 is a copy, 1 are two images at random)."
            )
