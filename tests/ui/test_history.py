"""The strip of past images, and what can be done with an image: each press acts on the image that it is on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
import send2trash

from studio.core.paths import UserData
from studio.core.records import Label, label_beside, read_label
from studio.core.settings import GenerationSettings, ImagesSettings, LoraChoice, ModelSettings
from studio.engine.process.client import EngineClient
from studio.images.gallery import History, picture_name
from studio.training.session import TrainingSession
from studio.ui.inference.history import NUM_VARIATIONS, PER_PAGE, PastImages, shown_large, strip_html
from studio.ui.shell.app import build_app
from studio.ui.shell.parts import Refusal
from studio.ui.shell.selection import Selection, read_selection
from tests.images.test_gallery import add, add_many
from tests.ui.test_labels import Pressed
from tests.ui.test_mutated_user_data import CheckedAtOnce


@pytest.fixture(scope="module")
def user_data(tmp_path_factory: pytest.TempPathFactory) -> UserData:
    return UserData(tmp_path_factory.mktemp("past") / "user_data")


@pytest.fixture(scope="module")
def asked() -> list[ImagesSettings]:
    """What the engine was asked to make."""
    return []


@pytest.fixture(scope="module")
def page(user_data: UserData, asked: list[ImagesSettings]) -> Iterator[gr.Blocks]:
    class Asked(EngineClient):
        def generate(self, settings: ImagesSettings) -> None:
            asked.append(settings)

    datasets = CheckedAtOnce(user_data, count_tokens=len)
    engine = Asked(user_data, model=ModelSettings(), cpu_only=True)
    yield build_app(engine, datasets, TrainingSession(user_data), user_data, cpu_only=True)
    datasets.close()


@pytest.fixture
def image(user_data: UserData) -> Path:
    lora = {"name": "white-ground", "strength": 0.5}
    return add(user_data.outputs, "2026-11-25/000001-000000-seed9.png", "red boots,\nsnow", loras=(lora,))


def press(page: gr.Blocks, event: str, *values: object, box: str = "strip", **data: object) -> dict[str, Any]:
    """What becomes of the parts of the page, by their ids."""
    pressed = Pressed(page, "generate")
    pressed.press(box, *values, event=event, **data)
    return pressed.by_id


def past_of(user_data: UserData, **chosen: object) -> str:
    past = PastImages(History(user_data.outputs), user_data.cache / "run-thumbnails")
    return strip_html(past, Selection.model_validate(chosen))


def test_the_strip_has_the_newest_first_a_page_at_a_time_and_finds_by_words(tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    assert "No images yet" in past_of(user_data)
    paths = add_many(user_data.outputs, PER_PAGE + 2)
    add(user_data.outputs, "2025-01-01/000000-000000-seed7.png", "blue sandals")
    label_beside(paths[0]).write_text(Label(note="a <b>note</b>", starred=True).model_dump_json())
    first, second = past_of(user_data), past_of(user_data, past_page=2)
    names = [picture_name(path) for path in paths]
    shown = [first.index(f'data-image="{name}"') for name in names[:PER_PAGE]]
    assert shown == sorted(shown)
    assert names[PER_PAGE] not in first
    assert names[PER_PAGE] in second
    assert 'data-page="2"' in first
    assert 'data-page="1"' in second
    assert "a &lt;b&gt;note" in first
    assert first.count("past-star") == 1
    found = past_of(user_data, past_search="sandals")
    assert "1 past image" in found
    assert names[0] not in found
    assert "No image matches" in past_of(user_data, past_search="hats")


def test_an_image_is_shown_large_until_it_is_pressed_again_or_gone(
    page: gr.Blocks, user_data: UserData, image: Path
) -> None:
    past = PastImages(History(user_data.outputs), user_data.cache / "run-thumbnails")
    chosen = press(page, "select", "{}", image=picture_name(image))["selection"]
    assert shown_large(past, read_selection(chosen)) == image
    assert 'aria-current="true"' in strip_html(past, read_selection(chosen))
    again = press(page, "select", chosen, image=picture_name(image))["selection"]
    assert shown_large(past, read_selection(again)) is None
    image.unlink()
    assert shown_large(past, read_selection(chosen)) is None
    assert shown_large(past, Selection(past="../../studio.db")) is None


def test_its_settings_or_its_seed_alone_go_into_the_form(page: gr.Blocks, image: Path) -> None:
    for box in ("strip", "pictures"):
        filled = press(page, "apply", box=box, image=picture_name(image))
        assert (filled["generate-prompt"], filled["generate-seed"]) == ("red boots,\nsnow", "9")
        assert (filled["generate-lora-0"], filled["generate-strength-0"]) == ("white-ground", 0.5)
        assert filled["generate-new-seed"] is False
    seed = press(page, "copy", image=picture_name(image))
    assert seed == {"generate-seed": "9", "generate-new-seed": False}


def test_variations_are_four_images_of_the_same_settings_and_a_new_seed(
    page: gr.Blocks, image: Path, asked: list[ImagesSettings]
) -> None:
    for _ in range(2):
        answer = press(page, "submit", '{"past": "x"}', image=picture_name(image))
        assert read_selection(answer["selection"]).past == "", "what is made is looked at"
    first, second = asked
    assert first.num_images == NUM_VARIATIONS
    expected = GenerationSettings(
        prompt="red boots,\nsnow", seed=first.generation.seed, loras=(LoraChoice(name="white-ground", strength=0.5),)
    )
    assert first.generation == expected
    assert len({9, first.generation.seed, second.generation.seed}) == 3


def test_its_lora_is_set_against_the_base(page: gr.Blocks, image: Path) -> None:
    answer = press(page, "expand", image=picture_name(image))
    expected = {
        "compare-prompts": "red boots, snow",
        "compare-lora-0": "base",
        "compare-lora-1": "white-ground",
        "compare-strength-1": 0.5,
        "compare-seed": "9",
        "compare-num-seeds": 1,
    }
    assert {name: answer[name] for name in expected} == expected


def test_a_star_comes_and_goes_and_the_note_stays(page: gr.Blocks, image: Path) -> None:
    label_beside(image).write_text(Label(note="keep").model_dump_json())
    for starred in (True, False):
        press(page, "like", image=picture_name(image))
        assert read_label(label_beside(image)) == Label(note="keep", starred=starred)


def test_what_is_deleted_is_the_image_that_was_asked_about(
    page: gr.Blocks, user_data: UserData, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send2trash, "send2trash", lambda path: Path(path).unlink())
    other = add(user_data.outputs, "2026-11-25/000002-000000-seed2.png")
    asked_about = Pressed(page, "generate").press("strip", event="delete", image=picture_name(image))["about"]
    press(page, "delete", image=picture_name(other))
    Pressed(page, "history").press("trash-really", asked_about)
    assert not image.exists()
    assert other.exists()
    for event in ("apply", "submit", "like", "delete", "edit", "expand"):
        values = ("{}",) if event == "submit" else ()
        with pytest.raises(Refusal, match="is gone: it was moved or deleted"):
            press(page, event, *values, image=picture_name(image))
        with pytest.raises(Refusal, match="not one of the studio"):
            press(page, event, *values, image="../../studio.db")
