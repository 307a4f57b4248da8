"""The short way: what follows from images, kind and machine; captions are there before the first step."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.core.errors import DatasetError
from studio.core.paths import UserData, assets_folder
from studio.core.settings import SHIPPED_MODEL, parse_settings
from studio.datasets.caption_job import run_captioning
from studio.datasets.captioning import CaptionSettings, dataset_of, open_dataset
from studio.datasets.snapshot import read_snapshot
from studio.training.begin import checked_dataset
from studio.training.folder import write_plan
from studio.training.presets import BY_MEASURE, KINDS, NO_CAPTIONS, PRESETS, KindName, ShortWay
from studio.training.settings import TrainingSettings
from studio.training.short_way import (
    MAX_SECONDS,
    MAX_VIEWS,
    MIN_VIEWS,
    DatasetFacts,
    Machine,
    ShortPlan,
    begin_short_way,
    facts_of,
    plan_short_way,
    prepare_dataset,
)
from tests.training.told_runs import make_plan

GIB = 1024**3
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
CPU, SMALL, LARGE = Machine(), Machine("cuda", 8 * GIB), Machine("cuda", 24 * GIB)


def planned(
    num_images: int = 20,
    *,
    captioned: int = 0,
    machine: Machine = CPU,
    model: str = SD15,
    captioner: str = "",
    taken: tuple[str, ...] = (),
    **wanted: object,
) -> ShortPlan:
    asked = parse_settings(ShortWay, {"dataset": "shoes", **wanted})
    images = DatasetFacts("shoes", num_images, captioned)
    return plan_short_way(asked, images, machine, model=model, captioner=captioner, taken=taken)


def said(plan: ShortPlan) -> str:
    return " ".join(sentence.text for sentence in plan.sentences)


@pytest.mark.parametrize(
    ("kind", "num_images", "model", "machine", "steps", "at_once", "rank"),
    [
        ("product", 20, SD15, CPU, 500, 1, 8),  # 100 × 20 / 4
        ("style", 50, SD15, CPU, 750, 1, 16),  # 60 × 50 / 4
        ("object", 20, SD15, SMALL, 500, 1, 8),
        ("person", 20, SD15, LARGE, 600, 4, 16),  # 120 × 20 / 4
        ("object", 3, SD15, CPU, MIN_VIEWS // 4, 1, 8),
        ("object", 5000, SD15, LARGE, MAX_VIEWS // 4, 4, 8),
        ("person", 60, SHIPPED_MODEL, CPU, 450, 16, 8),
        ("product", 6, SHIPPED_MODEL, CPU, 94, 16, 8),
    ],
)
def test_settings_follow_from_kind_images_model_and_machine(
    kind: str, num_images: int, model: str, machine: Machine, steps: int, at_once: int, rank: int
) -> None:
    settings = planned(num_images, kind=kind, model=model, machine=machine).settings
    assert (settings.max_train_steps, settings.train_batch_size, settings.rank) == (steps, at_once, rank)
    assert settings.train_batch_size * settings.gradient_accumulation_steps in (4, 16)
    assert settings.mixed_precision == ("fp16" if machine.device == "cuda" else "no")
    assert settings.validation_steps <= steps
    assert settings.model == model


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_the_layers_of_its_preset(kind: KindName) -> None:
    changes = {**PRESETS[KINDS[kind].preset].changes, **KINDS[kind].changes}
    usual = TrainingSettings.model_fields["targets"].default
    assert planned(kind=kind).settings.targets == changes.get("targets", usual)


def test_a_slow_machine_trains_a_night_at_most_and_says_what_the_rest_would_take() -> None:
    slow = planned(100, machine=Machine(image_seconds=30.0))
    assert slow.settings.max_train_steps * 4 * 30 <= MAX_SECONDS * 1.01
    assert "It takes about 8 h" in said(slow)
    assert "the usual number of steps would take" in said(slow)
    quick = planned(100, machine=Machine(image_seconds=0.1))
    assert quick.settings.max_train_steps == 2500
    assert "It takes about 16 min 40 s." in said(quick)
    crawling = planned(100, machine=Machine(image_seconds=1000.0))
    assert crawling.settings.max_train_steps == MIN_VIEWS // 3 // 4, "less would teach nothing"


@pytest.mark.parametrize(
    ("captioned", "captions", "captioner", "model", "is_measured", "words"),
    [
        (20, "auto", "blip", "", False, "Every image has a caption"),
        (5, "auto", "blip", "blip", True, "15 images without a caption: blip writes captions first."),
        (5, "auto", "", "", True, "as no caption model is on this machine"),
        (5, BY_MEASURE, "blip", "", True, "colour and background are measured and named."),
        (5, NO_CAPTIONS, "blip", "", False, "the trigger word alone stands for them"),
        (0, "other/captioner", "blip", "other/captioner", True, "other/captioner writes captions first."),
    ],
)
def test_who_writes_missing_captions_is_said(
    captioned: int, captions: str, captioner: str, model: str, is_measured: bool, words: str
) -> None:
    plan = planned(captioned=captioned, captions=captions, captioner=captioner)
    assert (plan.caption_model, bool(plan.template)) == (model, is_measured)
    assert words in said(plan)


def test_the_name_is_that_of_the_images_and_never_one_that_is_taken() -> None:
    assert planned().settings.name == "shoes"
    assert planned(name="red boots").settings.trigger_word == "redboots"
    taken = planned(name="Boots", taken=("boots", "Boots 2"))
    assert taken.settings.name == "Boots 3"
    assert "The library has a LoRA Boots already: this one is called Boots 3." in said(taken)
    assert planned(trigger_word="ohwx").settings.trigger_word == "ohwx"


def test_nothing_to_train_on_is_said_at_the_images() -> None:
    with pytest.raises(DatasetError, match="No image of shoes can be trained on") as caught:
        planned(0)
    assert caught.value.problems[0].fields == ("dataset",)


@pytest.fixture
def place(tmp_path: Path) -> UserData:
    """A dataset `bare` of three drawings, the first of which has a caption."""
    source = tmp_path / "bare"
    source.mkdir()
    for file in sorted((assets_folder() / "casual-shoes" / "images").glob("*.jpg"))[:3]:
        shutil.copy(file, source)
    (source / "10001.txt").write_text("my own words", encoding="utf-8")
    data = UserData(tmp_path / "data")
    dataset_of(str(source), data)
    return data


class Sayer:
    """Says the same of each image."""

    says_tags = False

    def caption(self, image: object, **asked: object) -> tuple[str, ...]:
        return ("a shoe",)

    def load(self, settings: CaptionSettings, say: object, should_stop: object) -> "Sayer":
        return self


def plan_of(place: UserData, **wanted: object) -> ShortPlan:
    opened = checked_dataset("bare", place)
    asked = parse_settings(ShortWay, {"dataset": "bare", **wanted})
    return plan_short_way(asked, facts_of("bare", opened.rows), CPU, captioner="Salesforce/any")


def captions_of(path: Path) -> list[str]:
    return [entry.caption for entry in read_snapshot(path).entries]


def test_missing_captions_are_measured_before_the_first_step_and_kept_in_the_dataset(place: UserData) -> None:
    run, job = begin_short_way(plan_of(place, captions=BY_MEASURE), place, cpu=True)
    assert job is None
    assert captions_of(run.dataset) == ["my own words", "", ""]
    prepare_dataset(run, place)
    measured = ["my own words", "white product, white background", "brown product, white background"]
    assert captions_of(run.dataset) == measured
    opened = open_dataset(CaptionSettings(dataset="bare"), place)
    assert [row.caption for row in opened.rows] == measured
    opened.undo()
    prepare_dataset(run, place)
    assert captions_of(run.dataset) == measured, "a run prepares once"


def test_a_run_waits_for_the_captions_that_a_model_writes(place: UserData) -> None:
    run, job = begin_short_way(plan_of(place), place, cpu=True)
    assert job is not None
    with pytest.raises(DatasetError, match="The captions of bare are not written yet"):
        prepare_dataset(run, place)
    run_captioning(job, place, Sayer().load)
    prepare_dataset(run, place)
    assert captions_of(run.dataset) == ["my own words", "a shoe", "a shoe"]


def test_captions_that_were_taken_meanwhile_stay(place: UserData) -> None:
    run, job = begin_short_way(plan_of(place), place, cpu=True)
    assert job is not None
    run_captioning(job, place, Sayer().load)
    opened = open_dataset(CaptionSettings(dataset="bare"), place)
    opened.set_captions({"10002.jpg": "typed", "10003.jpg": "typed too"}, what="typed")
    prepare_dataset(run, place)
    assert captions_of(run.dataset) == ["my own words", "typed", "typed too"]


def test_a_run_that_began_keeps_its_snapshot(place: UserData) -> None:
    run, __ = begin_short_way(plan_of(place, captions=BY_MEASURE), place, cpu=True)
    write_plan(run, make_plan(num_pictures=3))
    prepare_dataset(run, place)
    assert captions_of(run.dataset) == ["my own words", "", ""]


@pytest.mark.parametrize(
    ("kind", "background", "num_coloured", "on_white", "words"),
    [
        ("product", "white", 4, True, "4 images on another background are put on pure white first."),
        ("product", "white", 0, False, "Every background is white."),
        ("product", "as it is", 4, False, "Backgrounds stay as they are; 4 images on another one than white."),
        ("product", "as it is", 0, False, ""),
        ("person", "as it is", 4, False, ""),
        ("person", "white", 4, True, "4 images on another background are put on pure white first."),
    ],
)
def test_images_are_put_on_white_only_where_that_is_asked(
    kind: str, background: str, num_coloured: int, on_white: bool, words: str
) -> None:
    asked = parse_settings(ShortWay, {"dataset": "shoes", "kind": kind, "background": background})
    plan = plan_short_way(asked, DatasetFacts("shoes", 20, 20, num_coloured=num_coloured), CPU)
    assert plan.on_white == on_white
    assert [s.text for s in plan.sentences if s.about == "background"] == ([words] if words else [])


def test_backgrounds_that_are_not_checked_yet_are_looked_at_before_the_first_step() -> None:
    asked = parse_settings(ShortWay, {"dataset": "shoes", "kind": "product", "background": "white"})
    plan = plan_short_way(asked, DatasetFacts("shoes", 20, 20, num_unchecked=3), CPU)
    assert plan.on_white
    assert "The backgrounds are being checked" in said(plan)


def test_no_model_describes_a_background_that_is_replaced(place: UserData) -> None:
    source = Path(open_dataset(CaptionSettings(dataset="bare"), place).recipe.source)
    pixels = np.full((256, 256, 3), 150, np.uint8)
    pixels[90:180, 60:200] = (190, 20, 20)
    Image.fromarray(pixels).save(source / "grey.png")
    plan = plan_of(place, background="white")
    assert "Of those without a caption, colour and background are measured and named." in said(plan)
    run, job = begin_short_way(plan, place, cpu=True)
    assert job is not None
    run_captioning(job, place, Sayer().load)
    prepare_dataset(run, place)
    assert captions_of(run.dataset) == ["my own words", "a shoe", "a shoe", "red product, white background"]
    asked = parse_settings(ShortWay, {"dataset": "shoes", "kind": "product", "background": "white"})
    alone = plan_short_way(asked, DatasetFacts("shoes", 4, 0, num_coloured=4), CPU, captioner="any")
    assert (alone.caption_model, bool(alone.template)) == ("", True)


def test_backgrounds_are_white_before_captions_are_measured(place: UserData) -> None:
    source = Path(open_dataset(CaptionSettings(dataset="bare"), place).recipe.source)
    pixels = np.full((256, 256, 3), 150, np.uint8)
    pixels[90:180, 60:200] = (190, 20, 20)
    Image.fromarray(pixels).save(source / "grey.png")
    assert facts_of("bare", checked_dataset("bare", place).rows).num_coloured == 1
    run, __ = begin_short_way(plan_of(place, captions=BY_MEASURE, background="white"), place, cpu=True)
    prepare_dataset(run, place)
    assert captions_of(run.dataset)[-1] == "red product, white background"
    assert facts_of("bare", checked_dataset("bare", place).rows).num_coloured == 0
    assert Path(read_snapshot(run.dataset).entries[-1].path).parent != source


@pytest.mark.parametrize(
    ("folder", "taken", "name"),
    [
        ("(2024) boots", (), "2024) boots"),
        ("a" * 200, ("A" * 76,), "a" * 76 + " 2"),
        ("¿?", (), "LoRA"),
        ("shoes", ("Shoes", "shoes 2"), "shoes 3"),
    ],
)
def test_a_lora_is_named_after_any_folder(folder: str, taken: tuple[str, ...], name: str) -> None:
    plan = plan_short_way(parse_settings(ShortWay, {"dataset": "x"}), DatasetFacts(folder, 20, 20), CPU, taken=taken)
    assert plan.settings.name == name
