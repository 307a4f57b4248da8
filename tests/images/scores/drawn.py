"""Pictures whose scores are known: an ellipse of a colour, at a place, on a ground."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

GROUNDS = ("white", "grey", "gradient", "wood", "grass", "street")
Picture = NDArray[np.uint8]


def ground(name: str, side: int) -> Picture:
    """A ground of side × side pixels; its pattern follows the side, its noise does not."""
    noise = np.random.default_rng(7)
    y = np.linspace(0, 1, side)[:, None, None]
    x = np.linspace(0, 1, side)[None, :, None]
    flat = np.ones((side, side, 3))
    if name == "white":
        pixels = flat * 255
    elif name == "grey":
        pixels = flat * 140 + noise.normal(0, 3, (side, side, 1))
    elif name == "gradient":
        pixels = flat * [170, 180, 200] * (1.2 - 0.4 * ((x - 0.5) ** 2 + (y - 0.5) ** 2)) - 30 * y
    elif name == "wood":
        pixels = flat * [150, 104, 66] * (1 + 0.08 * np.sin(x * 40 + 2 * np.sin(y * 9)))
        pixels[(np.arange(side) * 5 // side) % 2 == 1] *= 0.88
        pixels += noise.normal(0, 3, (side, side, 1))
    elif name == "grass":
        pixels = flat * [78, 128, 56] * (0.8 + 0.4 * y) + noise.normal(0, 8, (side, side, 1))
    else:
        pixels = flat * [92, 92, 96] * (1.3 - 0.5 * y) + noise.normal(0, 3, (side, side, 1))
        pixels[: side // 3] = [150, 160, 172]
    return np.clip(pixels, 0, 255).astype(np.uint8)


def draw(
    ground_name: str = "white",
    *,
    side: int = 128,
    colour: tuple[int, int, int] = (190, 36, 40),
    at: tuple[float, float] = (0.5, 0.5),
    radii: tuple[float, float] = (0.28, 0.16),
    shaded: bool = True,
    blur: float = 0,
) -> Picture:
    """An ellipse, lit from above; `at` and `radii` are shares of the side, `blur` is in pixels."""
    big = side * 4
    mask = Image.new("L", (big, big), 0)
    box = [(c - r) * big for c, r in zip(at, radii, strict=True)] + [
        (c + r) * big for c, r in zip(at, radii, strict=True)
    ]
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    cover = np.asarray(mask.resize((side, side), Image.Resampling.BOX), np.float64)[:, :, None] / 255
    light = np.linspace(at[1] + radii[1], at[1] - radii[1], 2)
    y = np.linspace(0, 1, side)[:, None, None]
    share = np.clip((y - light[1]) / (light[0] - light[1]), 0, 1)
    body = np.clip(np.array(colour) * (1.2 - 0.45 * share if shaded else np.ones_like(share)), 0, 255)
    pixels = ground(ground_name, side) * (1 - cover) + body * cover
    image = Image.fromarray(np.rint(pixels).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(blur)) if blur else image)


def enlarged(picture: Picture, side: int) -> Picture:
    """The same image at another size."""
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
