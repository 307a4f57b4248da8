"""From the scores of single pictures to those of a set."""

from collections.abc import Sequence

import numpy as np

from studio.scoring.picture import PictureScores
from studio.scoring.summary import CENTRED_OFFSET, WHITE_SHARE, ScoreSummary, Spread


def summarise_scores(scores: Sequence[PictureScores]) -> ScoreSummary:
    """Means, medians and counts; all zero and None of no pictures."""
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
