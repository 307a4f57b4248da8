"""The Compare mode: base against LoRA, or LoRA against LoRA, from the same noise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import SettingsError
from studio.core.language import _, moment
from studio.core.paths import UserData
from studio.core.settings import CompareSettings, GenerationSettings, parse_settings
from studio.core.text import counted
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView
from studio.images.comparison import BASE, SavedComparison, comparison_grid
from studio.loras.library import LoraLibrary
from studio.ui.forms import (
    SettingsForm,
    build_generation,
    build_lora_row,
    build_reset,
    lora_choices,
    read_generation,
    read_value,
)
from studio.ui.inference import compare_view
from studio.ui.inference import vote as blind_vote
from studio.ui.inference.generate import state_box
from studio.ui.inference.generate_form import prompt_notes_html
from studio.ui.shell.images import wire_size_note
from studio.ui.shell.parts import QUIET, Part, data_url, save_link, toasts
from studio.ui.shell.selection import FieldErrors, SelectedPair, error_box, select
from studio.ui.shell.status import cancel_button, cancelling
from studio.ui.speed import build_speed, render_speed, speed_loras_of, wire_speed

MODE = "compare"
STRIP = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
FIRST_PROMPTS = ("black casual shoes, white background", "red canvas sneakers, white background")


def build_form() -> tuple[dict[str, Any], gr.HTML, SettingsForm]:
    """(its controls by name, where notes on the prompts go, the shared part of it).

    It begins with the base against the first shipped LoRA.
    """
    form = SettingsForm(CompareSettings, MODE, {"prompts": FIRST_PROMPTS})
    form.add("prompts", info=True)
    notes = gr.HTML(elem_id="compare-tokens", padding=False)
    shared = SettingsForm(GenerationSettings, MODE)
    shared.add("negative_prompt", elem_id="compare-negative")
    with gr.Group(elem_classes="lora-rows"):
        left, left_strength = build_lora_row(MODE, 0, label=_("Left"), none=BASE)
        first = next(iter(LoraLibrary().names()), BASE)
        right, right_strength = build_lora_row(MODE, 1, label=_("Right"), none=BASE, first=first)
    form.rest()
    about_strip = CompareSettings.model_fields["strip"]
    strip = gr.Checkbox(
        False,
        label=_("{title} (0 to {strength:g})", title=_(str(about_strip.title)), strength=STRIP[-1]),
        info=_(str(about_strip.description)),
        elem_id="compare-strip",
        interactive=True,
    )
    sides = {"left": left, "left_strength": left_strength, "right": right, "right_strength": right_strength}
    generation = build_generation(MODE, speed=build_speed)
    named = {**form.fields, **shared.fields, **sides, "strip": strip, **generation.fields}
    build_reset(named, form=MODE)
    return named, notes, generation


def to_settings(values: Mapping[str, Any]) -> CompareSettings:
    """What the form says.

    Raises:
        SettingsError: for each rule that is broken, and where both sides are the same.
    """
    left = lora_choices((values["left"], values["left_strength"]))
    right = lora_choices((values["right"], values["right_strength"]))
    if left == right:
        same = SettingsError(_("Left and right are the same: choose a LoRA for one of them, or another strength."))
        raise same.about("left", "right", "left.0.strength", "right.0.strength")
    speed = speed_loras_of(values["speed"])
    for side, loras in (("left", left), ("right", right)):
        if {lora["name"] for lora in loras} & {lora.name for lora in speed}:
            twice = _(
                "The speed brings {name} on both sides: choose another LoRA here, or another speed.",
                name=loras[0]["name"],
            )
            raise SettingsError(twice).about(side)
    return parse_settings(
        CompareSettings,
        {
            "prompts": read_value(CompareSettings, "prompts", values["prompts"]),
            "num_seeds": values["num_seeds"],
            "generation": {**read_generation(values), "prompt": "", "loras": speed},
            "left": left,
            "right": right,
            "strip": STRIP if values["strip"] and right else (),
        },
    )


@dataclass(frozen=True)
class CompareMode:
    """The mode's components, by what they are for; `of` names the comparison that all the others show."""

    form: dict[str, Any]
    notes: gr.HTML
    generation: SettingsForm
    run: gr.Button
    cancel: gr.Button
    errors: gr.HTML
    pair: gr.Radio
    grid: gr.Button
    grid_link: gr.HTML
    of: gr.Textbox
    vote: blind_vote.VotePanel
    shown: dict[str, gr.components.Component]


def build() -> CompareMode:
    """Lay the mode out: the form on the left, what was found on the right."""
    with gr.Row(elem_classes="workbench"):
        with gr.Column(elem_classes="controls", min_width=320):
            with gr.Row(elem_classes="actions"):
                run = gr.Button(_("Compare"), variant="primary", elem_id="run-compare", interactive=False)
                cancel = gr.Button(_("Cancel"), elem_id="cancel-compare", interactive=False)
            errors = error_box(MODE)
            form, notes, generation = build_form()
        with gr.Column(elem_classes="canvas", min_width=480):
            state = gr.HTML(elem_id="compare-state", padding=False)
            finding = gr.HTML(elem_id="compare-finding", padding=False)
            pair = gr.Radio([], label=_("Pair"), elem_id="compare-pair", visible=False, interactive=True)
            slider = _build_slider()
            ends = gr.HTML(elem_id="compare-ends", padding=False, visible=False)
            side_by_side = gr.HTML(elem_id="compare-pair-pictures", padding=False)
            strip = gr.HTML(elem_id="compare-strip-pictures", padding=False, js_on_load=compare_view.STRENGTH_SLIDER)
            with gr.Row(elem_classes="actions", visible=False) as after:
                grid = gr.Button(_("Make a labelled grid"), elem_id="make-grid")
                grid_link = gr.HTML(elem_id="grid-link", padding=False)
            of = gr.Textbox(visible=False)
            vote = blind_vote.build_vote()
    shown: dict[str, gr.components.Component] = {
        "compare-state": state,
        "compare-finding": finding,
        "compare-of": of,
        "compare-pair": pair,
        "compare-slider": slider,
        "compare-ends": ends,
        "compare-side-by-side": side_by_side,
        "compare-strip": strip,
        "compare-after": after,
        "compare-left": form["left"],
        "compare-right": form["right"],
        "compare-speed": form["speed"],
        "run-compare": run,
        "cancel-compare": cancel,
        **vote.shown,
    }
    return CompareMode(form, notes, generation, run, cancel, errors, pair, grid, grid_link, of, vote, shown)


def _build_slider() -> gr.ImageSlider:
    return gr.ImageSlider(
        interactive=False,
        format="png",  # its default loses detail
        show_label=False,
        elem_id="compare-slider",
        height=560,
        slider_position=50,
        visible=False,
        buttons=["fullscreen"],
    )


def render(view: EngineView, library: LoraLibrary, chosen: SelectedPair | None) -> dict[str, Part]:
    """What every shown part of the mode should be now: a pair of the running or the last comparison.

    Args:
        chosen: the pair to be shown; the newest is where there is none, or it is of another comparison.
    """
    saved, running = view.comparison, view.phase == "comparing"
    count = compare_view.finished_pairs(saved)
    # While one is made, the small images show the pair in work; the slider keeps the last finished one.
    to_come = saved is not None and running and count < len(saved.report.settings.pairs())
    number, small = max(0, count - 1), count if to_come else max(0, count - 1)
    in_work = compare_view.strip_in_work(saved.report) if saved and running else None
    strip = number if in_work is None else in_work
    if chosen and saved and chosen.comparison == saved.folder.name and 0 <= chosen.number < count:
        number = small = strip = chosen.number
    files = compare_view.pair_files(saved, number)
    finished = saved is not None and saved.report.finished and count > 0
    choices, speed = gr.update(choices=[(_(BASE), BASE), *library.usable_names()]), render_speed(library)
    ends = compare_view.captions(saved.report if saved else None)
    return {
        "compare-state": lambda: state_box(view, idle=_idle_words(saved)),
        "compare-finding": lambda: compare_view.sentence(view),
        "compare-of": gr.update(value=saved.folder.name if saved else ""),
        "compare-pair": gr.update(choices=compare_view.pair_choices(saved), value=number, visible=count > 1),
        "compare-slider": gr.update(value=files, visible=files is not None),
        "compare-ends": gr.update(value=ends, visible=files is not None),
        "compare-side-by-side": lambda: compare_view.side_by_side(saved, small, view),
        "compare-strip": lambda: compare_view.strip(saved, strip, view),
        "compare-after": gr.update(visible=finished),
        "compare-left": choices,
        "compare-right": choices,
        "compare-speed": speed,
        "run-compare": gr.update(interactive=view.takes_runs),
        "cancel-compare": cancel_button(view, "comparing"),
        **blind_vote.render_vote(finished=finished),
    }


def _idle_words(saved: SavedComparison | None) -> str:
    if saved is None or not saved.report.finished:
        return _("The same prompts and seeds for both sides. Press “Compare”, or Ctrl+Enter.")
    when = moment(saved.report.started_at)
    pairs = counted(compare_view.finished_pairs(saved), "pair", "pairs")
    if saved.report.cancelled:
        return _("The comparison of {when} was cancelled: {pairs}.", when=when, pairs=pairs)
    return _("The comparison of {when} is finished: {pairs}.", when=when, pairs=pairs)


def wire(
    mode: CompareMode,
    engine: EngineClient,
    user_data: UserData,
    selection: gr.HTML,
    *,
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect the buttons, the choice of a pair, the grid and the vote."""

    def compare(**values: Any) -> str:  # noqa: ANN401 - the form's values, checked by to_settings
        with toasts():
            engine.compare(to_settings(values))
        return ""  # the link to the grid of the comparison before

    def make_grid(of: str) -> str:
        with toasts():
            saved = compare_view.comparison_of(engine.view, of)
        name = f"{saved.folder.name}.png"
        return save_link(name, data_url(comparison_grid(saved), "image/png"), _("Save {name}", name=name))

    def show_notes(prompts: str, negative_prompt: str, long_prompt: bool) -> Markup:
        named = {_("Prompt {i}", i=i): line for i, line in enumerate(filter(str.strip, prompts.splitlines()), start=1)}
        named[_("Negative prompt")] = negative_prompt
        return prompt_notes_html(engine, named, long_prompt=long_prompt)

    noted = {name: mode.form[name] for name in ("prompts", "negative_prompt", "long_prompt")}
    for control in noted.values():
        control.change(show_notes, inputs_kwargs=noted, outputs=mode.notes, queue=False, **QUIET)
    errors = FieldErrors(mode.errors, MODE, mode.form)
    then_refresh(errors.press(mode.run.click, compare, inputs_kwargs=mode.form, outputs=[mode.grid_link], **QUIET))
    then_refresh(mode.cancel.click(cancelling(engine, "comparing"), **QUIET))
    wire_size_note(mode.generation, engine, mode.form)
    wire_speed(mode.form, LoraLibrary(user_data.loras))
    pair = "pair: { comparison: values[0], number: values[1] }"
    then_refresh(select(mode.pair.input, selection, mode.of, mode.pair, change=pair))
    mode.grid.click(make_grid, mode.of, mode.grid_link, **QUIET)
    blind_vote.wire_vote(mode.vote, engine, user_data, of=mode.of)
