"""Memory in words."""

import pytest

from studio.core.text import gigabytes


@pytest.mark.parametrize(
    ("num_bytes", "words"),
    [(None, "–"), (0, "0.0 GB"), (12 * 2**20, "12 MB"), (2**30 // 10, "0.1 GB"), (3 * 2**30, "3.0 GB")],
)
def test_little_memory_is_not_said_to_be_none(num_bytes: int | None, words: str) -> None:
    assert gigabytes(num_bytes) == words
