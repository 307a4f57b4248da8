"""A tiny WD tagger whose tags follow from an image's mean colour, in ONNX's own bytes: no library writes it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

SIDE = 16
TAGS = (
    ("general", 9),
    ("blue_shoes", 0),
    ("green_shoes", 0),
    ("red_shoes", 0),
    ("white_background", 0),
    (":d", 0),
    ("hatsune_miku", 4),
)
# Of the mean blue, green and red, 0 to 255: a line of a tag says how much each of them speaks for it.
WEIGHTS_T3 = (
    (1, 1, 1),
    (0.1, -0.1, -0.1),
    (-0.1, 0.1, -0.1),
    (-0.1, -0.1, 0.1),
    (0.02, 0.02, 0.02),
    (0, 0, 0),
    (0, 0, 0),
)
BIASES_T = (9, 0, 0, 0, -10, 1, 0.5)


def _number(value: int) -> bytes:
    """Protobuf's varint."""
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _number(number << 3) + _number(value)
    content = value.encode() if isinstance(value, str) else value
    return _number(number << 3 | 2) + _number(len(content)) + content


def _node(op: str, inputs: Sequence[str], output: str, attributes: bytes = b"") -> bytes:
    return _field(1, b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, op) + attributes)


def _weights(name: str, values: object) -> bytes:
    array = np.asarray(values, np.float32)
    return _field(
        5, b"".join(_field(1, n) for n in array.shape) + _field(2, 1) + _field(8, name) + _field(9, array.tobytes())
    )


def _shaped(number: int, name: str, shape: Sequence[int | str]) -> bytes:
    sides = b"".join(_field(1, _field(2 if isinstance(side, str) else 1, side)) for side in shape)
    return _field(number, _field(1, name) + _field(2, _field(1, _field(1, 1) + _field(2, sides))))


def tagger_bytes(*, side: int = SIDE, channels: int = 3) -> bytes:
    """`sigmoid(mean of the pixels @ weights + biases)`, as ONNX."""
    axes = _field(5, _field(1, "axes") + _field(8, 1) + _field(8, 2) + _field(20, 7))
    keep = _field(5, _field(1, "keepdims") + _field(3, 0) + _field(20, 2))
    graph = (
        _node("ReduceMean", ["input"], "mean", axes + keep)
        + _node("MatMul", ["mean", "weights"], "product")
        + _node("Add", ["product", "biases"], "sum")
        + _node("Sigmoid", ["sum"], "output")
        + _field(2, "tagger")
        + _weights("weights", np.transpose(WEIGHTS_T3)[:channels])
        + _weights("biases", BIASES_T)
        + _shaped(11, "input", ["batch", side, side, channels])
        + _shaped(12, "output", ["batch", len(TAGS)])
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13))


def save_tagger(folder: Path) -> Path:
    """As SmilingWolf's models lie on the Hub, without what nobody reads."""
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(tagger_bytes())
    lines = [f"{number},{name},{category},{100 - number}" for number, (name, category) in enumerate(TAGS)]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *lines, ""]), encoding="utf-8")
    return folder
