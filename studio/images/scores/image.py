"""All scores of one image; the colours that its prompt asks for; what is seen of it, in words.

Which colour a prompt asks of its subject: not the ground's, not the laces'.

All scores of one image.

What is seen of an image in words for its caption: `MEASURED_COLUMNS`.
"""

import re
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from studio.core.language import N_, _
from studio.core.records import Record
from studio.images.scores.colour import (
    MAX_WORDS,
    ColourScore,
    name_colour,
    plain_name,
    rgb_of,
    score_colour,
    subject_colour,
)
from studio.images.scores.likeness import NearestIndex, NearestPicture, describe
from studio.images.scores.subject import (
    WHITE_LEVEL,
    Border,
    Centring,
    Mask,
    Subject,
    WorkingPicture,
    border_mask,
    find_subject,
    ground_around,
    make_working,
    measure_border,
    measure_centring,
    measure_roughness,
    measure_sharpness,
)
from studio.images.scores.summary import CENTRED_OFFSET, WHITE_SHARE, ScoreSummary, Spread


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TAG = re.compile(r"<[^<>]*>")  # <lora:white-ground:0.8>
_TOKEN = re.compile(r"[a-z]+|[,.;:|!?\n]")
_GROUNDS = _words(
    "background backgrounds backdrop backdrops ground grounds wall walls floor floors surface surfaces table desk "
    "paper seamless sky grass carpet rug sand snow street asphalt concrete cyclorama"
)
_GROUNDS_WHERE_PLACED = _words("studio room scene canvas wood light sheet cloth fabric")
"""Grounds after `on a white` or `in a white` only: canvas is what a shoe is made of, too."""
_PARTS = _words(
    "sole soles outsole outsoles midsole midsoles laces shoelaces stripe stripes straps buckle buckles trim trims logo "
    "logos detail details accent accents lining stitching stitches tongue swoosh zip zipper buttons dots shadow shadows"
)
_MADE_OF = _words("rubber gum leather canvas suede plastic metal contrast thick thin")
_ON = _words("on onto against over before upon atop")
_BETWEEN = _words(
    "a an the plain pure solid clean bright soft simple smooth empty blank uniform all textured studio photo seamless "
    "very completely isolated wooden brick marble concrete stone tiled neutral gradient blurred blurry"
)
_JOINED = frozenset(("and", "or"))


def asked_colours(prompt: str) -> tuple[str, ...]:
    """The colour words of the subject: the first that is neither a ground's nor a part's, and those joined to it.

    `red and white sneakers with black laces, white background` gives red and white; `()` where none is required.
    """
    tokens = _TOKEN.findall(_TAG.sub(" ", prompt.lower()).replace("\\n", " "))
    found: list[str] = []
    position, expected = 0, -1
    while position < len(tokens):
        length = _colour_length(tokens, position)
        if not length:
            position += 1
            continue
        end = position + length
        if not _is_ground(tokens, position, end) and not _is_part(tokens, end):
            if found and position != expected:
                break
            found.append(plain_name(" ".join(tokens[position:end])))
            expected = end + 1 if end < len(tokens) and tokens[end] in _JOINED else -1
        position = end
    return tuple(dict.fromkeys(found))


def _colour_length(tokens: Sequence[str], start: int) -> int:
    """How many tokens from here name a colour; the longest name counts."""
    for length in range(MAX_WORDS, 0, -1):
        phrase = tokens[start : start + length]
        if len(phrase) == length and rgb_of(" ".join(phrase)) is not None:
            return length
    return 0


def _is_ground(tokens: Sequence[str], start: int, end: int) -> bool:
    """`white studio background`, `on pure white`, `against a grey wall`; not `on white soles`."""
    position = _before(tokens, start)
    is_on = position >= 0 and (
        tokens[position] in _ON or tokens[max(0, position - 1) : position + 1] == ["front", "of"]
    )
    is_placed = is_on or (position >= 0 and tokens[position] == "in")
    for token in tokens[end:]:
        if token in _GROUNDS or (is_placed and token in _GROUNDS_WHERE_PLACED):
            return True
        if token not in _BETWEEN and token not in _JOINED and rgb_of(token) is None:
            break
    return is_on and not _is_part(tokens, end)


def _before(tokens: Sequence[str], start: int) -> int:
    """Where the word stands that a colour follows, over words such as `a plain` and over other colours; -1: none."""
    position = start - 1
    while position >= 0 and (tokens[position] in _BETWEEN or tokens[position] in _JOINED or rgb_of(tokens[position])):
        position -= 1
    return position


def _is_part(tokens: Sequence[str], end: int) -> bool:
    """`white soles`, `white rubber soles`."""
    after = [token for token in tokens[end : end + 3] if token not in _MADE_OF]
    return bool(after) and after[0] in _PARTS


NO_COLOUR_WORD = N_("The prompt names no colour for its subject.")
MIN_SIDE = 16


class PictureScores(Record):
    """What was measured of an image; docs/scores.md says how, and within which bounds it can be trusted.

    Attributes:
        border: how white the ground is at the border.
        centring: where the subject stands; None where there is none, and `no_subject` says why.
        subject_share: of the image's pixels; None without a subject.
        colour: the subject's beside the prompt's; None where there is none, and `no_colour` says why.
        sharpness: 0 to 1, to be compared between images of one size; None for one flat colour.
        nearest: the nearest training image; None where none were given.
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
    """Measure a uint8 RGB image, at least 16 pixels high and wide.

    Args:
        prompt: what it was asked to show; its subject's colour word is compared, if it has one.
        nearest: the training images, where memorising is to be seen.
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
        return None, _(NO_COLOUR_WORD)
    if subject.material_HW is None:
        return None, subject.reason
    return score_colour(subject_colour(working.lab_HWC, subject.material_HW), asked), ""


def summarise_scores(scores: Sequence[PictureScores]) -> ScoreSummary:
    """Means, medians and counts; all zero and None of no images."""
    places = [score.centring for score in scores if score.centring is not None]
    offsets = [place.offset for place in places]
    colours = [score.colour for score in scores if score.colour is not None]
    nearest = [score.nearest for score in scores if score.nearest is not None]
    return ScoreSummary(
        num_pictures=len(scores),
        whiteness=_spread([score.border.whiteness for score in scores]),
        num_white=sum(score.border.whiteness >= WHITE_SHARE for score in scores),
        offset=_spread(offsets),
        num_centred=sum(min(place.offset, place.box_offset) <= CENTRED_OFFSET for place in places),
        num_without_subject=len(scores) - len(offsets),
        colour_difference=_spread([colour.difference for colour in colours]),
        num_named_right=sum(colour.is_named_right for colour in colours),
        sharpness=_spread([score.sharpness for score in scores if score.sharpness is not None]),
        nearest=_spread([near.distance for near in nearest]),
        num_copies=sum(near.likeness == "as a copy" for near in nearest),
        num_close=sum(near.likeness == "close" for near in nearest),
    )


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(
        mean=float(np.mean(values)),
        median=float(np.median(values)),
        low=min(values),
        high=max(values),
        count=len(values),
    )


_WHITE = "white background"
SQUARE_ASPECT = 1.05
TEXTURED = 0.45
"""Roughness of a ground from which on it is called textured."""
LARGE, MEDIUM = 0.75, 0.4
"""Of the image's side, the subject's longer extent."""
NEARLY_GREY = 5.0
"""Chroma under which a light ground is grey, and not off-white."""


def measure_words(picture_HWC: NDArray[np.uint8], *, size: tuple[int, int], border_whiteness: float) -> dict[str, str]:
    """What is seen of an image, by `MEASURED_COLUMNS`: in English, as the captions that models are trained on.

    Args:
        picture_HWC: uint8 RGB; it may be smaller than the image.
        size: the image's width and height.
        border_whiteness: the share of its border that is white.
    """
    words = {"colour": "", "ground": "", "orientation": _orientation(*size), "subject_size": "", "position": ""}
    if border_whiteness >= WHITE_SHARE:
        words["ground"] = _WHITE
    if min(picture_HWC.shape[:2]) < MIN_SIDE:
        return words
    working = make_working(picture_HWC)
    subject = find_subject(working)
    if subject.mask_HW is None or subject.material_HW is None:
        return words
    words["colour"] = name_colour(subject_colour(working.lab_HWC, subject.material_HW))
    words["subject_size"] = _extent(subject.mask_HW)
    words["position"] = _position(measure_centring(subject.mask_HW))
    words["ground"] = words["ground"] or _ground(working, ground_around(subject.mask_HW))
    return words


def _orientation(width: int, height: int) -> str:
    if max(width, height) <= SQUARE_ASPECT * min(width, height):
        return "square"
    return "landscape" if width > height else "portrait"


def _extent(mask_HW: Mask) -> str:
    extents = [float(np.ptp(np.flatnonzero(mask_HW.any(axis=axis))) + 1) / mask_HW.shape[1 - axis] for axis in (0, 1)]
    extent = max(extents)
    return "large" if extent >= LARGE else "medium" if extent >= MEDIUM else "small"


def _position(place: Centring) -> str:
    if min(place.offset, place.box_offset) <= CENTRED_OFFSET:
        return "centred"
    if abs(place.dx) > abs(place.dy):
        return "on the right" if place.dx > 0 else "on the left"
    return "at the bottom" if place.dy > 0 else "at the top"


def _ground(working: WorkingPicture, ground_HW: Mask) -> str:
    """`textured grey background`. One that is nearly white is not called white: it teaches another white."""
    border_HW = ground_HW & border_mask(*ground_HW.shape)
    if not border_HW.any():
        return ""
    if float((working.rgb_HWC[border_HW].min(axis=1) >= WHITE_LEVEL).mean()) >= WHITE_SHARE:
        return _WHITE  # a subject that reaches the border is no ground
    lab_C = np.asarray(np.median(working.lab_HWC[ground_HW], axis=0), np.float32)
    colour = name_colour(lab_C)
    if colour == "white":
        colour = "light grey" if float(np.hypot(lab_C[1], lab_C[2])) < NEARLY_GREY else "off-white"
    texture = "textured " if measure_roughness(working, ground_HW) >= TEXTURED else ""
    return f"{texture}{colour} background"
