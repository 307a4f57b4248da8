"""PipelineManager makes what diffusers makes, the same every time, and nothing invalid leaves it."""

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from studio.core.errors import GenerationCancelledError, InvalidImageError, ModelError, PrecisionError, StudioError
from studio.core.settings import GenerationSettings, ModelSettings
from studio.engine.attention import SLICED_MAX_SCORES, AttentionPlan
from studio.engine.model_files import find_model
from studio.engine.models import Components, load_components
from studio.engine.pipeline import CHECK_EVERY, PipelineManager
from studio.engine.progress import StepProgress, Watcher


def spoil_output(module: nn.Module, spoil: object, *, from_call: int = 1) -> list[int]:
    """Change what a module returns from its n-th call on; the returned list counts the calls."""
    calls: list[int] = []

    def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return spoil(output) if len(calls) >= from_call else output  # type: ignore[operator]

    module.register_forward_hook(hook)
    return calls


def test_the_picture_is_the_one_that_plain_diffusers_makes(manager: PipelineManager) -> None:
    settings = GenerationSettings(prompt="brown leather shoes", seed=3)
    ours = manager.generate(settings).picture
    plain = StableDiffusionPipeline.from_pretrained(
        find_model("shoes-demo").folder, dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    plain.set_progress_bar_config(disable=True)
    generator = torch.Generator("cpu").manual_seed(3)
    theirs = plain(settings.prompt, num_inference_steps=25, guidance_scale=7.5, generator=generator).images[0]
    assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= 1e-3 * 255


def test_guidance_off_and_a_negative_prompt_match_plain_diffusers_too(manager: PipelineManager) -> None:
    plain = manager.components.pipeline
    plain.set_progress_bar_config(disable=True)
    for guidance_scale, negative_prompt in ((1.0, ""), (5.0, "red boots")):
        settings = GenerationSettings(
            prompt="tan loafers",
            negative_prompt=negative_prompt,
            num_inference_steps=6,
            guidance_scale=guidance_scale,
            width=96,
            height=160,
        )
        theirs = plain(
            settings.prompt,
            negative_prompt=negative_prompt,
            num_inference_steps=6,
            guidance_scale=guidance_scale,
            width=96,
            height=160,
            generator=torch.Generator("cpu").manual_seed(settings.seed),
        ).images[0]
        ours = manager.generate(settings).picture
        assert ours.shape == (160, 96, 3)
        assert np.abs(ours.astype(int) - np.asarray(theirs).astype(int)).max() <= 1


def test_the_same_seed_gives_the_same_bytes_whatever_ran_before(
    manager: PipelineManager, quick: GenerationSettings
) -> None:
    first = manager.generate(quick).picture
    manager.generate(quick.model_copy(update={"seed": 99, "num_inference_steps": 5, "guidance_scale": 1.0}))
    assert np.array_equal(first, manager.generate(quick).picture)


def test_another_seed_gives_another_picture(manager: PipelineManager, quick: GenerationSettings) -> None:
    other = manager.generate(quick.model_copy(update={"seed": 8})).picture
    assert not np.array_equal(manager.generate(quick).picture, other)


@pytest.mark.parametrize("broken_step", [1, 4, 8])
def test_nan_at_a_step_is_found_within_the_next_few_steps(
    fresh_manager: PipelineManager, quick: GenerationSettings, broken_step: int
) -> None:
    unet = fresh_manager.components.unet
    calls = spoil_output(unet.conv_out, lambda out: out * float("nan"), from_call=broken_step)
    with pytest.raises(InvalidImageError, match="NaN or infinite") as caught:
        fresh_manager.generate(quick)
    assert caught.value.check == "latents"
    assert caught.value.step is not None
    assert broken_step <= caught.value.step < broken_step + CHECK_EVERY
    assert len(calls) == caught.value.step, "no step is spent after the finding"


def test_one_poisoned_vae_channel_is_found_and_named(fresh_manager: PipelineManager, quick: GenerationSettings) -> None:
    with torch.no_grad():
        fresh_manager.components.vae.decoder.conv_out.bias[1] = float("nan")
    with pytest.raises(InvalidImageError, match=r"green 100%") as caught:
        fresh_manager.generate(quick)
    assert (caught.value.check, caught.value.step) == ("decoded", None)


def test_an_overflow_in_float16_on_the_cpu_is_found(fresh_manager: PipelineManager, quick: GenerationSettings) -> None:
    vae = fresh_manager.components.vae
    vae.half()
    with torch.no_grad():
        vae.decoder.conv_norm_out.weight.mul_(60_000)  # far within float32's range, beyond float16's
    with pytest.raises(InvalidImageError, match="NaN or infinite") as caught:
        fresh_manager.generate(quick)
    assert caught.value.check == "decoded"


def test_an_inf_that_the_clamp_would_make_white_is_found(
    fresh_manager: PipelineManager, quick: GenerationSettings
) -> None:
    def one_inf(output: torch.Tensor) -> torch.Tensor:
        output[0, 0, 5, 5] = float("inf")
        return output

    spoil_output(fresh_manager.components.vae.decoder, one_inf)
    with pytest.raises(InvalidImageError, match="red"):
        fresh_manager.generate(quick)


@pytest.mark.parametrize(("value", "words"), [(-1.0, "is black"), (0.25, "one flat colour")])
def test_a_black_picture_and_a_flat_one_are_found(
    fresh_manager: PipelineManager, quick: GenerationSettings, value: float, words: str
) -> None:
    spoil_output(fresh_manager.components.vae.decoder, lambda out: torch.full_like(out, value))
    with pytest.raises(InvalidImageError, match=words) as caught:
        fresh_manager.generate(quick)
    assert caught.value.check == "image"


def test_a_picture_of_the_wrong_shape_is_found(fresh_manager: PipelineManager, quick: GenerationSettings) -> None:
    spoil_output(fresh_manager.components.vae.decoder, lambda out: out[:, :, ::2])
    with pytest.raises(InvalidImageError, match=r"expected \(128, 128, 3\)"):
        fresh_manager.generate(quick)


def test_an_invalid_image_leaves_a_copy(fresh_manager: PipelineManager, quick: GenerationSettings) -> None:
    with torch.no_grad():
        fresh_manager.components.vae.decoder.conv_out.bias[0] = float("nan")
    with pytest.raises(InvalidImageError, match="A copy for diagnosis is in") as caught:
        fresh_manager.generate(quick)
    report = caught.value.rejected_file
    assert report is not None
    record = json.loads(report.read_text())
    assert record["settings"] == quick.model_dump(mode="json")
    assert "red 100%" in record["finding"]
    picture = np.asarray(Image.open(report.with_suffix(".png")))
    assert (picture == (255, 0, 255)).all(), "every pixel had a NaN, and magenta says so"
    assert load_file(report.with_suffix(".safetensors"))["latents"].shape == (1, 4, 16, 16)


def test_an_image_is_rejected_even_where_its_copy_cannot_be_kept(tmp_path: Path, quick: GenerationSettings) -> None:
    not_a_folder = tmp_path / "rejected"
    not_a_folder.write_text("in the way")
    manager = PipelineManager(torch.device("cpu"), rejected_folder=not_a_folder)
    manager.load(ModelSettings())
    spoil_output(manager.components.unet, lambda out: (out[0] * float("nan"),))
    with pytest.raises(InvalidImageError, match="latents check failed") as caught:
        manager.generate(quick)
    assert caught.value.rejected_file is None


def test_cancel_stops_after_the_step_and_the_next_picture_is_good(
    manager: PipelineManager, quick: GenerationSettings
) -> None:
    expected = manager.generate(quick).picture
    steps: list[int] = []
    watcher = Watcher(lambda progress: steps.append(progress.step), lambda: len(steps) == 3)
    with pytest.raises(GenerationCancelledError, match="after step 3 of 8"):
        manager.generate(quick, watcher=watcher)
    assert steps == [1, 2, 3]
    assert np.array_equal(manager.generate(quick).picture, expected)


def test_progress_tells_every_step_and_its_last_preview_resembles_the_picture(manager: PipelineManager) -> None:
    reported: list[StepProgress] = []
    settings = GenerationSettings(prompt="white sneakers on grass", seed=5)
    picture = manager.generate(settings, watcher=Watcher(reported.append)).picture
    assert [p.step for p in reported] == list(range(1, 26))
    previews = [p.preview for p in reported if p.preview is not None]
    assert len(previews) == 8
    small = np.asarray(Image.fromarray(picture).resize((16, 16), Image.Resampling.BOX)).astype(float)
    assert np.corrcoef(previews[-1].ravel(), small.ravel())[0, 1] > 0.75
    assert np.corrcoef(previews[2].ravel(), small.ravel())[0, 1] > 0.5, "a third of the way it can be recognised"


def test_watching_does_not_change_the_picture(manager: PipelineManager, quick: GenerationSettings) -> None:
    watched = manager.generate(quick, watcher=Watcher(lambda _progress: None)).picture
    assert np.array_equal(watched, manager.generate(quick).picture)


def test_timings_and_memory_come_with_every_picture(fresh_manager: PipelineManager, quick: GenerationSettings) -> None:
    first, second = fresh_manager.generate(quick), fresh_manager.generate(quick)
    assert first.timings.first_call
    assert not second.timings.first_call
    assert len(second.timings.step_seconds) == 8
    parts = second.timings.text_seconds + sum(second.timings.step_seconds) + second.timings.vae_seconds
    assert 0.5 * second.timings.total_seconds < parts <= second.timings.total_seconds
    memory = second.memory
    assert memory.peak_process_bytes >= max(memory.before.process_bytes, memory.after.process_bytes)
    assert memory.before.process_bytes > 100e6, "torch and the model are in it"


def test_another_thread_may_not_use_the_manager(manager: PipelineManager, quick: GenerationSettings) -> None:
    raised: list[str] = []

    def use_it() -> None:
        try:
            manager.generate(quick)
        except AssertionError as error:
            raised.append(str(error))

    thread = threading.Thread(target=use_it)
    thread.start()
    thread.join()
    assert raised == ["PipelineManager belongs to the thread that made it"]


def test_unload_forgets_the_model(fresh_manager: PipelineManager, quick: GenerationSettings) -> None:
    fresh_manager.unload()
    assert fresh_manager.facts is None
    with pytest.raises(ModelError, match="No model is loaded"):
        fresh_manager.generate(quick)


def test_switching_the_model_replaces_it(fresh_manager: PipelineManager, model_copy: Path) -> None:
    old = fresh_manager.components
    facts = fresh_manager.load(ModelSettings(model=str(model_copy)))
    assert facts.model == "model"
    assert fresh_manager.components is not old


def test_a_model_that_fails_to_load_leaves_none_loaded(fresh_manager: PipelineManager, model_copy: Path) -> None:
    file = model_copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_in.weight"]
    save_file(weights, file)
    with pytest.raises(ModelError, match="The U-Net in"):
        fresh_manager.load(ModelSettings(model=str(model_copy)))
    assert fresh_manager.facts is None


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("model_index.json", "has no model_index.json"),
        ("scheduler/scheduler_config.json", "cannot be read"),
        ("vae/diffusion_pytorch_model.safetensors", "is cut off|bytes"),
    ],
)
def test_what_is_cheap_to_check_is_checked_before_the_model_before_goes(
    manager: PipelineManager, model_copy: Path, file: str, words: str
) -> None:
    content = (model_copy / file).read_bytes()
    if file == "model_index.json":
        (model_copy / file).unlink()
    else:
        (model_copy / file).write_bytes(content[: len(content) // 2])
    before = manager.components
    with pytest.raises(ModelError, match=words):
        manager.load(ModelSettings(model=str(model_copy)))
    assert manager.components is before


def test_a_model_that_is_not_there_leaves_the_one_before_it_loaded(manager: PipelineManager) -> None:
    before = manager.components
    with pytest.raises(ModelError, match="There is no model folder or file /nowhere"):
        manager.load(ModelSettings(model="/nowhere"))
    assert manager.components is before


def test_facts_tell_the_device_the_precision_and_why(manager: PipelineManager) -> None:
    facts = manager.facts
    assert facts is not None
    assert (facts.device, facts.precision.precision, facts.width, facts.height) == ("cpu", "float32", 128, 128)
    assert facts.parameters == 11_103_259


def test_attention_slicing_means_small_chunks_and_gives_the_same_image(
    fresh_manager: PipelineManager, quick: GenerationSettings
) -> None:
    def plans() -> set[AttentionPlan]:
        components = fresh_manager.components
        processors = (*components.unet.attn_processors.values(), *components.vae.attn_processors.values())
        return {processor.plan for processor in processors}

    assert plans() == {AttentionPlan()}
    whole = fresh_manager.generate(quick)
    fresh_manager.load(ModelSettings(attention_slicing=True))
    assert plans() == {AttentionPlan(max_scores=SLICED_MAX_SCORES)}
    sliced = fresh_manager.generate(quick)
    assert torch.allclose(sliced.latents_CHW, whole.latents_CHW, atol=1e-4)


def test_a_tensor_in_the_wrong_precision_is_not_loaded(
    fresh_manager: PipelineManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load_with_a_half(*arguments: object, **options: object) -> Components:
        components = load_components(*arguments, **options)  # type: ignore[arg-type]
        components.unet.conv_in.half()
        return components

    monkeypatch.setattr("studio.engine.pipeline.load_components", load_with_a_half)
    with pytest.raises(PrecisionError, match=r"unet\.conv_in\.weight is float16"):
        fresh_manager.load(ModelSettings())
    assert fresh_manager.facts is None


def test_weights_that_a_file_lacks_are_found_before_the_model_is_used(
    fresh_manager: PipelineManager, model_copy: Path
) -> None:
    weights = model_copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    del tensors["conv_in.bias"]
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(StudioError, match=r"conv_in\.bias"):
        fresh_manager.load(ModelSettings(model=str(model_copy)))


def test_a_scheduler_that_warms_up_is_followed_and_checked_to_its_last_step(
    fresh_manager: PipelineManager, quick: GenerationSettings
) -> None:
    """PNDM, Stable Diffusion 1.5's own, takes one step more than it was asked for."""
    components = fresh_manager.components
    components.pipeline.scheduler = PNDMScheduler.from_config(components.pipeline.scheduler.config, skip_prk_steps=True)
    reported: list[tuple[int, int]] = []
    image = fresh_manager.generate(quick, watcher=Watcher(lambda p: reported.append((p.step, p.num_steps))))
    assert reported == [(step, 9) for step in range(1, 10)]
    assert image.record.checks[0].finding == "finite through all 9 steps"
    spoil_output(components.unet.conv_out, lambda out: out * float("nan"), from_call=9)
    with pytest.raises(InvalidImageError) as caught:
        fresh_manager.generate(quick)
    assert (caught.value.check, caught.value.step) == ("latents", 9)


def test_a_vae_that_cannot_encode_costs_the_previews_and_not_the_picture(
    fresh_manager: PipelineManager, quick: GenerationSettings
) -> None:
    with torch.no_grad():
        fresh_manager.components.vae.encoder.conv_in.bias[0] = float("nan")
    reported: list[StepProgress] = []
    assert fresh_manager.generate(quick, watcher=Watcher(reported.append)).record.checks
    assert all(progress.preview is None for progress in reported)


def test_what_a_watcher_does_is_not_in_the_steps_times(manager: PipelineManager, quick: GenerationSettings) -> None:
    slow = manager.generate(quick, watcher=Watcher(lambda _progress: time.sleep(0.2)))
    assert slow.timings.total_seconds > 1.6
    assert sum(slow.timings.step_seconds) < slow.timings.total_seconds - 0.9


def test_a_model_that_predicts_velocity_is_followed_as_diffusers_does(
    fresh_manager: PipelineManager, quick: GenerationSettings, model_copy: Path
) -> None:
    config = model_copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "v_prediction"}))
    fresh_manager.load(ModelSettings(model=str(model_copy)))
    with torch.inference_mode():
        theirs = fresh_manager.components.pipeline(
            quick.prompt,
            negative_prompt="",
            num_inference_steps=quick.num_inference_steps,
            guidance_scale=quick.guidance_scale,
            generator=torch.Generator().manual_seed(quick.seed),
            output_type="latent",
        ).images[0]
    ours = fresh_manager.generate(quick).latents_CHW
    assert torch.equal(ours, theirs)
    fresh_manager.load(ModelSettings(prediction_type="v_prediction"))
    assert torch.equal(fresh_manager.generate(quick).latents_CHW, ours), "chosen by hand it is the same"
    fresh_manager.load(ModelSettings())
    assert not torch.equal(fresh_manager.generate(quick).latents_CHW, ours)
