"""The Inference tab: the smoke test, the model it runs on, and the device check."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.engine_process.client import EngineClient, EngineView
from studio.errors import StudioError
from studio.paths import black_pictures_page
from studio.settings import ModelSettings, SmokeSettings, bounds, parse_settings
from studio.ui import smoke_view
from studio.ui.html import text
from studio.ui.parts import Update


@dataclass(frozen=True)
class InferenceTab:
    """The tab's components, by what they are for."""

    prompts: tuple[gr.Textbox, gr.Textbox, gr.Textbox]
    num_inference_steps: gr.Slider
    guidance_scale: gr.Slider
    seed: gr.Number
    model: gr.Textbox
    precision: gr.Dropdown
    run: gr.Button
    cancel: gr.Button
    start: gr.Button
    load: gr.Button
    check: gr.Button
    shown: dict[str, gr.components.Component]


def build() -> InferenceTab:
    """Lay the tab out: controls on the left, pictures and tables on the right."""
    with gr.Row(elem_classes="workbench"):
        with gr.Column(elem_classes="controls", min_width=320):
            gr.HTML(
                "<h2>Smoke test</h2><p class='quiet'>Makes three pictures and checks every one: is the model, "
                "the device and the precision fit for work?</p>",
                padding=False,
            )
            with gr.Row(elem_classes="actions"):
                run = gr.Button("Run the smoke test", variant="primary", elem_id="run-smoke", interactive=False)
                cancel = gr.Button("Cancel", elem_id="cancel-smoke", interactive=False)
            start = gr.Button("Start the engine", elem_id="start-engine", visible=False)
            prompts = _prompt_boxes()
            steps, guidance, seed = _number_boxes()
            model, precision, load = _model_box()
            check, device_words = _device_box()
        with gr.Column(elem_classes="canvas", min_width=480):
            verdict = gr.HTML(elem_id="verdict", padding=False)
            with gr.Row(elem_classes="cards"):
                cards = [gr.HTML(elem_id=f"card-{i}", min_width=120, padding=False) for i in range(3)]
            downloads = gr.HTML(elem_id="downloads", padding=False)
            details = gr.HTML(elem_id="details", padding=False)
    with gr.Accordion("Why float32? The story of the black pictures", open=False, elem_id="black-pictures"):
        gr.Markdown(black_pictures_page().read_text(encoding="utf-8"))
    shown: dict[str, gr.components.Component] = {
        "verdict": verdict,
        **{f"card-{i}": card for i, card in enumerate(cards)},
        "downloads": downloads,
        "details": details,
        "device": device_words,
        "run": run,
        "cancel": cancel,
        "start": start,
        "load": load,
        "check": check,
    }
    return InferenceTab(prompts, steps, guidance, seed, model, precision, run, cancel, start, load, check, shown)


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


def _model_box() -> tuple[gr.Textbox, gr.Dropdown, gr.Button]:
    defaults, fields = ModelSettings(), ModelSettings.model_fields
    with gr.Accordion("Model", open=False, elem_id="model-box"):
        model = gr.Textbox(
            defaults.model, label=fields["model"].title, info=fields["model"].description, interactive=True
        )
        precision = gr.Dropdown(
            ["float32", "float16", "bfloat16"],
            value=defaults.precision,
            label=fields["precision"].title,
            info=fields["precision"].description,
            interactive=True,
        )
        load = gr.Button("Load", elem_id="load-model", interactive=False)
    return model, precision, load


def _device_box() -> tuple[gr.Button, gr.HTML]:
    with gr.Accordion("Device check", open=False, elem_id="device-box"):
        words = gr.HTML(elem_id="device-words")
        check = gr.Button("Compare the device with the CPU", elem_id="check-device", interactive=False)
    return check, words


def render(view: EngineView) -> dict[str, Update]:
    """What every shown part of the tab should be now."""
    ready, running = view.phase == "ready", view.phase == "smoke test"
    return {
        "verdict": smoke_view.verdict(view),
        **{f"card-{i}": smoke_view.card(view, i) for i in range(3)},
        "downloads": smoke_view.downloads(view.report),
        "details": smoke_view.details(view.report),
        "device": _device_words(view),
        "run": gr.update(interactive=ready),
        "cancel": gr.update(interactive=running and not view.cancelling),
        "start": gr.update(visible=view.phase in ("gone", "off")),
        "load": gr.update(interactive=ready or view.phase == "no model"),
        "check": gr.update(interactive=ready),
    }


def _device_words(view: EngineView) -> str:
    if view.device_check is None:
        return "<p>Not checked on this machine yet. It compares a few UNet steps, a VAE decode and a backward pass.</p>"
    kind = "good" if view.device_check.passed else "bad"
    when = f"{view.device_check.checked_at:%d %B %Y}"
    return f'<p class="{kind}">{text(view.device_check.sentence)}</p><p class="quiet">checked on {when}</p>'


def wire(tab: InferenceTab, engine: EngineClient, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the buttons. Each handler asks the engine for one thing; the page is refreshed after it."""

    def run_smoke_test(
        first: str, second: str, third: str, num_inference_steps: float, guidance_scale: float, seed: float | None
    ) -> None:
        values = {
            "prompts": (first, second, third),
            "num_inference_steps": num_inference_steps,
            "guidance_scale": guidance_scale,
            "seed": seed,
        }
        with _toasts():
            engine.run_smoke_test(parse_settings(SmokeSettings, values))

    def load(model: str, precision: str) -> None:
        with _toasts():
            engine.load(parse_settings(ModelSettings, {"model": model.strip(), "precision": precision}))

    def check() -> None:
        with _toasts():
            engine.check_device()

    first, second, third = tab.prompts
    named = {
        "first": first,
        "second": second,
        "third": third,
        "num_inference_steps": tab.num_inference_steps,
        "guidance_scale": tab.guidance_scale,
        "seed": tab.seed,
    }
    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    then_refresh(tab.run.click(run_smoke_test, inputs_kwargs=named, **hidden))
    then_refresh(tab.cancel.click(engine.cancel, **hidden))
    then_refresh(tab.start.click(engine.start, **hidden))
    then_refresh(tab.load.click(load, inputs_kwargs={"model": tab.model, "precision": tab.precision}, **hidden))
    then_refresh(tab.check.click(check, **hidden))


@contextmanager
def _toasts() -> Iterator[None]:
    """Turn a StudioError into a toast; toasts render markup, so the text is escaped."""
    try:
        yield
    except StudioError as error:
        raise gr.Error(text(error), duration=8, print_exception=False) from error
