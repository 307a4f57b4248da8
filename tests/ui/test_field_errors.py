"""What is wrong with a field stands at that field, whichever form it is in and whichever press reads it."""

import asyncio
import json
import re
from collections.abc import Iterator, Mapping
from html import unescape
from typing import Any, Literal, get_origin

import gradio as gr
import pytest
from annotated_types import MaxLen, MinLen
from gradio.state_holder import SessionState
from pydantic.fields import FieldInfo

from studio.batches.settings import BatchSettings
from studio.core.errors import StudioError, about
from studio.core.paths import UserData
from studio.core.rules import rules_of
from studio.core.settings import (
    CompareSettings,
    GenerationSettings,
    ImagesSettings,
    ModelSettings,
    Settings,
    SmokeSettings,
    bounds,
)
from studio.datasets.bulk import BulkChange
from studio.engine.process.client import EngineClient
from studio.training.session import TrainingSession
from studio.training.settings import TrainingSettings
from studio.ui.forms import LORA_ROWS
from studio.ui.shell.app import build_app
from studio.ui.shell.parts import Refusal
from studio.ui.shell.selection import FieldErrors, control_of
from tests.ui.test_mutated_user_data import CheckedAtOnce
from tests.ui.test_presses import REQUEST

Pressed = tuple[list[tuple[str, list[str]]], str]
"""(sentence, the ids of the fields that it stands at) of each problem, and what is said of the others."""
KINDS: Mapping[str, tuple[type[Settings], ...]] = {
    "generate": (GenerationSettings, ImagesSettings),
    "compare": (GenerationSettings, CompareSettings),
    "smoke": (SmokeSettings,),
    "model": (ModelSettings,),
    "training": (TrainingSettings,),
    "batch": (BatchSettings, GenerationSettings),
    "dataset": (BulkChange,),
}
NUM_FIELDS = {"generate": 7, "compare": 7, "smoke": 3, "model": 3, "training": 38, "batch": 20, "dataset": 4}
"""So many have a rule that a page can break, at the least: a test of none would pass."""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[gr.Blocks]:
    user_data = UserData(tmp_path_factory.mktemp("user_data"))
    datasets = CheckedAtOnce(user_data, count_tokens=len)
    engine = EngineClient(user_data, model=ModelSettings(), cpu_only=True)
    yield build_app(engine, datasets, TrainingSession(user_data), user_data, cpu_only=True)
    datasets.close()


def presses(page: gr.Blocks, form: str) -> list[Any]:
    """The functions that read a form, each under one button."""
    reading = [fn for fn in page.fns.values() if getattr(fn.fn, "field_errors", None)]
    return list({fn.name: fn for fn in reading if fn.fn.field_errors.form == form}.values())


def press(page: gr.Blocks, function: Any, values: Mapping[str, object]) -> Pressed:  # noqa: ANN401 - gradio's
    """What the page answers where some fields of a form hold these values, and the others their first ones."""
    errors: FieldErrors = function.fn.field_errors
    held = {id(errors.controls[name]): value for name, value in values.items() if name in errors.controls}
    first = {id(control): "" if isinstance(control, gr.Textbox) else None for control in function.inputs}
    inputs = [held.get(id(c), first[id(c)] if c.value is None else c.value) for c in function.inputs]
    state = SessionState(page)
    answer = asyncio.run(page.process_api(function, inputs, request=REQUEST, state=state))
    update = answer["data"][function.outputs.index(errors.box)]
    html = update["value"] if isinstance(update, dict) else update
    problems = re.search(r'data-problems="([^"]*)"', html or "")
    elsewhere = re.search(r'data-elsewhere="([^"]*)"', html or "")
    if problems is None or elsewhere is None:
        return [], ""
    told = json.loads(unescape(problems[1]))
    return [(p["text"], [field["id"] for field in p["fields"]]) for p in told], unescape(elsewhere[1])


def wrong_value(kind: type[Settings], name: str) -> object:
    """A value that breaks a field's own rule; None where it has none that a page could break."""
    field = kind.model_fields[name]
    low, high = bounds(kind, name)
    if high is not None:
        return str(int(high) + 1) if high > 2**53 else high + 1
    if low is not None:
        return low - 1
    if get_origin(field.annotation) is Literal:
        return "no such thing"
    if any("_named_characters" in repr(rule) for rule in rules_of(field)):
        return "../name"
    return _wrong_length(field)


def _wrong_length(field: FieldInfo) -> object:
    lines = get_origin(field.annotation) is tuple
    for rule in rules_of(field):
        if isinstance(rule, MaxLen):
            return "\n".join(["a"] * (rule.max_length + 1)) if lines else "a" * (rule.max_length + 1)
        if isinstance(rule, MinLen):
            return ""
    return None


def fields_with_rules(page: gr.Blocks, form: str, function: Any) -> dict[str, object]:  # noqa: ANN401 - gradio's
    """A wrong value for every field of a form that the press reads and that has a rule, by its control's name."""
    controls = function.fn.field_errors.controls
    inside = {id(control) for control in function.inputs}
    named = {name: wrong_value(kind, name) for kind in KINDS[form] for name in kind.model_fields}
    return {
        name: value
        for name, value in named.items()
        if value is not None
        and name in controls
        and id(controls[name]) in inside
        and not isinstance(controls[name], gr.Checkbox)
    }


@pytest.mark.parametrize("form", KINDS)
def test_each_field_of_each_form_is_told_of_a_value_out_of_its_range_itself(page: gr.Blocks, form: str) -> None:
    whole, *others = sorted(presses(page, form), key=lambda fn: -len(fn.inputs))
    controls = whole.fn.field_errors.controls
    wrong = fields_with_rules(page, form, whole)
    assert len(wrong) >= NUM_FIELDS[form]
    # Gradio refuses a value of a slider or a list itself, and the first one alone.
    refused = {name for name in wrong if isinstance(controls[name], gr.Slider | gr.Dropdown)}
    # A new seed for each image is another way to have one.
    at_once = {name: value for name, value in wrong.items() if name not in refused} | {"new_seed": False}
    problems, elsewhere = press(page, whole, at_once)
    told = {ids[0]: text for text, ids in problems}
    assert [text for text in told.values() if re.search(r"\([a-z]+(_[a-z]+)+\)", text)] == [], "of a page the labels"
    assert sorted(told) == sorted(str(controls[name].elem_id) for name in at_once if name in wrong)
    assert all(len(ids) == 1 and re.fullmatch(r".{10,}[.?]", text) for text, ids in problems)
    assert elsewhere == ""
    for name in refused:
        ((text, ids),), _ = press(page, whole, {name: wrong[name]})
        assert ids == [controls[name].elem_id]
        assert text.startswith(str(controls[name].label))
    for function in others:
        for name, value in list(fields_with_rules(page, form, function).items())[:1]:
            problems, _ = press(page, function, {name: value})
            assert [ids for _, ids in problems] == [[controls[name].elem_id]], function.name


def find(page: gr.Blocks, form: str, name: str) -> Any:  # noqa: ANN401 - gradio's
    return next(function for function in presses(page, form) if function.name == name)


@pytest.mark.parametrize(
    ("form", "button", "values", "said", "at"),
    [
        ("training", "start", {"dataset": "/no/such"}, "no folder /no/such", ["training-dataset"]),
        ("training", "start", {"model": "/no/such"}, "/no/such", ["training-model"]),
        ("training", "start", {"name": "pytorch_lora_weights"}, "diffusers' file", ["training-name"]),
        ("training", "start", {"name": "字" * 80}, "bytes long", ["training-name"]),
        (
            "training",
            "start",
            {"validation_prompts": "a <lora:no such:1>"},
            "There is no LoRA named no such",
            ["training-validation-prompts"],
        ),
        ("training", "start", {"mask_folder": "/no/such"}, "/no/such", ["training-mask-folder"]),
        (
            "training",
            "start",
            {"lr_warmup_steps": 500, "max_train_steps": 400},
            "must be at most Steps",
            ["training-lr-warmup-steps", "training-max-train-steps"],
        ),
        (
            "training",
            "begin",
            {"caption_dropout": 1, "trigger_word": "shoe"},
            "no image would be trained with the word",
            ["training-caption-dropout", "training-trigger-word"],
        ),
        ("batch", "start", {"prompts": "a {shoe"}, "prompts line 1", ["batch-prompts"]),
        ("batch", "start", {"prompts": "a", "attributes": "black"}, "attributes line 1", ["batch-attributes"]),
        ("batch", "start", {"prompts": "a", "prompt_file": "/no.txt"}, "/no.txt", ["batch-prompt-file"]),
        ("batch", "start", {"prompts": "a", "grid_x": "b"}, "grid_x must be a column", ["batch-grid-x"]),
        ("batch", "start", {"prompts": "a", "wildcards": "/no"}, "no folder /no", ["batch-wildcards"]),
        ("batch", "start", {"prompts": "a", "model": "/no/such"}, "/no/such", ["batch-model"]),
        ("batch", "start", {"prompts": "a", "size": "12"}, "width × height", ["batch-size"]),
        ("batch", "start", {"prompts": "a", "size": "8 x 64"}, "between 64 and 2048", ["batch-size"]),
        (
            "batch",
            "start",
            {"prompts": "", "prompt_file": ""},
            "are both empty",
            ["batch-prompts", "batch-prompt-file"],
        ),
        ("batch", "make_grid", {"across_values": ""}, "values across must", ["batch-grid-across-values"]),
        ("batch", "make_grid", {"seed": "one"}, "Seed must be", ["batch-seed"]),
        (
            "generate",
            "generate",
            {"scheduler": "LCM", "num_inference_steps": 60},
            "at most 50",
            ["generate-num-inference-steps", "generate-scheduler"],
        ),
        ("generate", "generate", {"lora_1": "a", "strength_1": 9.0}, "between -4 and 4", ["generate-strength-1"]),
        (
            "compare",
            "compare",
            {"left": "base", "right": "base"},
            "Left and right are the same",
            ["compare-lora-0", "compare-lora-1", "compare-strength-0", "compare-strength-1"],
        ),
        ("dataset", "open_path", {"path": "shoes"}, "Type the whole path", ["dataset-path"]),
    ],
)
def test_what_is_seen_only_when_a_job_begins_is_told_of_at_the_field_too(
    page: gr.Blocks, form: str, button: str, values: dict[str, object], said: str, at: list[str]
) -> None:
    problems, elsewhere = press(page, find(page, form, button), values)
    assert [ids for _, ids in problems] == [at]
    assert said in problems[0][0]
    assert elsewhere == ""


def test_a_press_that_no_field_is_to_blame_for_is_refused_as_ever(page: gr.Blocks) -> None:
    with pytest.raises(Refusal, match="the engine is not running"):
        press(page, find(page, "generate", "generate"), {})


def test_several_fields_are_told_of_together_each_at_its_own(page: gr.Blocks) -> None:
    wrong = {"rank": 0, "train_batch_size": 1000, "huber_c": 0}
    problems, _ = press(page, find(page, "training", "begin"), wrong)
    assert [ids for _, ids in problems] == [["training-rank"], ["training-train-batch-size"], ["training-huber-c"]]


def test_a_field_in_a_folded_section_comes_with_the_section() -> None:
    with gr.Blocks(), gr.Accordion("Outer", elem_id="outer"), gr.Accordion("Inner", elem_id="inner"):
        number = gr.Number(elem_id="a-rank")
        errors = FieldErrors(gr.HTML(), "a", {"rank": number})
    html = errors.html(StudioError("Rank is wrong.").about("rank"), {"rank": float("inf")})
    (told,) = json.loads(unescape(re.findall(r'data-problems="([^"]*)"', html)[0]))
    assert told["fields"] == [{"name": "rank", "id": "a-rank", "value": "inf", "sections": ["outer", "inner"]}]


def test_every_section_of_a_form_has_a_name_so_that_it_can_be_opened(page: gr.Blocks) -> None:
    for function in (fn for form in KINDS for fn in presses(page, form)):
        for name, control in function.fn.field_errors.controls.items():
            block = control.parent
            while block is not None:
                assert not isinstance(block, gr.Accordion) or block.elem_id, (function.name, name)
                block = block.parent


def test_a_problem_that_a_block_finds_itself_keeps_its_fields() -> None:
    with pytest.raises(StudioError) as caught, about("outer"):
        raise StudioError("Wrong.").about("inner")
    assert caught.value.problems == (("Wrong.", ("inner",)),)


def test_a_strength_is_that_of_its_row_also_where_a_row_above_is_empty() -> None:
    values = {"lora_0": "none", "lora_1": "a", "lora_2": "b"}
    assert len(values) == LORA_ROWS
    assert control_of("generation.loras.1.strength", values) == "strength_2"
    assert control_of("loras.0.name", values) == "lora_1"


@pytest.mark.parametrize(
    ("mode", "values"),
    [
        ("generate", {"width": 256, "height": 256}),
        ("compare", {"size": "256 x 300"}),
        ("batch", {"size": "2048*64", "model": "shoes-demo"}),
        ("training", {"resolution": 256, "model": "shoes-demo"}),
    ],
)
def test_wherever_a_size_is_asked_a_large_one_says_what_it_takes(
    page: gr.Blocks, mode: str, values: dict[str, object]
) -> None:
    show = next(fn for fn in page.fns.values() if [c.elem_id for c in fn.outputs] == [f"{mode}-size-note"])
    steps = {} if mode == "training" else {"num_inference_steps": 25}
    assert re.search(
        r"is (4|8|4\.69) times the area of the model's own 128 × 128", unescape(show.fn(**values, **steps))
    )
    own = {"size": "model's own", "resolution": None, "width": None}
    for others in ({"size": "128 × 128", "resolution": 248, "height": 128}, own):
        assert show.fn(**{name: others.get(name, value) for name, value in values.items()}, **steps) == ""
