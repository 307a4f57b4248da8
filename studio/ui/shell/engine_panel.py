"""What the line at the top opens: which model, on which device, in which precision, and why."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.files import read_text
from studio.core.language import _, language, moment, number
from studio.core.paths import UserData, black_pictures_page, typed_path
from studio.core.results import AttentionTrial, DeviceCheck, DeviceDifference, EngineFacts
from studio.core.settings import ModelSettings, parse_settings
from studio.core.text import gigabytes, template
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView
from studio.ui.forms import SettingsForm, build_reset
from studio.ui.shell.parts import QUIET, Part, table, toasts
from studio.ui.shell.selection import FieldErrors, error_box
from studio.ui.shell.status import cancel_button, cancelling, phase_words

_template = template("ui/templates/shell.html")


@dataclass(frozen=True)
class EnginePanel:
    """Its components, by what they are for."""

    named: dict[str, Any]
    load: gr.Button
    cancel: gr.Button
    check: gr.Button
    errors: gr.HTML
    shown: dict[str, gr.components.Component]


def build() -> EnginePanel:
    """Lay it out below the line at the top, whose links open it: `assets/studio.js`."""
    form = SettingsForm(ModelSettings, "model")
    with gr.Row(elem_id="tab-engine", elem_classes="engine-panel"):
        with gr.Column(elem_id="model-box", min_width=0, scale=3):
            choices = gr.HTML(elem_id="model-choices", padding=False)
            form.add("model", info=True)
            with gr.Accordion(_("Precision and prediction"), open=False, elem_id="model-more"):
                with gr.Row(elem_classes="fields"):
                    form.add("precision", info=True)
                    form.add("prediction_type", info=True)
                form.rest(info=True)
            with gr.Row(elem_classes="actions"):
                load = gr.Button(_("Load"), elem_id="load-model", interactive=False)
                cancel = gr.Button(_("Cancel"), elem_id="cancel-load", interactive=False)
                build_reset(form.fields, form="model")
            errors = error_box("model")
            facts = gr.HTML(elem_id="model-facts", padding=False)
        with gr.Column(elem_id="device-box", min_width=0, scale=2):
            words = gr.HTML(elem_id="device-words", padding=False)
            check = gr.Button(
                _("Check the device against the CPU"), elem_id="check-device", size="md", interactive=False
            )
            with gr.Accordion(_("Why float32? The story of the black images"), open=False, elem_id="black-pictures"):
                gr.Markdown(read_text(black_pictures_page(language())))
    shown: dict[str, gr.components.Component] = {
        "model-choices": choices,
        "device": words,
        "model-facts": facts,
        "load": load,
        "cancel-load": cancel,
        "check": check,
    }
    return EnginePanel(form.fields, load, cancel, check, errors, shown)


def render(view: EngineView, user_data: UserData) -> dict[str, Part]:
    """What every shown part should be now."""
    return {
        "model-choices": lambda: _choices(view, user_data),
        "device": lambda: _device_words(view),
        "model-facts": lambda: _model_facts(view),
        "load": gr.update(interactive=view.phase in TAKES_A_MODEL),
        "cancel-load": cancel_button(view, "loading"),
        "check": gr.update(interactive=view.phase == "ready"),
    }


TAKES_A_MODEL = ("ready", "no model", "off", "gone")


def _choices(view: EngineView, user_data: UserData) -> Markup:
    """Each model with what it is and a button; of one that loads, how far it is."""
    from studio.engine.model_choices import model_choices  # it imports huggingface_hub

    rows = []
    for choice in model_choices(user_data):
        loads = view.phase == "loading" and view.model == choice.name
        state = "loads" if loads else "used" if _is_used(choice.name, view.facts) else "free"
        rows.append((choice, state))
    shares = (view.download.done_bytes, view.download.total_bytes) if view.download else (0, 0)
    words = " ".join(phase_words(view)) if view.phase == "loading" else ""
    takes = view.phase in TAKES_A_MODEL
    return _template("model_choices", rows=rows, words=words, done=shares[0], total=shares[1], takes=takes)


def _is_used(name: str, facts: EngineFacts | None) -> bool:
    """Whether that is the loaded model, as `ModelSettings.model` names it."""
    return facts is not None and (name == facts.model or str(typed_path(name).resolve()) == facts.model_folder)


def _model_facts(view: EngineView) -> Markup:
    """The loaded model; before it what goes on, or what went wrong."""
    going_on = " ".join(phase_words(view)) if view.phase == "loading" else ""
    facts = view.facts
    if facts is None:
        return _template("model_facts", problem=view.problem, going_on=going_on, notes=(), rows="")
    rows = [
        (_("Loaded"), facts.model),
        (_("Revision"), facts.model_revision or "–"),
        (_("From"), facts.model_folder),
        (_("Parameters"), _("{millions:,.1f} million", millions=facts.parameters / 1e6)),
        (_("Its own size"), f"{facts.width} × {facts.height}"),
    ]
    loaded = table((_("Item"), _("Value")), rows, caption=_("Loaded model"))
    return _template("model_facts", problem=view.problem, going_on=going_on, notes=facts.notes, rows=loaded)


def _device_words(view: EngineView) -> Markup:
    check = view.device_check
    checked_at, rows = (moment(check.checked_at), _device_table(check)) if check else ("", "")
    return _template("device", facts=view.facts, check=check, checked_at=checked_at, rows=rows)


def _device_table(check: DeviceCheck) -> Markup:
    """Each part: how far from the CPU, what is allowed, the verdict, time and memory."""
    used = check.chosen_attention
    named: list[tuple[str, AttentionTrial | DeviceDifference, str]] = [
        *((_("attention: {name}", name=trial.label), trial, _trial_verdict(trial, used)) for trial in check.attention),
        *((_(difference.part), difference, _part_verdict(difference)) for difference in check.differences),
    ]
    rows = [
        (
            name,
            number(part.difference, ".1e"),
            number(part.limit, ".0e"),
            verdict,
            "–" if part.seconds is None else _("{time:,.0f} ms", time=1000 * part.seconds),
            "–" if part.memory_bytes is None else gigabytes(part.memory_bytes),
        )
        for name, part, verdict in named
    ]
    heads = (_("Part"), _("Difference"), _("Allowed"), _("Verdict"), _("Time"), _("Memory"))
    return table(heads, rows, caption=_("Device compared with CPU")) if rows else Markup()


def _trial_verdict(trial: AttentionTrial, used: AttentionTrial | None) -> str:
    if not trial.passed:
        return _("wrong")
    return _("correct, used") if trial is used else _("correct")


def _part_verdict(part: DeviceDifference) -> str:
    if part.passed:
        return _("correct")
    return _("wrong: {consequence}", consequence=part.consequence) if part.consequence else _("wrong")


def wire(box: EnginePanel, engine: EngineClient, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the buttons."""

    def load(**values: Any) -> None:  # noqa: ANN401 - the form's values, checked by parse_settings
        with toasts():
            engine.load(parse_settings(ModelSettings, {**values, "model": values["model"].strip()}))

    def check() -> None:
        with toasts():
            engine.check_device()

    errors = FieldErrors(box.errors, "model", box.named)
    then_refresh(errors.press(box.load.click, load, inputs_kwargs=box.named, **QUIET))
    then_refresh(box.cancel.click(cancelling(engine, "loading"), **QUIET))
    then_refresh(box.check.click(check, **QUIET))
