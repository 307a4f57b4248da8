"""The scores of many images in a few numbers and sentences. Light: the page reads them.

From the scores of single images to those of a set.
"""

from collections.abc import Iterable
from typing import Literal

from studio.core.language import N_, _
from studio.core.records import Record
from studio.core.text import counted

Likeness = Literal["as a copy", "close", "of its own"]
LIKENESSES = (N_("as a copy"), N_("close"), N_("of its own"))
"""The same as messages: where one is shown, it is `_(likeness)`."""

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
            return (_("There is no image to score."),)
        return tuple(filter(None, (self._of_ground(), *self._of_place(), self._of_colour(), *self._of_rest())))

    def _of_ground(self) -> str:
        assert self.whiteness is not None
        return _(
            "White backgrounds: {num_white:,} of {images}; {mean:.0%} of the border is white on average.",
            num_white=self.num_white,
            images=counted(self.num_pictures, "image", "images"),
            mean=self.whiteness.mean,
        )

    def _of_place(self) -> Iterable[str]:
        if self.offset is not None:
            yield (
                _(
                    "In the middle: {num_centred:,} of {subjects}; the median centroid is {median:.1%} "
                    "of the shorter side away from it.",
                    num_centred=self.num_centred,
                    subjects=counted(self.offset.count, "subject", "subjects"),
                    median=self.offset.median,
                )
            )
        if self.num_without_subject:
            yield _(
                "No subject can be told from the background in {images}.",
                images=counted(self.num_without_subject, "image", "images"),
            )

    def _of_colour(self) -> str:
        if self.colour_difference is None:
            return _("No prompt names a colour for its subject, or no subject was found: colours were not compared.")
        return _(
            "The asked colour: {num_named_right:,} of {subjects} are nearest to it; the median "
            "difference is {median:.1f} ΔE.",
            num_named_right=self.num_named_right,
            subjects=counted(self.colour_difference.count, "subject", "subjects"),
            median=self.colour_difference.median,
        )

    def _of_rest(self) -> Iterable[str]:
        if self.sharpness is not None:
            yield _("Sharpness: {median:.2f} (median).", median=self.sharpness.median)
        if self.nearest is not None:
            yield (
                _(
                    "Training images: {num_copies:,} as a copy, {num_close:,} close, {count:,} of their "
                    "own; the median distance is {median:.2f} (0 is a copy, 1 are two images at random).",
                    num_copies=self.num_copies,
                    num_close=self.num_close,
                    count=self.nearest.count - self.num_copies - self.num_close,
                    median=self.nearest.median,
                )
            )
