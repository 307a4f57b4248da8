"""All scores of one picture."""

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from studio.results import Fact
from studio.scoring.border import Border, measure_border
from studio.scoring.colour import ColourScore, score_colour, subject_colour
from studio.scoring.descriptors import describe
from studio.scoring.nearest import NearestIndex, NearestPicture
from studio.scoring.prompt_colour import asked_colours
from studio.scoring.sharpness import measure_sharpness
from studio.scoring.subject import Centring, Subject, find_subject, measure_centring
from studio.scoring.working import WorkingPicture, make_working

NO_COLOUR_WORD = "The prompt names no colour for its subject."
MIN_SIDE = 16


class PictureScores(Fact):
    """What was measured of a picture; docs/scores.md says how, and within which bounds it can be trusted.

    Attributes:
        border: how white the ground is at the border.
        centring: where the subject stands; None where there is none, and `no_subject` says why.
        subject_share: of the picture's pixels; None without a subject.
        colour: the subject's beside the prompt's; None where there is none, and `no_colour` says why.
        sharpness: 0 to 1, to be compared between pictures of one size; None for one flat colour.
        nearest: the nearest training picture; None where none were given.
    """

    border: Border
    centring: Centring | None
    subject_share: Annotated[float, Field(ge=0, le=1)] | None
    no_subject: str
    colour: ColourScore | None
    no_colour: str
    sharpness: Annotated[float, Field(ge=0, le=1)] | None
    nearest: NearestPicture | None


def score_picture(
    picture_HWC: NDArray[np.uint8], *, prompt: str = "", nearest: NearestIndex | None = None
) -> PictureScores:
    """Measure a uint8 RGB picture, at least 16 pixels high and wide.

    Args:
        prompt: what it was asked to show; its subject's colour word is compared, if it has one.
        nearest: the training pictures, where memorising is to be seen.
    """
    assert picture_HWC.dtype == np.uint8
    assert picture_HWC.ndim == 3
    assert picture_HWC.shape[2] == 3
    assert min(picture_HWC.shape[:2]) >= MIN_SIDE
    working = make_working(picture_HWC)
    subject = find_subject(working)
    mask_HW = subject.mask_HW
    colour, no_colour = _colour(working, subject, prompt)
    return PictureScores(
        border=measure_border(picture_HWC),
        centring=None if mask_HW is None else measure_centring(mask_HW),
        subject_share=None if mask_HW is None else float(mask_HW.mean()),
        no_subject=subject.reason,
        colour=colour,
        no_colour=no_colour,
        sharpness=measure_sharpness(picture_HWC),
        nearest=None if nearest is None else nearest.find(describe(working, subject)),
    )


def _colour(working: WorkingPicture, subject: Subject, prompt: str) -> tuple[ColourScore | None, str]:
    asked = asked_colours(prompt)
    if not asked:
        return None, NO_COLOUR_WORD
    if subject.material_HW is None:
        return None, subject.reason
    return score_colour(subject_colour(working.lab_HWC, subject.material_HW), asked), ""
