"""Forms come from the settings models: every field once, with its bounds, and a new one without any further change."""

import ast
import json
import re
from collections.abc import Callable, Iterator
from gettext import NullTranslations
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import gradio as gr
import pytest
from annotated_types import Ge, Le
from pydantic import Field, ValidationError

from studio.batches.settings import BatchSettings
from studio.core import language
from studio.core.errors import SettingsError
from studio.core.settings import (
    CompareSettings,
    GenerationSettings,
    ImagesSettings,
    ModelSettings,
    Settings,
    SmokeSettings,
    bounds,
    parse_settings,
)
from studio.training.settings import TrainingSettings
from studio.ui import forms
from studio.ui.batches import form as batch_form
from studio.ui.forms import SettingsForm, form_groups, form_hint, is_optional, read_settings, read_value
from studio.ui.inference import compare, generate, smoke
from studio.ui.shell import engine_panel
from studio.ui.shell.parts import CHOICE_WORDS
from studio.ui.training import form as training_form

FORMS: tuple[tuple[type[Settings], str, Callable[[], object]], ...] = (
    (TrainingSettings, "training", lambda: training_form.build_form(training_form.build_way())),
    (BatchSettings, "batch", batch_form.build),
    (GenerationSettings, "batch", batch_form.build),
    (GenerationSettings, "generate", generate.build),
    (ImagesSettings, "generate", generate.build),
    (GenerationSettings, "compare", compare.build),
    (CompareSettings, "compare", compare.build),
    (SmokeSettings, "smoke", smoke.build),
    (ModelSettings, "model", engine_panel.build),
)


SEEDS = [
    (kind, name)
    for kind in dict.fromkeys(kind for kind, _, _ in FORMS)
    for name in kind.model_fields
    if "seed" in name and not name.startswith("num_")
]
MODELS_INSIDE = {"generation", "loras", "left", "right"}  # each is a form or a row of its own


class Example(Settings):
    """A model of every kind of field."""

    rank: Annotated[int, Ge(1), Le(320)] = Field(8, title="Rank", description="Width.")
    kind: Literal["a", "b"] = Field("b", title="Kind", description="Which. Leave empty for no grid.")
    limit: Annotated[float, Ge(0.5), Le(2)] | None = Field(
        None,
        title="Limit",
        description="At most. Leave empty for no limit.",
        json_schema_extra={"group": "More", "unit": "px", "placeholder": "any"},
    )
    share: Annotated[float, Ge(0), Le(1)] = Field(
        0.5, title="Share", description="Of all.", json_schema_extra={"step": 0.1}
    )
    lines: tuple[str, ...] = Field((), title="Lines", description="Some.", json_schema_extra={"lines": 2})
    on: bool = Field(True, title="On", description="Or off.")
    cpu: bool = Field(False, title="CPU", description="Not here.", json_schema_extra={"hidden": True})
    inner: SmokeSettings = Field(SmokeSettings(), title="Inner", description="A form of its own.")


def controls_of(blocks: gr.Blocks) -> list[Any]:
    return [block for block in blocks.blocks.values() if getattr(block, "elem_id", None)]


@pytest.mark.parametrize(("kind", "form", "build"), FORMS)
def test_every_field_is_in_its_form_exactly_once_with_its_bounds(
    kind: type[Settings], form: str, build: Callable[[], object]
) -> None:
    with gr.Blocks() as blocks:
        build()
    controls = controls_of(blocks)
    names = {name for name, field in kind.model_fields.items() if not form_hint(field).hidden} - MODELS_INSIDE
    assert sorted(names) == sorted(name for group in form_groups(kind).values() for name in group)
    for name in names:
        found = [control for control in controls if control.elem_id == f"{form}-{name.replace('_', '-')}"]
        assert len(found) == 1, name
        if isinstance(found[0], gr.Slider) and not is_optional(kind.model_fields[name]):
            shown = bounds(kind, name)
            assert (found[0].minimum, found[0].maximum) == shown, name
        if isinstance(found[0], gr.Number):  # gradio's own error would name no setting
            assert (found[0].minimum, found[0].maximum) == (None, None), name
        assert isinstance(found[0], gr.Textbox) or (bounds(kind, name)[1] or 0) <= 2**53, f"{name}: JavaScript rounds"


@pytest.mark.parametrize("seed", [0, 42, 2**53 + 1, 2**63 - 3])
@pytest.mark.parametrize(("kind", "name"), SEEDS)
def test_a_seed_goes_through_its_box_without_loss(kind: type[Settings], name: str, seed: int) -> None:
    with gr.Blocks():
        form = SettingsForm(kind, "example", {name: seed})
        box = form.add(name)
    shown = json.loads(json.dumps(box.postprocess(form.shown({name: seed})[name])))
    assert isinstance(shown, str)
    assert read_value(kind, name, box.preprocess(shown)) == seed


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("-2", r"Seed must be at least 0, got -2\.$"),
        ("-1", r"Seed must be at least 0, got -1\. -1 is no random seed here: write a number\.$"),
        ("9223372036854775808", r"Seed must be at most 9223372036854775807, got 9223372036854775808\.$"),
        ("", "Seed must be a whole number"),
        ("1e3", "Seed must be a whole number.*got '1e3'"),
        ("seven", "Seed must be a whole number.*got 'seven'"),
    ],
)
def test_a_seed_that_is_none_is_named_with_the_side_it_broke(typed: str, words: str) -> None:
    value = read_value(GenerationSettings, "seed", typed)
    with pytest.raises(SettingsError, match=words):
        parse_settings(GenerationSettings, {"prompt": "", "seed": value})


@pytest.mark.parametrize("kind", dict.fromkeys(kind for kind, _, _ in FORMS), ids=lambda kind: kind.__name__)
def test_what_an_empty_box_stands_for_is_said_in_it(kind: type[Settings]) -> None:
    for name, field in kind.model_fields.items():
        hint = form_hint(field)
        assert hint.placeholder or hint.hidden or not is_optional(field), name
        assert hint.placeholder or hint.hidden or "Leave empty" not in (field.description or ""), name


def test_few_settings_are_hidden() -> None:
    hidden = {kind: {n for n, f in kind.model_fields.items() if form_hint(f).hidden} for kind, _, _ in FORMS}
    assert hidden[TrainingSettings] == hidden[BatchSettings] == {"cpu"}
    assert hidden[GenerationSettings] == {"prompt", "negative_prompt", "width", "height"}  # laid out by hand, as a size
    assert hidden[ModelSettings] == {"attention_slicing"}


def test_a_new_field_gets_the_control_that_fits_it_in_its_group() -> None:
    with gr.Blocks() as blocks:
        form = SettingsForm(Example, "example")
        form.rest()
        form.accordions()
    assert form_groups(Example) == {"": ("rank", "kind"), "More": ("limit", "share", "lines", "on")}
    assert list(form.fields) == ["rank", "kind", "limit", "share", "lines", "on"]
    assert [block.label for block in blocks.blocks.values() if isinstance(block, gr.Accordion)] == ["More"]
    rank, kind, limit, share, lines, on = (form.fields[name].get_config() for name in form.fields)
    assert (rank["value"], rank["minimum"], rank["maximum"]) == (8, None, None)
    assert (kind["value"], kind["choices"]) == ("b", [("a", "a"), ("b", "b")])
    assert (limit["value"], limit["placeholder"], limit["label"], limit["info"]) == (
        "",
        "any",
        "Limit (px)",
        "At most.",
    )
    assert (share["minimum"], share["maximum"], share["step"], share["info"]) == (0, 1, 0.1, "Of all.")
    assert (lines["value"], lines["lines"]) == ("", 2)
    assert (on["value"], on["elem_id"]) == (True, "example-on")


def test_every_choice_is_a_word_of_the_page_or_a_name() -> None:
    fields = [field for kind in dict.fromkeys(kind for kind, _, _ in FORMS) for field in kind.model_fields.values()]
    choices = {
        choice for field in fields if get_origin(field.annotation) is Literal for choice in get_args(field.annotation)
    }
    assert choices >= CHOICE_WORDS
    words = {choice for choice in choices - CHOICE_WORDS if re.fullmatch("[a-z +'-]+", choice)}
    assert words == {"epsilon", "snr", "huber", "png", "jpeg", "webp"}


class Upside(NullTranslations):
    """A language in which every message is turned round."""

    def gettext(self, message: str) -> str:
        return message[::-1]


def test_a_form_speaks_the_pages_language_and_its_values_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "catalogue", lambda tag: Upside())
    with gr.Blocks() as blocks:
        form = SettingsForm(TrainingSettings, "training", {"lr_scheduler": "cosine", "dataset": "shoes"})
        form.rest()
        form.accordions()
    scheduler = form.fields["lr_scheduler"].get_config()
    assert ("enisoc", "cosine") in scheduler["choices"]
    assert scheduler["value"] == "cosine"
    assert ("AdamW", "AdamW") in form.fields["optimizer"].get_config()["choices"]
    resolution = form.fields["resolution"].get_config()
    assert resolution["label"] == "noituloseR (xp)"
    assert resolution["placeholder"] == "otua"
    accordions = [block for block in blocks.blocks.values() if isinstance(block, gr.Accordion)]
    assert ("ssol ehT", "training-section-the-loss") in [(block.label, block.elem_id) for block in accordions]


def test_a_misspelt_hint_is_an_error() -> None:
    with pytest.raises(ValidationError, match="placehodler"):
        form_hint(Field(0, json_schema_extra={"placehodler": "any"}))


def test_what_a_form_shows_is_read_back_the_same() -> None:
    with gr.Blocks():
        form = SettingsForm(Example, "example")
        form.rest()
        form.accordions()
    for example in (Example(), Example(rank=3, kind="a", limit=0.5, share=1, lines=("a", "b"), on=False)):
        assert Example.model_validate(read_settings(Example, form.shown(dict(example)))) == example


def test_numbers_of_the_page_become_whole_where_they_are_and_empty_ones_nothing() -> None:
    assert read_value(Example, "rank", 16.0) == 16
    assert isinstance(read_value(Example, "rank", 16.0), int)
    assert read_value(Example, "share", 0.25) == 0.25
    assert [read_value(Example, "limit", value) for value in ("", None, 0, 0.5)] == [None, None, None, 0.5]
    assert read_value(Example, "lines", " a \n\nb") == ("a", "b")


def handlers() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function that is made where a part of the page is wired, with its place."""
    for path in sorted(Path(forms.__file__).parent.rglob("*.py")):
        for outer in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(outer, ast.FunctionDef) and "wire" in outer.name:
                inner = (node for node in ast.walk(outer) if isinstance(node, ast.FunctionDef) and node is not outer)
                yield from ((f"{path.parent.name}/{path.name}: {node.name}", node) for node in inner)


def test_handlers_take_more_than_three_inputs_by_name_and_return_several_outputs_by_component() -> None:
    found = dict(handlers())
    assert len(found) > 40
    for place, handler in found.items():
        assert len(handler.args.args) <= 3, place
        returned = [node.value for node in ast.walk(handler) if isinstance(node, ast.Return)]
        assert not any(isinstance(value, ast.List | ast.Tuple | ast.BinOp) for value in returned), place
