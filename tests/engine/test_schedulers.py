"""Every scheduler makes a good image with the shipped model, and keeps what the model's own says."""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler

from studio.core.settings import SCHEDULER_NAMES, GenerationSettings, SchedulerName
from studio.engine.denoise import make_scheduler
from studio.engine.pipeline import PipelineManager

RED = GenerationSettings(prompt="red canvas sneakers, on grass", seed=500, guidance_scale=4)


def red_share(picture: np.ndarray) -> float:
    """The share of pixels that are clearly red: the shoe."""
    red, green, blue = picture.astype(int).transpose(2, 0, 1)
    return float(((red > green + 60) & (red > blue + 60)).mean())


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_every_scheduler_draws_a_red_shoe_on_a_calm_ground(name: SchedulerName, manager: PipelineManager) -> None:
    few = {"num_inference_steps": 8, "guidance_scale": 1.0} if name == "LCM" else {}
    picture = manager.generate(RED.model_copy(update={"scheduler": name, **few})).picture
    assert 0.03 < red_share(picture) < 0.4
    assert picture[:20].std(axis=(0, 1)).max() < 15, "the ground above the shoe has no patches"


@pytest.mark.parametrize("name", ["DDIM", "DPM++ 2M Karras", "UniPC", "Euler"])
def test_schedulers_that_solve_the_same_equation_draw_nearly_the_same(
    name: SchedulerName, manager: PipelineManager
) -> None:
    own = manager.generate(RED).picture.astype(int)
    other = manager.generate(RED.model_copy(update={"scheduler": name})).picture.astype(int)
    assert np.abs(own - other).mean() < 12


def test_clipping_which_ruins_latents_is_off_and_would_be_seen(
    manager: PipelineManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_scheduler("DDIM", manager.components.pipeline.scheduler).config.clip_sample is False
    good = manager.generate(RED.model_copy(update={"scheduler": "DDIM"})).picture
    clipped = DDIMScheduler.from_config(manager.components.pipeline.scheduler.config)
    assert clipped.config.clip_sample is True, "the trap: a config without the word gets the default"
    monkeypatch.setattr("studio.engine.pipeline.make_scheduler", lambda *_: clipped)
    ruined = manager.generate(RED).picture
    assert np.abs(good.astype(int) - ruined).mean() > 12


@pytest.mark.parametrize("name", SCHEDULER_NAMES)
def test_noise_schedule_and_prediction_type_are_the_models_own(name: SchedulerName) -> None:
    own = EulerDiscreteScheduler(
        beta_start=0.001, beta_end=0.013, beta_schedule="scaled_linear", prediction_type="v_prediction"
    )
    made = make_scheduler(name, own)
    assert (made.config.beta_start, made.config.beta_end) == (0.001, 0.013)
    assert made.config.prediction_type == "v_prediction"


def test_karras_and_plain_differ() -> None:
    own = DPMSolverMultistepScheduler(beta_schedule="scaled_linear")
    plain, karras = make_scheduler("DPM++ 2M", own), make_scheduler("DPM++ 2M Karras", own)
    plain.set_timesteps(10)
    karras.set_timesteps(10)
    assert not torch.equal(plain.sigmas, karras.sigmas)


def test_each_picture_gets_a_scheduler_of_its_own(manager: PipelineManager) -> None:
    own = manager.components.pipeline.scheduler
    assert make_scheduler("model's own", own) is not own


def test_guidance_acts_only_in_its_interval(manager: PipelineManager, quick: GenerationSettings) -> None:
    widths: list[int] = []
    handle = manager.components.unet.register_forward_pre_hook(lambda _, args: widths.append(args[0].shape[0]))
    manager.generate(quick.model_copy(update={"guidance_start": 0.25, "guidance_end": 0.75}))
    handle.remove()
    assert widths == [1, 1, 2, 2, 2, 2, 1, 1]


def test_an_empty_interval_is_no_guidance(manager: PipelineManager, quick: GenerationSettings) -> None:
    empty = quick.model_copy(update={"guidance_start": 0.6, "guidance_end": 0.4})
    without = quick.model_copy(update={"guidance_scale": 1.0})
    assert not empty.guided_steps(8)
    assert torch.equal(manager.generate(empty).latents_CHW, manager.generate(without).latents_CHW)
