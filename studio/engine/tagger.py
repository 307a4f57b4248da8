"""Tags of an image by a WD tagger (SmilingWolf's), by ONNX Runtime on the CPU, which runs no program of a file."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors
from PIL import Image

from studio.core.errors import ModelError
from studio.core.files import read_text
from studio.core.language import _
from studio.engine.caption_models import TAGGER_TAGS, TAGGER_WEIGHTS, check_captioner

MAX_SIDE = 2048
GENERAL, CHARACTER = "0", "4"
"""Categories of tags; others, such as the ratings (9), are left out."""
_WHITE = (255, 255, 255)
_WORD = re.compile(r"[^\W\d_]{2}")
_CANNOT_LOAD = (
    errors.EPFail,
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NoModel,
    errors.NoSuchFile,
    errors.NotImplemented,
    errors.RuntimeException,
)


@dataclass(frozen=True)
class Tag:
    """What one of a tagger's numbers is about.

    Attributes:
        text: as it stands in captions.
        category: of Danbooru, as in the tagger's table.
    """

    text: str
    category: str


class Tagger:
    """A loaded tagger. Not safe for threads."""

    says_tags = True

    def __init__(self, folder: Path, *, general_threshold: float, character_threshold: float) -> None:
        """Load it.

        Args:
            general_threshold, character_threshold: from which probability on a tag of that kind is given, 0 to 1.

        Raises:
            ModelError: where it cannot be read, or is no WD tagger.
        """
        check_captioner(folder)
        self._thresholds = {GENERAL: general_threshold, CHARACTER: character_threshold}
        self._tags = read_tags(folder / TAGGER_TAGS)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what is wrong is in the exception
        try:
            self._session = onnxruntime.InferenceSession(
                str(folder / TAGGER_WEIGHTS), options, providers=["CPUExecutionProvider"]
            )
        except _CANNOT_LOAD as error:
            raise ModelError(
                _(
                    "The model in {folder} cannot be loaded ({error}). Download it again, or choose another.",
                    folder=folder,
                    error=str(error).strip().partition("\n")[0][:200],
                )
            ) from error
        self._side = self._read_side(folder)

    def _read_side(self, folder: Path) -> int:
        """The height and width of what it looks at, in pixels."""
        shapes = [list(one.shape) for one in (*self._session.get_inputs(), *self._session.get_outputs())]
        match shapes:
            case [[_images, int(height), int(width), 3], [_count, int(num_tags)]] if height == width <= MAX_SIDE:
                if num_tags == len(self._tags):
                    return height
        raise ModelError(
            _(
                "The model in {folder} is no WD tagger: it must take square images and give a number for each of the "
                "{num_tags:,} tags in {file}, but its shapes are {shapes}. Choose another.",
                folder=folder,
                num_tags=len(self._tags),
                file=TAGGER_TAGS,
                shapes=shapes,
            )
        )

    def caption(
        self, image: Image.Image, *, prompt: str = "", num_candidates: int = 1, max_new_tokens: int = 60, seed: int = 0
    ) -> tuple[str, ...]:
        """The tags of an RGB image that are likely enough, separated by commas: characters first, the likeliest first.

        There is one caption, whatever is asked; () where no tag is likely enough.
        """
        probabilities_T = self._session.run(None, {self._session.get_inputs()[0].name: prepared(image, self._side)})[0][
            0
        ]
        found = [
            (tag.category != CHARACTER, -probability, tag.text)
            for tag, probability in zip(self._tags, probabilities_T.tolist(), strict=True)
            if probability >= self._thresholds.get(tag.category, np.inf)
        ]
        return (", ".join(text for __, __, text in sorted(found)),) if found else ()


def prepared(image: Image.Image, side: int) -> NDArray[np.float32]:
    """An RGB image as a tagger takes it: (1, side, side, 3), in its middle of a white square, BGR, 0 to 255."""
    scale = side / max(image.size)  # first: a square around a long image would take gigabytes
    small = image.resize([max(1, round(length * scale)) for length in image.size], Image.Resampling.BICUBIC)
    square = Image.new("RGB", (side, side), _WHITE)
    square.paste(small, ((side - small.width) // 2, (side - small.height) // 2))
    pixels_HWC = np.asarray(square, dtype=np.float32)
    return np.ascontiguousarray(pixels_HWC[None, :, :, ::-1])


def read_tags(path: Path) -> tuple[Tag, ...]:
    """The tags of a tagger, in the order of its numbers.

    Raises:
        ModelError: where the table cannot be read.
    """
    try:
        return tuple(
            Tag(words_of(row["name"]), row["category"]) for row in csv.DictReader(read_text(path).splitlines())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        raise ModelError(
            _("{path} cannot be read ({error}). Copy or download the model again.", path=path, error=error)
        ) from error


def words_of(name: str) -> str:
    """`long hair` for `long_hair`; faces such as `>_<` and `||_||` stay as they are."""
    return name.replace("_", " ") if _WORD.search(name) else name
