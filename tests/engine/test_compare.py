"""Compare: both sides from the same noise, and the truth about how far they are apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studio.core.errors import LoraError
from studio.core.settings import CompareSettings, GenerationSettings, LoraChoice
from studio.engine.generation import run_comparison
from studio.engine.pipeline import PipelineManager
from studio.engine.progress import RunWatcher
from studio.images.comparison import SavedComparison, latest_comparison

WHITE = (LoraChoice(name="white-ground"),)


def settings(**changes: object) -> CompareSettings:
    values: dict[str, object] = {
        "prompts": ("black casual shoes, white background",),
        "generation": GenerationSettings(prompt="", num_inference_steps=6, seed=500, guidance_scale=4),
        "right": WHITE,
    }
    return CompareSettings.model_validate({**values, **changes})


def pixels(saved: SavedComparison, file: str) -> np.ndarray:
    return np.asarray(Image.open(saved.folder / file)).astype(int)


def test_a_pair_is_what_generate_makes_with_and_without_the_lora(manager: PipelineManager, tmp_path: Path) -> None:
    saved = run_comparison(manager, settings(), outputs=tmp_path)
    (pair,) = saved.report.pairs
    assert pair.right is not None
    base = GenerationSettings(
        prompt="black casual shoes, white background", num_inference_steps=6, seed=500, guidance_scale=4
    )
    assert np.array_equal(pixels(saved, pair.left.file), manager.generate(base).picture)
    right = manager.generate(base.model_copy(update={"loras": WHITE})).picture
    assert np.array_equal(pixels(saved, pair.right.file), right)


def test_the_difference_is_what_the_pixels_say(manager: PipelineManager, tmp_path: Path) -> None:
    saved = run_comparison(manager, settings(), outputs=tmp_path)
    (pair,) = saved.report.pairs
    assert pair.right is not None
    assert pair.difference is not None
    apart = np.abs(pixels(saved, pair.left.file) - pixels(saved, pair.right.file))
    assert pair.difference.pixels == pytest.approx(apart.mean())
    assert pair.difference.changed_share == pytest.approx((apart.max(axis=2) >= 16).mean())
    assert pair.difference.latents > 0.2
    assert "white-ground changes" in saved.report.sentence


def test_a_lora_without_effect_is_said_to_change_nothing(manager: PipelineManager, tmp_path: Path) -> None:
    saved = run_comparison(manager, settings(right=(LoraChoice(name="white-ground", strength=0),)), outputs=tmp_path)
    assert "changes nothing: both images are the same, to the last bit" in saved.report.sentence


def test_prompts_times_seeds_make_the_pairs(manager: PipelineManager, tmp_path: Path) -> None:
    saved = run_comparison(manager, settings(prompts=("boots", "sandals"), num_seeds=2), outputs=tmp_path)
    made = [(pair.left.settings.prompt, pair.left.settings.seed) for pair in saved.report.pairs]
    assert made == [("boots", 500), ("boots", 501), ("sandals", 500), ("sandals", 501)]
    assert saved.report.finished


def test_the_strip_grows_with_strength_and_makes_nothing_twice(manager: PipelineManager, tmp_path: Path) -> None:
    asked = settings(strip=(0, 0.5, 1))
    steps: list[int] = []
    watcher = RunWatcher(lambda index, _: steps.append(index))
    saved = run_comparison(manager, asked, outputs=tmp_path, watcher=watcher)
    differences = [picture.difference.pixels for picture in saved.report.strip if picture.difference]
    assert differences[0] == 0
    assert differences[0] < differences[1] < differences[2]
    assert max(steps) + 1 == asked.num_pictures == 3
    assert saved.report.strip[2].picture == saved.report.pairs[0].right


def test_every_pair_has_a_strip_of_its_own(manager: PipelineManager, tmp_path: Path) -> None:
    asked = settings(prompts=("boots", "sandals"), num_seeds=2, strip=(0, 0.5))
    saved = run_comparison(manager, asked, outputs=tmp_path)
    assert len(saved.report.strips) == len(saved.report.pairs) == 4
    for pair, strip in zip(saved.report.pairs, saved.report.strips, strict=True):
        assert [made.strength for made in strip] == [0, 0.5]
        assert strip[0].picture == pair.left
        assert (strip[1].picture.settings.prompt, strip[1].picture.settings.seed) == (
            pair.right.settings.prompt if pair.right else "",
            pair.left.settings.seed,
        )
    assert asked.num_pictures == 4 * 3


def test_what_is_there_is_saved_after_each_picture(manager: PipelineManager, tmp_path: Path) -> None:
    seen: list[tuple[int, bool]] = []

    def on_change(saved: SavedComparison) -> None:
        kept = latest_comparison(tmp_path)
        assert kept == saved
        seen.append((saved.report.num_finished, saved.report.finished))

    run_comparison(manager, settings(), outputs=tmp_path, on_change=on_change)
    assert seen == [(1, False), (2, False), (2, True)]


def test_cancel_keeps_what_is_finished(manager: PipelineManager, tmp_path: Path) -> None:
    steps: list[int] = []
    watcher = RunWatcher(lambda index, _: steps.append(index), lambda: len(steps) > 8)
    saved = run_comparison(manager, settings(), outputs=tmp_path, watcher=watcher)
    assert saved.report.cancelled
    assert saved.report.finished
    assert saved.report.pairs[0].left.file
    assert saved.report.pairs[0].right is None
    assert latest_comparison(tmp_path) == saved


def test_an_unknown_lora_is_refused_before_anything_is_written(manager: PipelineManager, tmp_path: Path) -> None:
    with pytest.raises(LoraError, match="There is no LoRA named nosuch"):
        run_comparison(manager, settings(right=(LoraChoice(name="nosuch"),)), outputs=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_invalid_picture_is_reported_and_the_comparison_goes_on(
    fresh_manager: PipelineManager, tmp_path: Path
) -> None:
    calls: list[int] = []

    def spoil(_module: torch.nn.Module, _args: object, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        calls.append(1)
        return (output[0] * float("nan"),) if len(calls) <= 2 else output

    fresh_manager.components.unet.register_forward_hook(spoil)
    saved = run_comparison(fresh_manager, settings(num_seeds=2), outputs=tmp_path)
    first, second = saved.report.pairs
    assert "latents check failed" in first.left.error
    assert first.difference is None
    assert second.difference is not None
