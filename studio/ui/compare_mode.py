"""The Compare mode: base against LoRA, or LoRA against LoRA, from the same noise."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.comparison_grid import comparison_grid
from studio.engine_process.client import EngineClient
from studio.engine_process.view import EngineView
from studio.errors import SettingsError
from studio.loras.library import LoraLibrary
from studio.paths import UserData
from studio.settings import CompareSettings, GenerationSettings, bounds, parse_settings
from studio.ui import compare_view, vote_panel
from studio.ui.generate_mode import state_box
from studio.ui.generation_controls import (
    LoraRow,
    PictureControls,
    build_lora_row,
    build_picture_controls,
    lora_choices,
    size_values,
)
from studio.ui.html import data_url
from studio.ui.parts import Update
from studio.ui.toasts import toasts

MODE, BASE = "compare", "base"
STRIP = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
FIELDS = CompareSettings.model_fields
FIRST_PROMPTS = "black casual shoes, white background\nred canvas sneakers, white background"


@dataclass(frozen=True)
class CompareMode:
    """The mode's components, by what they are for."""

    prompts: gr.Textbox
    negative_prompt: gr.Textbox
    left: LoraRow
    right: LoraRow
    num_seeds: gr.Slider
    strip: gr.Checkbox
    controls: PictureControls
    pair: gr.Radio
    slider: gr.ImageSlider
    side_by_side: gr.HTML
    grid: gr.Button
    grid_link: gr.HTML
    vote: vote_panel.VotePanel
    run: gr.Button
    cancel: gr.Button
    shown: dict[str, gr.components.Component]

    def named(self) -> dict[str, gr.components.Component]:
        """Every control that is read, by its name."""
        return {
            "prompts": self.prompts,
            "negative_prompt": self.negative_prompt,
            "left": self.left.name,
            "left_strength": self.left.strength,
            "right": self.right.name,
            "right_strength": self.right.strength,
            "num_seeds": self.num_seeds,
            "strip": self.strip,
            **self.controls.named(),
        }


def build() -> CompareMode:
    """Lay the mode out."""
    with gr.Row(elem_classes="workbench"):
        with gr.Column(elem_classes="controls", min_width=320):
            with gr.Row(elem_classes="actions"):
                run = gr.Button("Compare", variant="primary", elem_id="run-compare", interactive=False)
                cancel = gr.Button("Cancel", elem_id="cancel-compare", interactive=False)
            prompts = gr.Textbox(
                FIRST_PROMPTS,
                label=FIELDS["prompts"].title,
                info=FIELDS["prompts"].description,
                lines=3,
                max_lines=8,
                elem_id="compare-prompts",
                interactive=True,
            )
            negative = gr.Textbox(
                "",
                label=GenerationSettings.model_fields["negative_prompt"].title,
                lines=1,
                max_lines=4,
                elem_id="compare-negative",
                interactive=True,
            )
            with gr.Group(elem_classes="lora-rows"):
                left = build_lora_row(MODE, 0, label="Left", none=BASE)
                right = build_lora_row(MODE, 1, label="Right", none=BASE, first=next(iter(LoraLibrary().names()), BASE))
            low, high = bounds(CompareSettings, "num_seeds")
            num_seeds = gr.Slider(
                low, high, 1, step=1, label="Seeds for each prompt", elem_id="compare-num-seeds", interactive=True
            )
            strip = gr.Checkbox(
                False,
                label=f"{FIELDS['strip'].title} (0 to {STRIP[-1]:g})",
                info=FIELDS["strip"].description,
                elem_id="compare-strip",
                interactive=True,
            )
            controls = build_picture_controls(MODE)
        with gr.Column(elem_classes="canvas", min_width=480):
            state = gr.HTML(elem_id="compare-state", padding=False)
            finding = gr.HTML(elem_id="compare-finding", padding=False)
            pair = gr.Radio([], label="Pair", elem_id="compare-pair", visible=False, interactive=True)
            slider = gr.ImageSlider(
                interactive=False,
                format="png",
                show_label=False,
                elem_id="compare-slider",
                height=560,
                slider_position=50,
                visible=False,
                buttons=["fullscreen"],
            )
            ends = gr.HTML(elem_id="compare-ends", padding=False, visible=False)
            side_by_side = gr.HTML(elem_id="compare-pair-pictures", padding=False)
            strip_pictures = gr.HTML(elem_id="compare-strip-pictures", padding=False)
            with gr.Row(elem_classes="actions", visible=False) as after:
                grid = gr.Button("Make a labelled grid", elem_id="make-grid")
                grid_link = gr.HTML(elem_id="grid-link", padding=False)
            vote = vote_panel.build()
    shown: dict[str, gr.components.Component] = {
        "compare-state": state,
        "compare-finding": finding,
        "compare-pair": pair,
        "compare-slider": slider,
        "compare-ends": ends,
        "compare-side-by-side": side_by_side,
        "compare-strip": strip_pictures,
        "compare-after": after,
        "compare-left": left.name,
        "compare-right": right.name,
        "run-compare": run,
        "cancel-compare": cancel,
        **vote.shown,
    }
    return CompareMode(
        prompts=prompts,
        negative_prompt=negative,
        left=left,
        right=right,
        num_seeds=num_seeds,
        strip=strip,
        controls=controls,
        pair=pair,
        slider=slider,
        side_by_side=side_by_side,
        grid=grid,
        grid_link=grid_link,
        vote=vote,
        run=run,
        cancel=cancel,
        shown=shown,
    )


def render(view: EngineView, lora_names: Sequence[str]) -> dict[str, Update]:
    """What every shown part of the mode should be now: the newest pair of the last comparison."""
    saved = view.comparison
    count = compare_view.finished_pairs(saved)
    newest = count - 1 if view.phase != "comparing" or count else 0
    index = max(0, newest) if view.phase != "comparing" else len(saved.report.pairs) - 1 if saved else 0
    files = compare_view.pair_files(saved, max(0, newest))
    pairs = saved.report.pairs[:count] if saved else ()
    names = [(compare_view.pair_name(i, pair), i) for i, pair in enumerate(pairs)]
    choices = gr.update(choices=[BASE, *lora_names])
    finished = saved is not None and saved.report.finished and count > 0
    idle = "The same prompts and seeds for both sides. Press “Compare”, or Ctrl+Enter."
    if saved and saved.report.finished:
        end = "cancelled" if saved.report.cancelled else "finished"
        idle = f"The comparison of {saved.report.started_at:%d %B, %H:%M} is {end}: {count} pairs."
    return {
        "compare-state": state_box(view, idle=idle),
        "compare-finding": compare_view.sentence(view),
        "compare-pair": gr.update(choices=names, value=max(0, newest), visible=len(names) > 1),
        "compare-slider": gr.update(value=files, visible=True) if files else gr.update(value=None, visible=False),
        "compare-ends": gr.update(
            value=compare_view.captions(saved.report if saved else None), visible=files is not None
        ),
        "compare-side-by-side": compare_view.side_by_side(saved, max(0, index), view),
        "compare-strip": compare_view.strip(saved, view),
        "compare-after": gr.update(visible=finished),
        "compare-left": choices,
        "compare-right": choices,
        "run-compare": gr.update(interactive=view.phase == "ready"),
        "cancel-compare": gr.update(interactive=view.phase == "comparing" and not view.cancelling),
        **vote_panel.render(finished=finished),
    }


def to_settings(values: dict[str, Any]) -> CompareSettings:
    """What the form says.

    Raises:
        SettingsError: for each rule that is broken, and where both sides are the same.
    """
    left = lora_choices((values["left"], values["left_strength"]))
    right = lora_choices((values["right"], values["right_strength"]))
    if left == right:
        raise SettingsError("Left and right are the same: choose a LoRA for one of them, or another strength.")
    prompts = tuple(line.strip() for line in values["prompts"].splitlines() if line.strip())
    shared = {name: values[name] for name in GenerationSettings.model_fields if name in values}
    return parse_settings(
        CompareSettings,
        {
            "prompts": prompts,
            "num_seeds": values["num_seeds"],
            "generation": parse_settings(GenerationSettings, {"prompt": "", **shared, **size_values(values["size"])}),
            "left": left,
            "right": right,
            "strip": STRIP if values["strip"] and right else (),
        },
    )


def wire(mode: CompareMode, engine: EngineClient, user_data: UserData, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the buttons, the choice of a pair, the grid and the vote."""

    def compare(**values: Any) -> None:  # noqa: ANN401 - the form's values, checked by to_settings
        with toasts():
            engine.compare(to_settings(values))

    def show_pair(index: int) -> list[Any]:
        view = engine.view
        files = compare_view.pair_files(view.comparison, index)
        pictures = compare_view.side_by_side(view.comparison, index, view)
        return [gr.update(value=files) if files else gr.skip(), pictures]

    def make_grid() -> str:
        saved = engine.view.comparison
        if saved is None:
            return ""
        name = f"{saved.folder.name}.png"
        url = data_url(comparison_grid(saved), "image/png")
        return f'<a class="link-button" download="{name}" href="{url}">Save {name}</a>'

    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    then_refresh(mode.run.click(compare, inputs_kwargs=mode.named(), **hidden))
    then_refresh(mode.cancel.click(engine.cancel, **hidden))
    mode.pair.input(show_pair, mode.pair, [mode.slider, mode.side_by_side], **hidden)
    mode.grid.click(make_grid, None, mode.grid_link, **hidden)
    vote_panel.wire(mode.vote, engine, user_data)
