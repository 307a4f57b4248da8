"""Draw pictures of shoes to train on."""

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from drawing import ShoePicture, draw
from picture_set import PictureSet, save_picture_set


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The command line of this script."""

    output: Path
    seed: int
    num_pictures: int


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line, or the given arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    parser.add_argument("--seed", type=int, default=1, help="another seed draws other pictures (default: 1)")
    parser.add_argument("--num-pictures", type=int, default=4800, help="how many (default: 4800)")
    return Settings(**vars(parser.parse_args(arguments)))


def draw_pictures(num_pictures: int, *, seed: int) -> list[ShoePicture]:
    """Draw the pictures of one seed: first a sixth of them on white, for the autoencoder only, then the others."""
    rng = random.Random(seed)
    drawn: list[ShoePicture] = []
    for index in range(num_pictures):
        # Twofold supersampling is twice as fast as draw's default and looks the same at 128 pixels.
        if index < num_pictures // 6:
            drawn.append(draw(rng, ground="white", centred=rng.random() < 0.6, supersampling=2))
        else:
            drawn.append(draw(rng, supersampling=2))
        if len(drawn) % 500 == 0:
            print(f"{len(drawn)} of {num_pictures} pictures", flush=True)
    return drawn


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw the pictures and save them."""
    settings = parse_settings(arguments)
    drawn = draw_pictures(settings.num_pictures, seed=settings.seed)
    picture_set = PictureSet(
        pictures_NHWC=np.stack([np.asarray(picture.image) for picture in drawn]),
        masks_NHW=np.stack([np.asarray(picture.subject_mask) for picture in drawn]),
        attributes=[picture.attributes for picture in drawn],
    )
    save_picture_set(settings.output, seed=settings.seed, picture_set=picture_set)
    print(f"{len(drawn)} pictures of seed {settings.seed} are in {settings.output}")


if __name__ == "__main__":
    main()
