"""What the settings accept, the engine makes an image of; what they refuse has a sentence. Nothing in between."""

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from diffusers import LCMScheduler, PNDMScheduler

from studio.core.errors import InvalidImageError, SettingsError
from studio.core.settings import (
    LCM_MAX_STEPS,
    SCHEDULER_NAMES,
    SEED_MAX,
    GenerationSettings,
    ModelSettings,
    PredictionType,
    SchedulerName,
    parse_settings,
)
from studio.engine.denoise import assert_possible
from studio.engine.pipeline import PipelineManager

QUICK: dict[str, object] = {"prompt": "boots", "width": 64, "height": 64, "guidance_scale": 1}
FEW_STEPS = (1, 2, 3)
MANY_STEPS = (LCM_MAX_STEPS, LCM_MAX_STEPS + 1, 150)
EXTREMES: tuple[dict[str, object], ...] = (
    {"guidance_scale": 30},
    {"guidance_scale": 7.5, "guidance_start": 0.5, "guidance_end": 0.5},
    {"guidance_scale": 7.5, "guidance_start": 1, "guidance_end": 0},
    {"guidance_scale": 7.5, "guidance_start": 1, "guidance_end": 1},
    {"seed": SEED_MAX},
    {"width": 200, "height": 72},
    {"prompt": "", "negative_prompt": ""},
    {"prompt": "((a:9) [b (c:0) \\", "negative_prompt": "BREAK \x00 \U0001f45f", "guidance_scale": 2},
    {"prompt": "boots, " * 200, "long_prompt": True},
)


@pytest.fixture(scope="module")
def managers(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[PredictionType, PipelineManager]:
    made = {}
    for prediction in ("epsilon", "v_prediction"):
        manager = PipelineManager(torch.device("cpu"), rejected_folder=tmp_path_factory.mktemp("rejected"))
        manager.load(ModelSettings(model=str(tiny_model), prediction_type=prediction))  # type: ignore[arg-type]
        made[prediction] = manager
    return made  # type: ignore[return-value]


def combinations() -> Iterator[tuple[int, dict[str, object]]]:
    yield from itertools.product(FEW_STEPS[:1], EXTREMES)
    yield from itertools.product((*FEW_STEPS, *MANY_STEPS), ({},))


@pytest.mark.parametrize("scheduler", SCHEDULER_NAMES)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_what_the_settings_accept_is_made_and_what_they_refuse_has_a_sentence(
    scheduler: SchedulerName, prediction: PredictionType, managers: dict[PredictionType, PipelineManager]
) -> None:
    for steps, extreme in combinations():
        if steps > max(FEW_STEPS) and prediction != "epsilon":
            continue
        values = {**QUICK, "scheduler": scheduler, "num_inference_steps": steps, **extreme}
        try:
            settings = parse_settings(GenerationSettings, values)
        except SettingsError as error:
            assert scheduler in str(error), "the sentence names both settings"
            assert f"Steps (num_inference_steps) must be at most {LCM_MAX_STEPS}" in str(error)
            assert f"got {steps}" in str(error)
            continue
        assert_possible(managers[prediction].components, settings)
        with contextlib.suppress(InvalidImageError):  # random weights
            assert managers[prediction].generate(settings).picture.shape[2] == 3


@pytest.mark.parametrize(
    ("own", "steps"),
    [
        (PNDMScheduler(skip_prk_steps=False), 3),
        (LCMScheduler(), LCM_MAX_STEPS + 1),
    ],
)
def test_what_only_the_models_own_scheduler_refuses_is_a_sentence_too(
    own: object, steps: int, managers: dict[PredictionType, PipelineManager], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = managers["epsilon"]
    monkeypatch.setattr(manager.components.pipeline, "scheduler", own)
    settings = parse_settings(GenerationSettings, {**QUICK, "num_inference_steps": steps})
    sentence = f"num_inference_steps cannot be {steps} with the scheduler model's own \\({type(own).__name__}"
    with pytest.raises(SettingsError, match=sentence):
        assert_possible(manager.components, settings)
    with pytest.raises(SettingsError, match=sentence):
        manager.generate(settings)
