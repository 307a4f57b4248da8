"""The Training tab: the form on the left, the run on the right with its images, other runs and the queue."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
from markupsafe import Markup
from pydantic import ValidationError

from studio.core.errors import TrainingError
from studio.core.language import N_, _, said
from studio.core.settings import parse_settings
from studio.core.text import duration, gigabytes, template
from studio.engine.process.client import EngineClient
from studio.training.begin import assert_consistent, begin_run
from studio.training.folder import Offer, Preflight, variants_words
from studio.training.session import TrainingView
from studio.training.settings import TrainingSettings
from studio.ui.datasets.captioning import CaptionJobs
from studio.ui.forms import by_component, read_settings, shown_value
from studio.ui.shell.commands import COMPARED_ON_LOAD, PreflightState, forecast_box
from studio.ui.shell.parts import QUIET, Group, Part, Update, paragraph, problem, toasts
from studio.ui.shell.selection import FieldErrors, Selection, changed, error_box, read_selection
from studio.ui.shell.status import start_words
from studio.ui.training import end_card as training_end_card
from studio.ui.training import form as training_form
from studio.ui.training import panel as training_panel
from studio.ui.training import presets as training_presets
from studio.ui.training import results as training_results
from studio.ui.training import saved_steps as training_saved_steps
from studio.ui.training import short_way as training_short_way
from studio.ui.training.destinations import Destinations
from studio.ui.training.plot import capitalized
from studio.ui.training.queue import TrainingPage

MAX_OFFERS = 4
_template = template("ui/templates/training.html")


@dataclass(frozen=True)
class PreflightBox:
    """Its components; `of` says which measurement they show."""

    check: gr.Button
    errors: gr.HTML
    words: gr.HTML
    offers: tuple[gr.Button, ...]
    of: gr.Textbox
    cancel: gr.Button

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        return {
            "preflight-words": self.words,
            "preflight-of": self.of,
            "preflight-cancel": self.cancel,
            **{f"preflight-offer-{i}": button for i, button in enumerate(self.offers)},
        }


@dataclass(frozen=True)
class TrainingTab:
    """The tab's parts."""

    short: training_short_way.ShortWayBox
    form: training_form.TrainingForm
    preflight: PreflightBox
    start: gr.Button
    panel: training_panel.RunPanel

    @property
    def kept(self) -> dict[str, gr.components.Component]:
        """What the browser keeps of the full form, and which of the two is shown."""
        return self.form.kept

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """Every part that a refresh keeps true, by its name."""
        form = {"training-dataset": self.form.settings.fields["dataset"], "training-preset": self.form.preset}
        own = {"training-start": self.start, **self.short.shown, **self.preflight.shown}
        return {**form, **own, **self.panel.shown}


def build_preflight(check: gr.Button) -> PreflightBox:
    """Lay it out below the button that begins it, and the form's errors above it."""
    errors = error_box("training")
    words = gr.HTML(elem_id="preflight-words", padding=False, js_on_load=_CURVE + COMPARED_ON_LOAD)
    cancel = gr.Button(_("Cancel"), visible=False, size="sm", elem_id="preflight-cancel")
    with gr.Column(elem_classes="offers"):
        offers = tuple(
            gr.Button("", visible=False, size="sm", elem_id=f"preflight-offer-{i}") for i in range(MAX_OFFERS)
        )
    return PreflightBox(check, errors, words, offers, gr.Textbox(visible=False), cancel)


def build() -> TrainingTab:
    """Lay the tab out."""
    with gr.Row(elem_classes="workbench training"):
        with gr.Column(elem_classes="controls", min_width=320):
            way = training_form.build_way()
            short = training_short_way.build()
            with gr.Column(elem_classes="full-way"):
                with gr.Row(elem_classes="actions"):
                    start = gr.Button(_("Start"), variant="primary", elem_id="start-training")
                    check = gr.Button(_("Preflight"), elem_id="run-preflight")
                preflight = build_preflight(check)
                form = training_form.build_form(way)
        with gr.Column(elem_classes="canvas", min_width=480):
            panel = training_panel.build()
    return TrainingTab(short, form, preflight, start, panel)


def render(page: TrainingPage, view: TrainingView, selection: Selection) -> dict[str, Group]:
    """What makes every shown part of the tab as it should be now."""
    return {
        N_("The training's form"): lambda: {
            "training-start": gr.update(value=start_words(view.jobs)),
            "training-dataset": gr.update(choices=training_form.dataset_choices(page.datasets.library.names())),
        },
        N_("Simple"): lambda: training_short_way.render(page, selection),
        N_("The presets"): lambda: render_presets(page, view),
        N_("The preflight"): lambda: render_preflight(page.preflight.state),
        **training_panel.render(page, view, selection),
    }


def render_presets(page: TrainingPage, view: TrainingView) -> dict[str, Part]:
    """What each preset took here, as far as it is known."""
    user_data, state = page.session.user_data, page.preflight.state
    training_presets.remember(user_data, view, state, read_preflight(state))
    return {
        "training-preset": gr.update(choices=training_presets.preset_choices(training_presets.read_measured(user_data)))
    }


def render_preflight(state: PreflightState) -> dict[str, Part]:
    """What the box shows now."""
    found = read_preflight(state)
    offers = found.offers[:MAX_OFFERS] if found else ()
    buttons: dict[str, Update] = {}
    for i in range(MAX_OFFERS):
        shown = i < len(offers)
        buttons[f"preflight-offer-{i}"] = gr.update(visible=shown, value=_offer_words(offers[i]) if shown else "")

    def words() -> str:
        html = _preflight_html(state, found)
        return forecast_box(state, html, form="training", labels=training_form.labels(), button=_("Preflight"))

    return {
        "preflight-words": words,
        "preflight-of": gr.update(value=str(state.number)),
        "preflight-cancel": gr.update(visible=state.running),
        **buttons,
    }


def read_preflight(state: PreflightState) -> Preflight | None:
    """What was found; None where nothing was, or not by this version."""
    if not state.result_json:
        return None
    try:
        return Preflight.model_validate_json(state.result_json)
    except ValidationError:
        return None


def _preflight_html(state: PreflightState, found: Preflight | None) -> Markup:
    if state.running:
        text = _("A few real steps are being measured, for {time} so far; nothing is saved.", time=state.time_words)
        now = _("Now: {doing}.", doing=state.step_words)
        return paragraph("quiet", text, role="status") + paragraph("quiet", now)
    if state.problem:
        return problem(state.problem)
    if found is None:
        return paragraph("quiet", _("“Preflight” runs a few real steps to estimate time, memory and disk space."))
    html = _template("preflight", found=found) + _curve_html(found)
    return html + _template("variants", shown=found.variants, words=variants_words(found)) if found.variants else html


CURVE_WIDTH, CURVE_HEIGHT = 300, 90
_CURVE = """const slider = () => element.querySelector(".checkpointing input");
const show = () => {
  const [percent, x, y, text] = JSON.parse(slider().dataset.points)[slider().value];
  const mark = element.querySelector(".checkpointing circle.chosen");
  mark.setAttribute("cx", x);
  mark.setAttribute("cy", y);
  slider().setAttribute("aria-valuetext", text);
  element.querySelector(".checkpointing output").textContent = text;
};
element.addEventListener("input", (event) => { if (event.target === slider()) show(); });
let settled = 0;
element.addEventListener("change", (event) => {
  if (event.target !== slider()) return;
  clearTimeout(settled);  // of presses that follow at once, as those of an arrow key do, Gradio takes the first alone
  const [percent] = JSON.parse(slider().dataset.points)[slider().value];
  settled = setTimeout(() => trigger("click", { percent }), 400);
});
"""


def _curve_html(found: Preflight) -> Markup:
    """Memory against time of more and more gradient checkpointing, with a slider; empty where it was not measured.

    Points that take no less memory than one before, for a block that is there again for a moment, are left out.
    """
    if len(found.curve) < 2:
        return Markup()
    curve = [p for i, p in enumerate(found.curve) if all(p.peak_bytes < q.peak_bytes for q in found.curve[:i])]
    low, high = (by(point.peak_bytes for point in curve) for by in (min, max))
    fast, slow = (by(point.seconds for point in curve) for by in (min, max))
    points = [
        (
            point.percent,
            round(8 + (CURVE_WIDTH - 16) * (point.peak_bytes - low) / max(1, high - low)),
            round(8 + (CURVE_HEIGHT - 16) * (1 - (point.seconds - fast) / max(1e-9, slow - fast))),
            _(
                "{percent}% freed: {memory}, {time} a step",
                percent=point.percent,
                memory=gigabytes(point.peak_bytes),
                time=duration(point.seconds),
            ),
        )
        for point in curve
    ]
    chosen = min(range(len(points)), key=lambda i: abs(curve[i].percent - found.checkpointing_percent))
    return _template(
        "checkpointing_curve", points=points, data=json.dumps(points), chosen=chosen, size=(CURVE_WIDTH, CURVE_HEIGHT)
    )


def _offer_words(offer: Offer) -> str:
    return capitalized(said(offer.effect))


def wire(
    tab: TrainingTab,
    page: TrainingPage,
    selection: gr.HTML,
    *,
    engine: EngineClient,
    captions: CaptionJobs,
    to: Destinations,
    then_refresh: Callable[[Any], Any],
) -> None:
    """Connect the form, the preflight and the run; `to` has the forms that take a run's LoRA."""
    short = training_short_way.ShortWayPage(page, engine, captions)
    training_short_way.wire(tab.short, short, tab.form, selection, then_refresh=then_refresh)
    form, fields = tab.form, tab.form.settings.fields

    def show_preset(preset: str) -> dict[Any, Any]:
        return by_component(fields, form.settings.shown(training_form.preset_values(preset)))

    def start(selection: str, **values: Any) -> str:  # noqa: ANN401 - the form's values
        with toasts():
            run = begin_run(settings_of(values, page), page.session.user_data)
            page.session.enqueue(run)
            return changed(read_selection(selection), run=run.name, image=None)

    for back in (form.preset.input, form.reset.click):
        back(show_preset, form.preset, list(fields.values()), **QUIET)
    form.preset.change(training_form.purpose_html, form.preset, form.purpose, **QUIET)
    errors = FieldErrors(tab.preflight.errors, "training", fields)
    training_form.wire_settings(form, errors, lambda values: settings_of(values, page))
    _wire_preflight(tab, page, errors, then_refresh=then_refresh)
    pressed = {"selection": selection, **fields}
    started = errors.press(tab.start.click, start, inputs_kwargs=pressed, outputs=[selection], **QUIET)
    then_refresh(started)
    training_panel.wire(tab.panel, page, selection, then_refresh=then_refresh)
    training_results.wire(tab.panel.results, page, selection, form, to, then_refresh=then_refresh)
    training_saved_steps.wire(tab.panel.saved, page, selection, to, then_refresh=then_refresh)
    training_end_card.wire(tab.panel.end, page, selection, to, then_refresh=then_refresh)


def _wire_preflight(
    tab: TrainingTab, page: TrainingPage, errors: FieldErrors, *, then_refresh: Callable[[Any], None]
) -> None:
    """Begin it with what the form holds; an offer's button changes the form and measures again."""
    box, fields = tab.preflight, tab.form.settings.fields

    def begin(**values: Any) -> None:  # noqa: ANN401 - the form's values
        with toasts():
            page.preflight.start(settings_of(values, page).model_dump_json(), values)

    def take(of: str, index: int) -> dict[Any, Any]:
        state = page.preflight.state
        found = read_preflight(state)
        with toasts():
            if of != str(state.number) or found is None or index >= len(found.offers):
                raise TrainingError(
                    _("Nothing was changed: another preflight was begun meanwhile. Wait for its numbers.")
                )
        offered = found.offers[index].changes
        return by_component(fields, {name: shown_value(value) for name, value in offered.items()})

    def free(event: gr.EventData) -> dict[Any, Any]:
        percent = int(getattr(event, "percent", 0))
        return by_component(
            fields, {"gradient_checkpointing": "part", "gradient_checkpointing_percent": min(100, max(0, percent))}
        )

    def cancel(of: str) -> None:
        with toasts():
            page.preflight.cancel(int(of or 0))

    then_refresh(errors.press(box.check.click, begin, inputs_kwargs=fields, **QUIET))
    then_refresh(box.cancel.click(cancel, box.of, **QUIET))
    box.words.click(free, None, list(fields.values()), trigger_mode="always_last", **QUIET)
    for index, button in enumerate(box.offers):
        taken = button.click(partial(take, index=index), box.of, list(fields.values()), **QUIET)
        then_refresh(errors.press(taken.success, begin, inputs_kwargs=fields, **QUIET))


def settings_of(values: dict[str, Any], page: TrainingPage) -> TrainingSettings:
    """The settings that the form's values are; a studio that was started with --cpu trains so too.

    Raises:
        SettingsError: where one breaks its rule, or some do not fit together.
    """
    settings = parse_settings(TrainingSettings, {**read_settings(TrainingSettings, values), "cpu": page.cpu_only})
    assert_consistent(settings)
    return settings
