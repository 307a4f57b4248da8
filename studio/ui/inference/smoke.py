"""The smoke test mode: three images, each checked, and a verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.settings import SmokeSettings, bounds, parse_settings
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView
from studio.ui.inference import smoke_view
from studio.ui.shell.parts import QUIET, Update, paragraph, toasts


@dataclass(frozen=True)
class SmokeMode:
    """The mode's components, by what they are for."""

    prompts: tuple[gr.Textbox, gr.Textbox, gr.Textbox]
    num_inference_steps: gr.Slider
    guidance_scale: gr.Slider
    seed: gr.Number
    run: gr.Button
    cancel: gr.Button
    shown: dict[str, gr.components.Component]


def build() -> SmokeMode:
    """Lay the mode out: controls on the left, images and tables on the right."""
    with gr.Row(elem_classes="workbench"):
        with gr.Column(elem_classes="controls", min_width=320):
            gr.HTML(
                paragraph(
                    "quiet",
                    "Makes three images and checks every one: is the model, the device and the precision fit for work?",
                ),
                padding=False,
            )
            with gr.Row(elem_classes="actions"):
                run = gr.Button("Run the smoke test", variant="primary", elem_id="run-smoke", interactive=False)
                cancel = gr.Button("Cancel", elem_id="cancel-smoke", interactive=False)
            prompts = _prompt_boxes()
            steps, guidance, seed = _number_boxes()
        with gr.Column(elem_classes="canvas", min_width=480):
            verdict = gr.HTML(elem_id="verdict", padding=False)
            with gr.Row(elem_classes="cards"):
                cards = [gr.HTML(elem_id=f"card-{i}", min_width=120, padding=False) for i in range(3)]
            downloads = gr.HTML(elem_id="downloads", padding=False)
            details = gr.HTML(elem_id="details", padding=False)
    shown: dict[str, gr.components.Component] = {
        "verdict": verdict,
        **{f"card-{i}": card for i, card in enumerate(cards)},
        "downloads": downloads,
        "details": details,
        "run": run,
        "cancel": cancel,
    }
    return SmokeMode(prompts, steps, guidance, seed, run, cancel, shown)


def _prompt_boxes() -> tuple[gr.Textbox, gr.Textbox, gr.Textbox]:
    first, second, third = (
        gr.Textbox(value=prompt, label=f"Prompt {i}", lines=2, max_lines=4, interactive=True, elem_id=f"prompt-{i}")
        for i, prompt in enumerate(SmokeSettings().prompts, start=1)
    )
    return first, second, third


def _number_boxes() -> tuple[gr.Slider, gr.Slider, gr.Number]:
    defaults, fields = SmokeSettings(), SmokeSettings.model_fields
    with gr.Accordion("Steps, guidance, seed", open=False):
        low, high = bounds(SmokeSettings, "num_inference_steps")
        steps = gr.Slider(
            low,
            high,
            defaults.num_inference_steps,
            step=1,
            label=fields["num_inference_steps"].title,
            info=fields["num_inference_steps"].description,
            interactive=True,
        )
        low, high = bounds(SmokeSettings, "guidance_scale")
        guidance = gr.Slider(
            low,
            high,
            defaults.guidance_scale,
            step=0.5,
            label=fields["guidance_scale"].title,
            info=fields["guidance_scale"].description,
            interactive=True,
        )
        seed = gr.Number(
            defaults.seed, precision=0, label=fields["seed"].title, info=fields["seed"].description, interactive=True
        )
    return steps, guidance, seed


def render(view: EngineView) -> dict[str, Update]:
    """What every shown part of the mode should be now."""
    return {
        "verdict": smoke_view.verdict(view),
        **{f"card-{i}": smoke_view.card(view, i) for i in range(3)},
        "downloads": smoke_view.downloads(view.report),
        "details": smoke_view.details(view.report),
        "run": gr.update(interactive=view.takes_runs),
        "cancel": gr.update(interactive=view.phase == "smoke test" and not view.cancelling),
    }


def wire(mode: SmokeMode, engine: EngineClient, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the buttons."""

    def run_smoke_test(
        first: str, second: str, third: str, num_inference_steps: float, guidance_scale: float, seed: float | None
    ) -> None:
        values = {
            "prompts": (first, second, third),
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "seed": seed,
        }
        with toasts():
            engine.run_smoke_test(parse_settings(SmokeSettings, values))

    first, second, third = mode.prompts
    named = {
        "first": first,
        "second": second,
        "third": third,
        "num_inference_steps": mode.num_inference_steps,
        "guidance_scale": mode.guidance_scale,
        "seed": mode.seed,
    }
    then_refresh(mode.run.click(run_smoke_test, inputs_kwargs=named, **QUIET))
    then_refresh(mode.cancel.click(engine.cancel, **QUIET))
