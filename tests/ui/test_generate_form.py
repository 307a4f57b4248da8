"""The form: what it says becomes settings, and settings become what it says."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.core.errors import SettingsError
from studio.core.paths import UserData, assets_folder
from studio.core.results import FailedImage, ImagesReport
from studio.core.settings import SHIPPED_MODEL, SMOKE_PROMPTS, GenerationSettings, ImagesSettings, LoraChoice
from studio.engine.pipeline import PipelineManager
from studio.engine.process.view import EngineView
from studio.loras.library import LoraLibrary
from studio.loras.speed import FAST, MeasuredSpeeds, SpeedCost, keep_speeds
from studio.ui.forms import OWN_SIZE, size_text, size_values
from studio.ui.inference import compare
from studio.ui.inference import generate_form as generate
from studio.ui.inference.generate import render
from studio.ui.speed import render_costs


@pytest.fixture(scope="module")
def form() -> Iterator[generate.GenerateForm]:
    with gr.Blocks():
        yield generate.build_form()


def values_of(form: generate.GenerateForm, **changes: object) -> dict[str, Any]:
    """What the untouched form says, with changes."""
    return {name: getattr(part, "value", None) for name, part in form.named.items()} | changes


def after(form: generate.GenerateForm, settings: GenerationSettings) -> dict[str, Any]:
    """What the form says once settings were put into it."""
    values = values_of(form)
    updates = form.filled_by(settings)
    return values | {name: updates[control] for name, control in form.named.items() if control in updates}


def test_the_untouched_form_is_the_defaults(form: generate.GenerateForm) -> None:
    made = generate.to_settings(values_of(form, new_seed=False, prompt="x"))
    assert made.generation == GenerationSettings(prompt="x")
    assert made.num_images == 1


@pytest.mark.parametrize(
    "settings",
    [
        GenerationSettings(prompt="boots"),
        GenerationSettings(
            prompt="(boots:1.2)",
            negative_prompt="grass",
            num_inference_steps=7,
            guidance_scale=3.5,
            guidance_start=0.1,
            guidance_end=0.9,
            scheduler="Euler a",
            width=640,
            height=384,
            seed=2**40,
            long_prompt=True,
            loras=(LoraChoice(name="a", strength=0.5), LoraChoice(name="b", strength=-1)),
        ),
    ],
)
def test_settings_survive_the_form(form: generate.GenerateForm, settings: GenerationSettings) -> None:
    assert generate.to_settings(after(form, settings)).generation == settings


def test_more_loras_than_rows_go_into_the_prompt(form: generate.GenerateForm) -> None:
    loras = tuple(LoraChoice(name=name, strength=0.5) for name in "abcd")
    values = after(form, GenerationSettings(prompt="boots", loras=loras))
    assert values["prompt"] == "boots <lora:d:0.5>"


def test_a_new_seed_is_drawn_only_when_asked_for(form: generate.GenerateForm) -> None:
    seeds = {generate.to_settings(values_of(form, new_seed=True)).generation.seed for _ in range(5)}
    assert len(seeds) == 5
    assert generate.to_settings(values_of(form, new_seed=False, seed=9)).generation.seed == 9


@pytest.mark.parametrize("words", ["512x768", "512 × 768", " 512 X 768 ", "512,768", "512*768"])
def test_a_size_may_be_written_in_many_ways(words: str) -> None:
    assert size_values(words) == {"width": 512, "height": 768}


def test_sizes_and_words_fit_each_other() -> None:
    assert size_values(OWN_SIZE) == {"width": None, "height": None}
    assert size_text(GenerationSettings(prompt="", width=512, height=768)) == "512 × 768"


@pytest.mark.parametrize("words", ["", "big", "512", "512x"])
def test_what_is_no_size_is_said_to_be_none(words: str) -> None:
    with pytest.raises(SettingsError, match="Size must be width × height in pixels"):
        size_values(words)


def test_a_rule_that_is_broken_is_named(form: generate.GenerateForm) -> None:
    with pytest.raises(SettingsError, match=r"Guidance [(]guidance_scale[)] must be between 1 and 30, got 31\."):
        generate.to_settings(values_of(form, guidance_scale=31))
    with pytest.raises(SettingsError, match=r"Width must be a multiple of 8 between 64 and 2048, got 100"):
        generate.to_settings(values_of(form, width=100, height=64))


@pytest.mark.parametrize(("width", "height"), [(128, 128), (512, 512), (768, 512), (64, 64)])
def test_the_shapes_keep_the_area_of_the_model_and_can_be_made(width: int, height: int) -> None:
    sizes = generate.aspect_sizes(width, height)
    assert [name for name, *_ in sizes] == ["1:1", "3:4", "4:3", "2:3", "3:2"]
    for name, *sides in sizes:
        GenerationSettings(prompt="", width=sides[0], height=sides[1])
        if min(width, height) > 64:
            one, other = map(int, name.split(":"))
            assert sides[0] * sides[1] == pytest.approx(width * height, rel=0.08)
            assert sides[0] / sides[1] == pytest.approx(one / other, rel=0.08)
    assert {name: sides for name, *sides in generate.aspect_sizes(512, 512)}["2:3"] == [416, 624]


def test_a_side_that_is_left_out_is_the_models_own(form: generate.GenerateForm) -> None:
    made = generate.to_settings(values_of(form, width=256, height=None)).generation
    assert (made.width, made.height) == (256, None)


def compare_values(**changes: object) -> dict[str, Any]:
    with gr.Blocks():
        form, *_ = compare.build_form()
    return {name: getattr(part, "value", None) for name, part in form.items()} | changes


def test_the_untouched_comparison_is_base_against_the_lora_that_ships() -> None:
    settings = compare.to_settings(compare_values())
    assert settings.left == ()
    assert settings.right == (LoraChoice(name="white-ground"),)
    assert len(settings.prompts) == 2
    assert settings.strip == ()


def test_the_strip_goes_from_0_to_1_25() -> None:
    assert compare.to_settings(compare_values(strip=True)).strip == (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)


def test_two_sides_that_are_the_same_are_refused() -> None:
    with pytest.raises(SettingsError, match="Left and right are the same"):
        compare.to_settings(compare_values(left="white-ground"))


def test_no_prompt_is_refused() -> None:
    with pytest.raises(SettingsError, match="Prompts must not be empty"):
        compare.to_settings(compare_values(prompts=" \n "))


def test_both_forms_refuse_a_scheduler_and_steps_that_do_not_fit(form: generate.GenerateForm) -> None:
    lcm = {"scheduler": "LCM", "num_inference_steps": 60}
    for to_settings in (
        lambda: generate.to_settings(values_of(form, **lcm)),
        lambda: compare.to_settings(compare_values(**lcm)),
    ):
        with pytest.raises(
            SettingsError, match=r"^Steps [(]num_inference_steps[)] must be at most 50 with the scheduler LCM, got 60"
        ):
            to_settings()


def test_the_prompts_that_a_form_begins_with_are_what_the_shipped_model_was_taught() -> None:
    """Its README says which grounds it knows, and its tokenizer which words: others fall into pieces."""
    vocabulary = json.loads((assets_folder() / SHIPPED_MODEL / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    for prompt in (*SMOKE_PROMPTS, generate.FIRST_PROMPT):
        assert [word for word in re.findall(r"\w+|,", prompt) if f"{word}</w>" not in vocabulary] == [], prompt
        assert re.search("grey background|wooden floor|grass|street|studio", prompt), prompt


def state_of(view: EngineView) -> tuple[str, str]:
    """What is said of the last press, and where its images stand."""
    parts = render(view, LoraLibrary(), UserData(Path()))
    state, images = parts["generate-state"], parts["generate-pictures"]
    assert callable(state)
    assert callable(images)
    return state(), images()


def test_a_press_that_an_error_ended_is_said_to_have_ended_and_not_to_be_ready() -> None:
    settings = ImagesSettings(generation=GenerationSettings(prompt="x"), num_images=2)
    none = ImagesReport(settings=settings)
    said, images = state_of(EngineView(phase="ready", images=none, problem="The memory is full."))
    assert "The memory is full." in said
    assert "Ended early." in said
    assert "No image was made." in said
    assert "Ready." not in said
    assert (images.count("not made"), images.count("not made yet")) == (2, 0), "nothing is on its way"
    one = ImagesReport(settings=settings, images=(FailedImage(settings=settings.generation, error="e", checks=()),))
    assert "0 of 2 images made, checked and saved. 1 not valid." in state_of(EngineView(phase="ready", images=one))[0]
    images = state_of(EngineView(phase="loading", images=none))[1]
    assert images.count("not made yet") == 2, "it begins when the model is loaded"
    cancelled = none.model_copy(update={"finished": True, "cancelled": True})
    assert "Ready." in state_of(EngineView(phase="ready", images=cancelled))[0]


def test_what_speeds_cost_on_the_loaded_model_is_a_table(tmp_path: Path, manager: PipelineManager) -> None:
    assert manager.facts is not None
    view, file = EngineView(phase="ready", facts=manager.facts), tmp_path / "speeds.json"
    assert "Not measured yet" in render_costs(view, LoraLibrary(), file)
    cost = SpeedCost(seconds=0.5, full_seconds=2.0, distance=4.56, whiteness=-0.02, sharpness=0.013, named_right=0)
    keep_speeds(
        file, MeasuredSpeeds(model="shoes-demo", measured_at=datetime.now(UTC), num_images=3, costs={FAST: cost})
    )
    table = render_costs(view, LoraLibrary(), file)
    for words in ("Fast (DPM++ 2M, 8 steps)", "0.25\u00a0×", "4.6", "-2%", "+1%", "Measured on shoes-demo"):
        assert words in table
    assert "Not measured yet" in render_costs(EngineView(), LoraLibrary(), file), "of no model"
