"""Equal prompts are encoded once, however many images they have."""

from pathlib import Path

import pytest

from studio.engine import denoise as text
from tests.batches.torch.made import made


def test_a_prompt_of_many_pictures_goes_through_the_text_encoder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, encoded = text.encode_prompts, []

    def counted(components: object, texts: tuple[str, ...], **options: bool) -> object:
        encoded.append(texts)
        return encode(components, texts, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(text, "encode_prompts", counted)
    made(tmp_path, images_per_prompt=3, total=None)
    assert len(encoded) == 6
    assert len(set(encoded)) == 6
