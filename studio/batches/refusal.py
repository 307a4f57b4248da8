"""Which pictures a batch does not take: by their scores."""

from studio.batch_settings import BatchSettings
from studio.scoring.picture import PictureScores


def refusal(scores: PictureScores, settings: BatchSettings) -> str:
    """Why a picture is not taken, in a sentence; "" where it is. A score that it does not have refuses nothing."""
    offset = scores.centring.offset if scores.centring else None
    difference = scores.colour.difference if scores.colour else None
    distance = scores.nearest.distance if scores.nearest else None
    rules = (
        ("Its border is white to", scores.border.whiteness, settings.least_whiteness, "at least"),
        ("Its sharpness is", scores.sharpness, settings.least_sharpness, "at least"),
        ("Its distance to the nearest training picture is", distance, settings.least_distance, "at least"),
        ("Its subject is off the centre by", offset, settings.most_offset, "at most"),
        ("Its colour differs from the prompt's by ΔE", difference, settings.most_colour_difference, "at most"),
    )
    for words, value, limit, side in rules:
        if value is None or limit is None:
            continue
        if (side == "at least" and value < limit) or (side == "at most" and value > limit):
            return f"{words} {value:.3g}; {side} {limit:g} is asked for."
    return ""
