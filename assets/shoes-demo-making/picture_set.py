"""Drawn pictures, their masks and their attributes, kept in a folder: three files for each seed."""

# Upper-case endings of names are shapes: N pictures, B of them in a batch, C channels, H × W.

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from attributes import ShoeAttributes
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class PictureSet:
    """N square pictures in the order they were drawn."""

    pictures_NHWC: NDArray[np.uint8]
    masks_NHW: NDArray[np.uint8]
    """255 where only shoe is seen."""
    attributes: list[ShoeAttributes]


def save_picture_set(folder: Path, *, seed: int, picture_set: PictureSet) -> None:
    """Write the pictures drawn from one seed; pictures of other seeds in the folder stay."""
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"pictures-{seed}.npy", picture_set.pictures_NHWC)
    np.save(folder / f"masks-{seed}.npy", picture_set.masks_NHW)
    save_attributes(folder / f"attributes-{seed}.json", picture_set.attributes)


def load_picture_set(folder: Path) -> PictureSet:
    """Read the pictures of every seed, lower seeds first.

    Raises:
        FileNotFoundError: the folder holds no drawn pictures.
    """
    seeds = _find_seeds(folder)
    return PictureSet(
        pictures_NHWC=np.concatenate([np.load(folder / f"pictures-{seed}.npy") for seed in seeds]),
        masks_NHW=np.concatenate([np.load(folder / f"masks-{seed}.npy") for seed in seeds]),
        attributes=load_picture_attributes(folder),
    )


def load_picture_attributes(folder: Path) -> list[ShoeAttributes]:
    """Read only what the pictures of every seed show, in the order of `load_picture_set`."""
    return [shoe for seed in _find_seeds(folder) for shoe in load_attributes(folder / f"attributes-{seed}.json")]


def save_attributes(file: Path, attributes: Sequence[ShoeAttributes]) -> None:
    """Write a JSON list of objects, one for each picture."""
    file.write_text(json.dumps([asdict(shoe) for shoe in attributes]) + "\n")


def load_attributes(file: Path) -> list[ShoeAttributes]:
    """Read what `save_attributes` wrote."""
    return [ShoeAttributes(**entry) for entry in json.loads(file.read_text())]


def _find_seeds(folder: Path) -> list[int]:
    seeds = sorted(int(file.stem.removeprefix("attributes-")) for file in folder.glob("attributes-*.json"))
    if not seeds:
        raise FileNotFoundError(f"{folder} holds no drawn pictures: run make_pictures.py --output {folder} first.")
    return seeds
