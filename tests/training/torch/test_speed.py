"""A Speed LoRA: its teacher's paths, what it learns to jump, and a run of one that is interrupted and goes on."""

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler
from safetensors import safe_open
from safetensors.torch import load_file

from studio.core.errors import LoraError, SettingsError
from studio.core.settings import GenerationSettings, LoraChoice
from studio.datasets.snapshot import Snapshot
from studio.engine import lora_layers
from studio.engine.models import Components
from studio.images.files import read_picture_text
from studio.jobs.folder import read_status
from studio.loras.library import LoraLibrary
from studio.loras.speed import SPEED_METADATA, SpeedUse, speed_loras
from studio.training.begin import assert_consistent, begin_making_fast
from studio.training.events import FinishedEvent, HeldOutEvent, SampleEvent, ScoreEvent, StepEvent, read_events
from studio.training.folder import RunFolder, read_plan, write_plan
from studio.training.presets import speed_settings
from studio.training.speed import segment_times, speed_use
from studio.training.torch import preparation
from studio.training.torch.loop import OptimizerSteps
from studio.training.torch.loss import Denoiser, one_step, one_step_target
from studio.training.torch.paths import (
    GROUNDS,
    NUM_FIXED,
    PathPlan,
    SegmentMaker,
    Teacher,
    plan_paths,
    taught_captions,
    teacher_scheduler,
    worded_otherwise,
)
from studio.training.torch.processes import Processes
from studio.training.torch.run import train_run
from tests.faults import conftest as faults
from tests.faults.conftest import Place
from tests.training.torch.parts import CPU, make_bench, settings_of

place = faults.place
SPEED = {
    "objective": "few steps",
    "num_teacher_images": 4,
    "loss_type": "huber",
    "huber_schedule": "constant",
    "caption_dropout": 0.0,
    "noise_offset": 0.0,
    "teacher_guidance_scale": 3.0,
}


@pytest.mark.parametrize("num_segments", range(1, 9))
def test_segments_begin_where_diffusers_trailing_schedulers_step_and_the_teacher_does_too(num_segments: int) -> None:
    settings = settings_of(speed_steps=num_segments, **SPEED)
    scheduler = EulerDiscreteScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(num_segments)
    assert segment_times(num_segments) == scheduler.timesteps.tolist()
    own = teacher_scheduler(DDPMScheduler(beta_schedule="scaled_linear"))
    own.set_timesteps(settings.teacher_steps)
    every = settings.teacher_steps // num_segments
    assert every >= 2
    assert own.timesteps.tolist()[::every] == segment_times(num_segments)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("step", range(4))
def test_one_step_of_ddim_with_the_target_goes_from_the_start_to_the_end(prediction_type: str, step: int) -> None:
    betas = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    scheduler = DDIMScheduler(**betas, clip_sample=False, timestep_spacing="trailing", prediction_type=prediction_type)
    scheduler.set_timesteps(4)
    starts, ends = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    begins = segment_times(4)
    alphas = [*(float(scheduler.alphas_cumprod[t]) for t in begins), 1.0]
    target = one_step_target(
        starts,
        ends,
        torch.full((2,), alphas[step]),
        torch.full((2,), alphas[step + 1]),
        is_v=prediction_type == "v_prediction",
    )
    reached = scheduler.step(target, begins[step], starts).prev_sample
    torch.testing.assert_close(reached, ends, atol=2e-4, rtol=1e-4)
    of_all = (torch.full((2,), alphas[step]), torch.full((2,), alphas[step + 1]))
    ours = one_step(starts, target, *of_all, is_v=prediction_type == "v_prediction")
    torch.testing.assert_close(ours, reached, atol=2e-4, rtol=1e-4)


@pytest.fixture
def teacher(snapshot: Snapshot, components: Components, cache: Path, tmp_path: Path) -> Teacher:
    bench = make_bench(snapshot, settings_of(**SPEED), components, cache)
    digests = {"unet": "u", "text_encoder": "t"}
    return Teacher(components, bench.settings, bench.texts, digests, 64, tmp_path / "paths")


def draw(teacher: Teacher, plans: list[PathPlan], processes: Processes) -> torch.Tensor:
    return teacher.draw(plans, processes, report=lambda words: None, cancelled=lambda: False)


def test_a_path_is_what_diffusers_own_pipeline_draws(teacher: Teacher, processes: Processes) -> None:
    caption = "a red shoe, white ground, side view"
    drawn = draw(teacher, [PathPlan("0", caption, 5), PathPlan("1", "a black boot, white ground", 6)], processes)
    assert drawn.shape == (2, 5, 4, 8, 8)
    pipeline = teacher.components.pipeline
    own = pipeline.scheduler
    pipeline.scheduler = teacher_scheduler(own)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(5))
    seen: list[torch.Tensor] = [noise]

    def look(__: object, step: int, timestep: int, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        seen.append(values["latents"].clone())
        return values

    pipeline(
        caption,
        height=64,
        width=64,
        latents=noise,
        num_inference_steps=8,
        guidance_scale=3.0,
        output_type="latent",
        callback_on_step_end=look,
    )
    pipeline.scheduler = own
    for segment in range(5):
        torch.testing.assert_close(drawn[0, segment], seen[2 * segment][0], atol=1e-3, rtol=1e-3)


def test_paths_that_were_drawn_are_found_again(teacher: Teacher, processes: Processes) -> None:
    plans = [PathPlan("0", "a red shoe, white ground, side view", 5)]
    first = draw(teacher, plans, processes)
    (file,) = (teacher.folder).rglob("*.npy")
    before = file.stat().st_mtime_ns
    assert torch.equal(draw(teacher, plans, processes), first)
    assert file.stat().st_mtime_ns == before
    other = Teacher(**{**vars(teacher), "settings": settings_of(**{**SPEED, "teacher_guidance_scale": 4.0})})
    assert not torch.equal(draw(other, plans, processes), first), "another guidance is another path"


def maker_of(teacher: Teacher, snapshot: Snapshot, components: Components, cache: Path) -> SegmentMaker:
    bench = make_bench(snapshot, teacher.settings, components, cache)
    trained, held_out = plan_paths(bench.data, teacher.settings)
    return SegmentMaker(
        data=bench.data,
        settings=teacher.settings,
        noise_scheduler=bench.noise_scheduler,
        texts=bench.texts,
        device=CPU,
        trained=trained,
        trained_PSCHW=torch.randn(len(trained), 5, 4, 8, 8),
        held_out=held_out,
        held_out_PSCHW=torch.randn(len(held_out), 5, 4, 8, 8),
    )


def test_on_its_own_path_each_segment_begins_where_the_lora_has_come_to(
    teacher: Teacher, snapshot: Snapshot, components: Components, cache: Path
) -> None:
    maker = maker_of(teacher, snapshot, components, cache)
    maker.settings = settings_of(**SPEED, on_own_path=True, train_batch_size=8)
    assert torch.equal(maker.batch(1).noisy_BCHW[0], maker.trained_PSCHW[maker._nth(8)]), "nothing learns yet"
    maker.denoiser = Denoiser(components, train_text_encoder=False)
    batch = maker.batch(0)
    assert batch.timesteps_B.tolist() == segment_times(4) * 2
    ends = {"clip_sample": False, "set_alpha_to_one": True, "timestep_spacing": "trailing"}
    scheduler = DDIMScheduler.from_config(maker.noise_scheduler.config, **ends)
    scheduler.set_timesteps(4)
    (path, __), at = maker._nth(0), batch.noisy_BCHW[:1]
    assert torch.equal(at[0], maker.trained_PSCHW[path, 0])
    for segment in range(4):
        torch.testing.assert_close(batch.noisy_BCHW[segment : segment + 1], at, atol=1e-3, rtol=1e-3)
        text, timestep = batch.text_BND[segment : segment + 1], scheduler.timesteps[segment]
        target, end = batch.target_BCHW[segment : segment + 1], maker.trained_PSCHW[path, segment + 1]
        torch.testing.assert_close(
            scheduler.step(target, timestep, at).prev_sample[0],
            end,
            atol=1e-3,
            rtol=1e-3,
            msg="to where the teacher was",
        )
        with torch.no_grad():
            prediction = components.unet(at, timestep, encoder_hidden_states=text).sample
        at = scheduler.step(prediction, timestep, at).prev_sample


def test_each_segment_is_seen_once_before_one_is_seen_again_and_batches_are_functions_of_their_number(
    teacher: Teacher, snapshot: Snapshot, components: Components, cache: Path
) -> None:
    maker, again = (maker_of(teacher, snapshot, components, cache) for __ in range(2))
    again.trained_PSCHW = maker.trained_PSCHW
    batches = [maker.batch(number) for number in range(8)]  # 4 paths of 4 segments, two at once
    starts = {start.numpy().tobytes() for batch in batches for start in batch.noisy_BCHW}
    assert len(starts) == 16
    assert sorted(t for batch in batches for t in batch.timesteps_B.tolist()) == sorted(segment_times(4) * 4)
    assert torch.equal(again.batch(5).target_BCHW, batches[5].target_BCHW)
    assert again.batch(5).keys == batches[5].keys


def test_paths_to_test_with_have_captions_that_are_not_trained_on(snapshot: Snapshot) -> None:
    from studio.training.torch.data import make_training_set

    settings = settings_of(**{**SPEED, "held_out_percent": 30})
    data = make_training_set(snapshot, settings, resolution=64)
    trained, held_out = plan_paths(data, settings)
    assert {plan.key for plan in held_out} == {item.key for item in data.held_out}
    assert len(held_out) == min(NUM_FIXED, len(trained))
    assert not {plan.noise_seed for plan in trained} & {plan.noise_seed for plan in held_out}


def test_a_fraction_of_the_paths_has_captions_in_other_words(snapshot: Snapshot) -> None:
    from studio.training.torch.data import make_training_set

    def planned(variety: float) -> tuple[PathPlan, ...]:
        settings = settings_of(**{**SPEED, "num_teacher_images": 60, "caption_variety": variety})
        data = make_training_set(snapshot, settings, resolution=64)
        trained, held_out = plan_paths(data, settings)
        known = {item.caption for item in (*data.items, *data.held_out)}
        assert {plan.caption for plan in held_out} <= known
        assert {plan.caption for plan in (*trained, *held_out)} == {*taught_captions(data, settings)}
        return trained

    plain, varied, all_varied = (planned(variety) for variety in (0.0, 0.5, 1.0))
    same = [ours == theirs for ours, theirs in zip(plain, varied, strict=True)]
    assert 15 < sum(same) < 50
    assert [plan.noise_seed for plan in plain] == [plan.noise_seed for plan in all_varied]
    assert all(plan.caption.endswith(GROUNDS) for plan in all_varied)
    assert len({plan.caption for plan in all_varied}) > len({plan.caption for plan in plain})
    assert taught_captions(make_training_set(snapshot, settings_of(), resolution=64), settings_of()) == ()


def test_another_captions_words_are_taken_where_it_has_as_many() -> None:
    rng = random.Random(0)
    made = {worded_otherwise("Red Suede Boots, Summer", ("Blue Canvas Shoes", "Boots"), rng) for __ in range(200)}
    words = {
        tuple(set(caption.replace(",", "").split()) & {"red", "blue", "suede", "canvas", "boots", "shoes"})
        for caption in made
    }
    assert all(len(found) == 3 for found in words), "one word for each place"
    assert any("blue suede boots" in caption for caption in made)
    assert any(caption.startswith("a photo of ") for caption in made)


def speed_run(place: Place, **changes: object) -> RunFolder:
    images = {"num_validation_images": 1, "validation_inference_steps": 2, "validation_steps": 4}
    settings = {**SPEED, **images, "lora_dropout": 0.0, "targets": "as LCM-LoRA", "name": "fast", **changes}
    return place.begin(**settings)


def losses(run: RunFolder) -> list[tuple[int, float]]:
    return [(e.step, e.loss) for e in read_events(run.events) if isinstance(e, StepEvent)]


def finished(run: RunFolder) -> FinishedEvent:
    (event,) = (event for event in read_events(run.events) if isinstance(event, FinishedEvent))
    return event


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_run_learns_and_its_file_says_how_it_is_used(place: Place, prediction_type: str) -> None:
    run = speed_run(place, prediction_type=prediction_type, max_train_steps=8)
    assert train_run(run, place.user_data) == "finished"
    assert finished(run).problems == ()
    measured = [e for e in read_events(run.events) if isinstance(e, HeldOutEvent)]
    assert measured[-1].trained_loss < 0.8 * measured[0].trained_loss
    with safe_open(run.root / "fast.safetensors", framework="pt") as file:
        metadata = file.metadata()
        assert any("time_emb_proj" in name for name in file.keys())  # noqa: SIM118 - safetensors' own
    use = SpeedUse.model_validate_json(metadata[SPEED_METADATA])
    assert (use.num_inference_steps, use.guidance_scale, use.timesteps) == (4, 1.0, (999, 749, 499, 249))
    assert "SGM Uniform" in metadata["modelspec.usage_hint"]
    assert speed_loras(LoraLibrary(place.user_data.loras)) == {"fast": use}


def test_images_are_the_teachers_and_below_them_the_same_in_few_steps(place: Place) -> None:
    run = speed_run(place, max_train_steps=4)
    train_run(run, place.user_data)
    event = [e for e in read_events(run.events) if isinstance(e, SampleEvent)][-1]
    assert event.base[0]
    assert event.pictures[0]
    teacher, ours = (read_picture_text(run.root / file).settings for file in (event.base[0], event.pictures[0]))
    assert (teacher.num_inference_steps, teacher.guidance_scale) == (2, 3.0)
    assert (ours.num_inference_steps, ours.guidance_scale, ours.scheduler) == (4, 1.0, "Euler trailing")
    (score,) = [e for e in read_events(run.events) if isinstance(e, ScoreEvent) and e.step == 4]
    pixels = [np.asarray(__import__("PIL.Image").Image.open(run.root / f)) for f in (event.base[0], event.pictures[0])]
    wanted = np.sqrt(np.square(pixels[0].astype(float) - pixels[1]).mean())
    assert score.distances == (pytest.approx(wanted),)
    assert score.nearest == (None,), "it is not its dataset that it learns"


@pytest.mark.parametrize("own", [False, True])
def test_interrupted_it_ends_equal_to_the_bit_and_draws_nothing_twice(
    place: Place, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = speed_run(place, caption_variety=0.5, on_own_path=own)
    train_run(whole, place.user_data)
    files = {file: file.stat().st_mtime_ns for file in (place.user_data.cache / "paths").rglob("*.npy")}
    assert files
    run, take = speed_run(place, caption_variety=0.5, on_own_path=own), OptimizerSteps.take

    def interrupted(steps: OptimizerSteps) -> StepEvent:
        if steps.state.position.step == 5:
            raise KeyboardInterrupt
        return take(steps)

    with monkeypatch.context() as patched:
        patched.setattr(OptimizerSteps, "take", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_run(run, place.user_data)
    assert train_run(run, place.user_data) == "finished"
    assert losses(run) == losses(whole)
    ours, theirs = (load_file(folder.root / "fast.safetensors") for folder in (run, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert {file: file.stat().st_mtime_ns for file in (place.user_data.cache / "paths").rglob("*.npy")} == files


def test_the_teachers_lora_acts_in_its_images_in_training_and_in_the_files_check(place: Place) -> None:
    style = place.begin(name="style", max_train_steps=4)
    train_run(style, place.user_data)
    plain, run = speed_run(place), speed_run(place, teacher_lora="style", teacher_lora_strength=0.5)
    for folder in (plain, run):
        train_run(folder, place.user_data)
        assert finished(folder).problems == ()
    assert losses(plain)[0] != losses(run)[0]
    event = [e for e in read_events(run.events) if isinstance(e, SampleEvent)][-1]
    assert event.base[0]
    assert event.pictures[0]
    teacher, ours = (read_picture_text(run.root / file).settings for file in (event.base[0], event.pictures[0]))
    style_choice = LoraChoice(name="style", strength=0.5)
    assert teacher.loras == (style_choice,)
    assert ours.loras[0] == style_choice
    assert len(ours.loras) == 2


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], object]) -> None:
    """Do something once, before the step that follows this one."""
    take, done = OptimizerSteps.take, []

    def acting(steps: OptimizerSteps) -> StepEvent:
        if steps.state.position.step == step and not done:
            done.append(step)
            act()
        return take(steps)

    monkeypatch.setattr(OptimizerSteps, "take", acting)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def taught(place: Place) -> tuple[RunFolder, LoraLibrary]:
    """A Speed LoRA's run that is not begun, and the library that has its teacher, named style."""
    style = place.begin(name="style", max_train_steps=1, train_text_encoder=True)
    train_run(style, place.user_data)
    return speed_run(place, teacher_lora="style", max_train_steps=4), LoraLibrary(place.user_data.loras)


def test_a_teacher_that_is_renamed_meanwhile_goes_on_teaching(
    place: Place, taught: tuple[RunFolder, LoraLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, library = taught
    at_step(monkeypatch, 2, lambda: library.rename("style", "manner"))
    assert train_run(run, place.user_data) == "finished"
    assert {"manner", "fast"} <= set(library.names())
    assert "style" not in library.names()
    assert finished(run).problems == ()
    assert all(all(e.pictures) for e in read_events(run.events) if isinstance(e, SampleEvent))


def test_a_teacher_that_is_renamed_while_the_run_prepares_goes_on_teaching(
    place: Place, taught: tuple[RunFolder, LoraLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, library = taught

    class Renaming(Teacher):
        def maker(self, *args: Any, **named: Any) -> SegmentMaker:  # noqa: ANN401 - whatever a teacher is asked
            library.rename("style", "manner")
            return super().maker(*args, **named)

    monkeypatch.setattr(preparation, "Teacher", Renaming)
    assert train_run(run, place.user_data) == "finished"
    assert finished(run).problems == ()


def test_a_teacher_that_was_renamed_while_the_run_stood_still_is_found_by_its_bytes(
    place: Place, taught: tuple[RunFolder, LoraLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, library = taught
    whole = speed_run(place, teacher_lora="style", max_train_steps=4)
    train_run(whole, place.user_data)
    with monkeypatch.context() as patched:
        at_step(patched, 2, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_run(run, place.user_data)
    library.rename("style", "manner")
    (place.user_data.loras / "style.safetensors").write_bytes((whole.root / "fast.safetensors").read_bytes())
    assert train_run(run, place.user_data) == "finished"
    assert losses(run) == losses(whole)


def test_a_run_whose_teacher_is_gone_says_so_and_goes_on_when_it_is_back(
    place: Place, taught: tuple[RunFolder, LoraLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, __ = taught
    with monkeypatch.context() as patched:
        at_step(patched, 2, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_run(run, place.user_data)
    file = place.user_data.loras / "style.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(LoraError, match=r"no longer has the LoRA style with which the run began\. Put it back"):
        train_run(run, place.user_data)
    file.write_bytes(content)
    assert train_run(run, place.user_data) == "finished"


def test_a_run_goes_on_where_the_teachers_sums_have_other_last_bits(
    place: Place, taught: tuple[RunFolder, LoraLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another device: begun on a GPU, it goes on on a CPU."""
    run, __ = taught
    summed = lora_layers.changed_weight

    def as_on_another_device(weight: torch.Tensor, stack: lora_layers.Stack) -> torch.Tensor:
        return summed(weight, stack) * (1 + 2**-23)

    with monkeypatch.context() as patched:
        patched.setattr(lora_layers, "changed_weight", as_on_another_device)
        at_step(patched, 2, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_run(run, place.user_data)
    assert train_run(run, place.user_data) == "finished"
    assert finished(run).problems == ()


def test_a_run_from_before_loras_were_kept_in_the_plan_goes_on(
    place: Place, taught: tuple[RunFolder, LoraLibrary], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digests are those of the model with the teacher's LoRA."""
    run, __ = taught
    learned_from: list[Mapping[str, str]] = []
    fill = preparation.fill_caches

    def watched(settings: Any, data: Any, components: Any, digests: Mapping[str, str], **options: Any) -> Any:  # noqa: ANN401
        learned_from.append(digests)
        return fill(settings, data, components, digests, **options)

    with monkeypatch.context() as patched:
        patched.setattr(preparation, "fill_caches", watched)
        at_step(patched, 2, interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_run(run, place.user_data)
    plan = read_plan(run)
    assert plan is not None
    assert plan.model_digests != learned_from[0]
    write_plan(run, plan.model_copy(update={"loras": {}, "model_digests": dict(learned_from[0])}))
    assert train_run(run, place.user_data) == "finished"


def test_the_paths_of_another_scheduler_are_others(teacher: Teacher, processes: Processes) -> None:
    """Of a model with the same weights and another noise: what was drawn for one is not found for the other."""
    plans = [PathPlan("0", "a red shoe, white ground, side view", 5)]
    first = draw(teacher, plans, processes)
    pipeline = teacher.components.pipeline
    own = pipeline.scheduler
    pipeline.scheduler = type(own).from_config(own.config, beta_end=0.02)
    other = draw(teacher, plans, processes)
    pipeline.scheduler = own
    assert not torch.equal(other, first)
    assert len(list(teacher.folder.rglob("*.npy"))) == 2


def test_a_teachers_name_may_have_dots(place: Place) -> None:
    style = place.begin(name="style v1.5", max_train_steps=1)
    train_run(style, place.user_data)
    run = speed_run(place, teacher_lora="style v1.5", max_train_steps=2, teacher_lora_strength=0.5)
    assert train_run(run, place.user_data) == "finished"
    assert speed_loras(LoraLibrary(place.user_data.loras))["fast"].teacher_lora == "style v1.5"
    with safe_open(run.root / "fast.safetensors", framework="pt") as file:
        assert file.metadata()["modelspec.usage_hint"].endswith("<lora:fast:1> <lora:style v1.5:0.5>")
    of_a_file = settings_of(**{**SPEED, "teacher_lora": str(style.root / "style v1.5.safetensors")})
    assert speed_use(of_a_file).teacher_lora == "style v1.5"


def test_make_it_fast_takes_model_captions_and_size_of_the_run_and_its_lora(place: Place) -> None:
    style = place.begin(
        name="style", max_train_steps=1, trigger_word="zzz", train_text_encoder=True, validation_guidance_scale=4
    )
    train_run(style, place.user_data)
    run = begin_making_fast(style, "style", place.user_data, ["max_train_steps=2"])
    assert read_status(run).state == "new"
    from studio.training.begin import read_run_settings

    settings = read_run_settings(run)
    assert settings.makes_speed_lora
    assert (settings.name, settings.teacher_lora, settings.trigger_word) == ("style 4 steps", "style", "zzz")
    assert (settings.model, settings.dataset, settings.resolution) == (str(place.model), str(place.dataset), 64)
    assert (settings.max_train_steps, settings.teacher_guidance_scale) == (2, 4)
    assert not settings.train_text_encoder
    assert settings.train_batch_size * settings.gradient_accumulation_steps == 16


def test_a_teachers_lora_that_is_not_there_is_said_before_the_run(place: Place) -> None:
    with pytest.raises(LoraError, match="no LoRA named nowhere"):
        speed_run(place, teacher_lora="nowhere")


def test_settings_that_a_speed_lora_cannot_have_are_refused() -> None:
    settings = settings_of(**{**SPEED, "train_text_encoder": True, "shuffle_caption": True})
    with pytest.raises(SettingsError, match="train_text_encoder, shuffle_caption must stay at the default"):
        assert_consistent(settings)
    assert_consistent(settings_of(**SPEED))
    assert_consistent(speed_settings(settings_of(train_text_encoder=True, mask_folder="masks"), "style"))


def test_few_steps_change_only_an_image_of_a_speed_lora() -> None:
    generation = GenerationSettings(prompt="boots")
    assert settings_of().drawn_fast(generation) == generation
    fast = settings_of(**{**SPEED, "speed_steps": 2}).drawn_fast(generation)
    assert (fast.scheduler, fast.num_inference_steps, fast.guidance_scale) == ("Euler trailing", 2, 1.0)
