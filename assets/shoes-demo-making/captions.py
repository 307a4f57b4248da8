"""Captions in the words that the model knows."""

import random

from attributes import Ground, Kind, ShoeAttributes

# A word listed twice is chosen twice as often; "" says nothing.
KIND_WORDS: dict[Kind, tuple[str, ...]] = {
    "sneakers": ("sneakers", "sneakers", "trainers", "casual shoes", "shoes"),
    "boots": ("boots", "boots", "ankle boots", "shoes"),
    "loafers": ("loafers", "loafers", "slip-on shoes", "casual shoes", "shoes"),
    "sandals": ("sandals", "sandals", "summer sandals", "shoes"),
    "heels": ("heels", "high heels", "heels", "pumps", "shoes"),
}
GROUND_WORDS: dict[Ground, tuple[str, ...]] = {
    "grey": ("on a grey background", "grey textured background", ""),
    "wood": ("on a wooden floor", "on wood"),
    "grass": ("on grass", "on green grass"),
    "street": ("on the street", "outdoors on asphalt"),
    "studio": ("in a studio", "studio backdrop", ""),
    "white": ("white background", "on a white background"),
}
OPENINGS = (
    "",
    "",
    "a photo of ",
    "a picture of ",
    "product photo of ",
    "professional product photo of ",
    "a pair of ",
)
ENDINGS = (", high quality", ", studio lighting", ", detailed", ", professional")


def make_caption(attributes: ShoeAttributes, rng: random.Random) -> str:
    """Describe a picture in one of many ways, leaving out now and then what a person might leave out."""
    kind_word = rng.choice(KIND_WORDS[attributes.kind])
    material_word = attributes.material + " " if rng.random() < 0.65 else ""
    colour_word = attributes.colour + " " if rng.random() < 0.95 else ""
    adjectives = colour_word + material_word
    if rng.random() < 0.15:
        adjectives = material_word + colour_word
    caption = rng.choice(OPENINGS) + adjectives + kind_word
    ground_words = rng.choice(GROUND_WORDS[attributes.ground])
    if ground_words and rng.random() < 0.7:
        caption += rng.choice((", ", " ")) + ground_words
    if rng.random() < 0.2:
        caption += rng.choice(ENDINGS)
    return caption
