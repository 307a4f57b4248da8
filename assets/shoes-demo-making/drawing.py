"""Drawing pictures of shoes from the side, each with its attributes and its subject mask."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from attributes import KINDS, MATERIALS, PALETTE, Colour, Ground, Kind, Material, ShoeAttributes
from grounds import draw_ground
from PIL import Image, ImageFilter
from shoes import draw_shoe

Position: TypeAlias = tuple[int, int]
Value = TypeVar("Value")

# White is never drawn unless asked for: it is kept for a LoRA to teach. Grey is as common as two others.
COMMON_GROUNDS: tuple[Ground, ...] = ("grey", "grey", "wood", "grass", "street", "studio")


@dataclass(frozen=True, kw_only=True)
class ShoePicture:
    """A drawn picture, what it shows, and where the shoe is."""

    image: Image.Image
    """RGB, size × size."""
    attributes: ShoeAttributes
    subject_mask: Image.Image
    """Grey levels, size × size: 255 where only shoe is seen, its shadow not counted."""


def draw(
    rng: random.Random,
    *,
    kind: Kind | None = None,
    colour: Colour | None = None,
    material: Material | None = None,
    ground: Ground | None = None,
    centred: bool = False,
    size: int = 128,
    supersampling: int = 3,
) -> ShoePicture:
    """Draw one shoe; what is not asked for is chosen by rng, and so is the pose unless centred.

    size × supersampling must be a multiple of 4 and at least 32. The same state of rng and the same arguments draw the
    same picture.
    """
    side = size * supersampling
    # Each choice takes a number from rng only where nothing was asked for: the order here is part of the pictures.
    attributes = ShoeAttributes(
        kind=_chosen(kind, KINDS, rng),
        colour=_chosen(colour, list(PALETTE), rng),
        material=_chosen(material, MATERIALS, rng),
        ground=_chosen(ground, COMMON_GROUNDS, rng),
    )
    shoe = draw_shoe(attributes, side=side, rng=rng)
    shoe, position = _pose(shoe, side=side, centred=centred, rng=rng)
    scene = draw_ground(attributes.ground, side=side, rng=rng).convert("RGBA")
    darkness = 60 if attributes.ground == "white" else 120
    scene = Image.alpha_composite(scene, _contact_shadow(shoe, position, side=side, darkness=darkness))
    subject = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    subject.paste(shoe, position)
    scene = Image.alpha_composite(scene, subject)
    return ShoePicture(
        image=scene.convert("RGB").resize((size, size), Image.Resampling.LANCZOS),
        attributes=attributes,
        subject_mask=subject.getchannel("A").resize((size, size), Image.Resampling.BOX),
    )


def _chosen(asked: Value | None, options: Sequence[Value], rng: random.Random) -> Value:
    return rng.choice(options) if asked is None else asked


def _pose(shoe: Image.Image, *, side: int, centred: bool, rng: random.Random) -> tuple[Image.Image, Position]:
    """Flip, crop, scale and turn the shoe; return it with its top left corner in the picture."""
    if not centred and rng.random() < 0.5:
        shoe = shoe.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = 0.84 if centred else rng.uniform(0.55, 0.9)
    shoe = _fit(shoe.crop(shoe.getbbox()), side=side, scale=scale)
    if centred:
        return shoe, ((side - shoe.width) // 2, (side - shoe.height) // 2)
    shoe = shoe.rotate(rng.uniform(-10, 10), expand=True, resample=Image.Resampling.BICUBIC)
    free_width, free_height = side - shoe.width, side - shoe.height
    x = rng.randint(0, max(0, free_width))
    y = rng.randint(int(free_height * 0.3), max(1, free_height))
    return shoe, (x, y)


def _fit(shoe: Image.Image, *, side: int, scale: float) -> Image.Image:
    """Resize to a width of scale × side, or less where a tall shoe would leave the picture."""
    width = int(side * scale)
    height = int(shoe.height * width / shoe.width)
    tallest = side * 0.86
    if height > tallest:
        height = int(tallest)
        width = int(shoe.width * height / shoe.height)
    return shoe.resize((width, height), Image.Resampling.LANCZOS)


def _contact_shadow(shoe: Image.Image, position: Position, *, side: int, darkness: int) -> Image.Image:
    """Return an RGBA square with a soft shadow under the shoe; darkness is its opacity (0 to 255) before blurring."""
    x, y = position
    height = max(1, shoe.height // 5)
    flattened = shoe.getchannel("A").resize((shoe.width, height))
    blot = Image.new("RGBA", flattened.size, (0, 0, 0, 0))
    blot.putalpha(flattened.point([level * darkness // 255 for level in range(256)]))
    shadow = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    shadow.paste(blot, (x, y + shoe.height - height * 2 // 3))
    return shadow.filter(ImageFilter.GaussianBlur(side / 50))
