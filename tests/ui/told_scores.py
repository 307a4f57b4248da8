"""Scores as a run tells them."""

from studio.images.scores.summary import Likeness, ScoreSummary, Spread
from studio.training.events import NearestReported, ReferenceEvent, ScoreEvent


def spread(mean: float) -> Spread:
    return Spread(mean=mean, median=mean, low=mean, high=mean, count=2)


def summary(white: float, *, colour: float | None = 12.0, nearest: float | None = 1.5) -> ScoreSummary:
    """Of two images."""
    return ScoreSummary(
        num_pictures=2,
        whiteness=spread(white),
        num_white=0,
        offset=spread(0.2),
        num_centred=1,
        num_without_subject=0,
        colour_difference=None if colour is None else spread(colour),
        num_named_right=1,
        sharpness=spread(0.4),
        nearest=None if nearest is None else spread(nearest),
        num_copies=0,
        num_close=0,
    )


def score_event(step: int, white: float, *nearest: NearestReported | None, colour: float | None = 12.0) -> ScoreEvent:
    return ScoreEvent(
        step=step, scores=summary(white, colour=colour), base=summary(0.1, colour=colour), nearest=nearest
    )


def reference_event(white: float) -> ReferenceEvent:
    return ReferenceEvent(scores=summary(white, nearest=None))


def near(key: str, distance: float, *, likeness: Likeness = "of its own", mirrored: bool = False) -> NearestReported:
    return NearestReported(key=key, distance=distance, likeness=likeness, mirrored=mirrored)
