"""The training bench's sides run for real, on the shipped model at 64 pixels; how long they took is not asserted."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bench.training import border_whiteness
from bench.training_peers import STEPS, Workplace, run_diffusers, run_ours, run_plain, write_pictures
from studio.core.errors import StudioError
from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_pictures(tmp_path, pixels=64)
    return Workplace(assets_folder() / SHIPPED_MODEL, tmp_path, "cpu", pixels=64)


@pytest.mark.parametrize("checkpointing", ["on", "part"])
def test_our_side_tells_of_every_step_but_the_first_and_of_its_peak(place: Workplace, checkpointing: str) -> None:
    facts = run_ours(place, targets="attention", checkpointing=checkpointing, percent=70)
    assert len(facts.step_seconds) == STEPS - 1
    assert 0 < facts.best_seconds <= max(facts.step_seconds)
    assert 100e6 < facts.peak_bytes < 4e9


@pytest.mark.parametrize("cached", [False, True])
def test_the_plain_loop_tells_the_same(cached: bool, place: Workplace) -> None:
    facts = run_plain(place, targets="attention", checkpointing=True, cached=cached)
    assert len(facts.step_seconds) == STEPS - 1
    assert facts.peak_bytes > 100e6


def test_a_peer_that_fails_is_told_with_what_it_said(place: Workplace, tmp_path: Path) -> None:
    script = tmp_path / "examples" / "text_to_image" / "train_text_to_image_lora.py"
    script.parent.mkdir(parents=True)
    script.write_text("raise SystemExit('no such peer')", encoding="utf-8")
    with pytest.raises(StudioError, match="no such peer"):
        run_diffusers(place, checkout=tmp_path, python=Path(sys.executable))


def test_border_whiteness_counts_pixels_whose_every_channel_is_white() -> None:
    picture = np.full((128, 128, 3), 255, np.uint8)
    picture[20:100, 20:100] = 0
    assert border_whiteness(picture) == 1
    picture[:, :, 2] = 244
    assert border_whiteness(picture) == 0
