"""Rows of a dataset for tests, with real facts where a test needs them."""

from pathlib import Path

from studio.datasets.source import DatasetRow
from studio.images.records import PictureFacts, Problem

REJECT = Problem(code="cut short", severity="reject", sentence="It is cut short.")


def make_facts(**values: object) -> PictureFacts:
    """Of a sound image of 512 × 512, with what the test says otherwise."""
    sound = {"sha256": "a" * 64, "num_bytes": 1000, "format": "PNG", "mode": "RGB", "width": 512, "height": 512}
    hashes = {"perceptual_hash": "0123456789abcdef", "tiny": "80" * 192, "brightness": 0.5, "border_whiteness": 1.0}
    return PictureFacts.model_validate({**sound, **hashes, **values})


def make_row(key: str = "a.png", caption: str = "a shoe", **values: object) -> DatasetRow:
    """A used row, with what the test says otherwise."""
    defaults: dict[str, object] = {
        "path": Path("/nowhere") / key,
        "caption_from": "a.txt",
        "repeats": 1,
        "attributes": {},
        "facts": make_facts(),
        "problems": (),
        "excluded": False,
    }
    return DatasetRow(key=key, caption=caption, **{**defaults, **values})  # type: ignore[arg-type]
