"""The smoke test mode: three images, each checked, and a verdict."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.language import _, moment
from studio.core.results import InvalidPicture, SavedReport, SmokeReport
from studio.core.settings import SMOKE_PROMPTS, SmokeSettings, parse_settings
from studio.core.text import template
from studio.engine.process.client import EngineClient
from studio.engine.process.messages import Picture
from studio.engine.process.view import EngineView
from studio.images.smoke_report import (
    JSON_NAME,
    MARKDOWN_NAME,
    MEMORY_HEAD,
    memory_rows,
    picture_facts,
    settings_rows,
    time_rows,
)
from studio.ui.forms import SettingsForm, build_reset, read_settings
from studio.ui.inference.generate_form import prompt_notes_html
from studio.ui.shell import parts
from studio.ui.shell.images import card as picture_card
from studio.ui.shell.images import empty_frame, picture_frame, running_frame
from studio.ui.shell.parts import QUIET, Part, download_link, paragraph, problem, table, toasts
from studio.ui.shell.selection import FieldErrors, error_box
from studio.ui.shell.status import cancel_button, cancelling, phase_words

_template = template("ui/templates/inference.html")


@dataclass(frozen=True)
class SmokeMode:
    """The mode's components, by what they are for."""

    named: dict[str, Any]
    notes: gr.HTML
    run: gr.Button
    cancel: gr.Button
    errors: gr.HTML
    shown: dict[str, gr.components.Component]


def build() -> SmokeMode:
    """Lay the mode out: controls on the left, images and tables on the right."""
    with gr.Row(elem_classes="workbench"):
        with gr.Column(elem_classes="controls", min_width=320):
            gr.HTML(
                paragraph(
                    "quiet",
                    _("Makes three images and checks every one: is the model, the device and the precision working?"),
                ),
                padding=False,
            )
            with gr.Row(elem_classes="actions"):
                run = gr.Button(_("Run the smoke test"), variant="primary", elem_id="run-smoke", interactive=False)
                cancel = gr.Button(_("Cancel"), elem_id="cancel-smoke", interactive=False)
            errors = error_box("smoke")
            named, notes = _build_form()
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
    return SmokeMode(named, notes, run, cancel, errors, shown)


def _build_form() -> tuple[dict[str, Any], gr.HTML]:
    prompts = {
        f"prompt_{i}": gr.Textbox(
            prompt, label=_("Prompt {i}", i=i), lines=2, max_lines=4, interactive=True, elem_id=f"prompt-{i}"
        )
        for i, prompt in enumerate(SmokeSettings().prompts, start=1)
    }
    notes = gr.HTML(elem_id="smoke-tokens", padding=False)
    form = SettingsForm(SmokeSettings, "smoke")
    form.accordions()
    named = {**prompts, **form.fields}
    build_reset(named, form="smoke")
    return named, notes


def render(view: EngineView) -> dict[str, Part]:
    """What every shown part of the mode should be now."""
    return {
        "verdict": lambda: verdict(view),
        **{f"card-{i}": partial(card, view, i) for i in range(3)},
        "downloads": lambda: downloads(view.report),
        "details": lambda: details(view.report),
        "run": gr.update(interactive=view.takes_runs),
        "cancel": cancel_button(view, "smoke test"),
    }


def verdict(view: EngineView) -> Markup:
    """On top: what went wrong, what is going on, and PASS or FAIL of the last test and why."""
    boxes = [parts.verdict(*phase_words(view))] if view.phase != "ready" or view.report is None else []
    if view.report is not None and view.phase != "smoke test":
        boxes.append(_verdict_box(view.report.report))
    return Markup().join([problem(view.problem), *boxes, *(paragraph("note", note) for note in _notes(view))])


def _verdict_box(report: SmokeReport) -> Markup:
    word, __, words = report.verdict.partition(": ")
    when = moment(report.started_at)
    kind = "" if report.cancelled else "pass" if report.passed else "fail"
    return parts.verdict(f"{word}:", f"{words} ({report.engine.model}, {when})", kind=kind)


def _notes(view: EngineView) -> tuple[str, ...]:
    """What the user should know of the loaded model: a precision that was raised, how the model was found."""
    if view.facts is None:
        return ()
    raised = (view.facts.precision.reason,) if view.facts.precision.raised else ()
    return (*raised, *view.facts.notes)


def card(view: EngineView, index: int) -> Markup:
    """Picture `index`: finished, in the making with its preview, or still to come. Its frame never changes size."""
    picture, folder = _picture(view, index)
    if picture is None:
        running = view.phase == "smoke test" and view.step is not None and view.step.picture == index
        frame = running_frame(view) if running else empty_frame(str(index + 1), _("not made yet"))
        words = _template("smoke_step", prompt=_prompt(view, index), step=view.step if running else None)
        return picture_card(frame, words)
    if isinstance(picture, InvalidPicture) or folder is None:
        frame = empty_frame("✗", _("invalid, not shown"))
    else:
        frame = picture_frame(folder / picture.file, name=_("image {number}", number=index + 1), alt=picture.prompt)
    return picture_card(frame, _picture_words(picture))


def _picture(view: EngineView, index: int) -> tuple[Picture | None, Path | None]:
    """The finished image and its folder: of the running test, else of the last report."""
    if view.report is not None:
        pictures = view.report.report.pictures
        return (pictures[index], view.report.folder) if index < len(pictures) else (None, None)
    done = next((event for event in view.pictures if event.picture == index), None)
    return (done.record, done.folder) if done else (None, None)


def _prompt(view: EngineView, index: int) -> str:
    if view.report is not None:
        return view.report.report.settings.prompts[index]
    return view.smoke_settings.prompts[index] if view.smoke_settings else SMOKE_PROMPTS[index]


def _picture_words(picture: Picture) -> Markup:
    """The prompt, and a table: what the image is, and what each check saw."""
    error, rows = (picture.error, ()) if isinstance(picture, InvalidPicture) else ("", picture_facts(picture))
    return _template("smoke_picture", prompt=picture.prompt, error=error, rows=rows, checks=picture.checks)


def details(saved: SavedReport | None) -> Markup:
    """The tables of the whole report; empty before the first one."""
    if saved is None:
        return Markup()
    report = saved.report
    tables = [
        table((_("Phase"), _("Time")), time_rows(report), caption=_("Time")),
        table(tuple(map(_, MEMORY_HEAD)), memory_rows(report), caption=_("Memory")),
        table((_("Item"), _("Value")), settings_rows(report), caption=_("Settings")),
        table((_("Package"), _("Version")), list(report.versions.items()), caption=_("Versions")),
    ]
    return _template("tables", tables=tables)


def downloads(saved: SavedReport | None) -> Markup:
    """Links that save the report; empty before the first one."""
    if saved is None:
        return Markup()
    links = [
        download_link(saved.folder / MARKDOWN_NAME, _("Report (Markdown)"), media_type="text/markdown"),
        download_link(saved.folder / JSON_NAME, _("Report (JSON)"), media_type="application/json"),
    ]
    return _template("downloads", links=links, folder=saved.folder)


def wire(mode: SmokeMode, engine: EngineClient, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the buttons."""

    def run_smoke_test(**values: Any) -> None:  # noqa: ANN401 - the form's values, checked by parse_settings
        prompts = tuple(values[f"prompt_{i}"] for i in (1, 2, 3))
        with toasts():
            read = {**read_settings(SmokeSettings, values), "prompts": prompts}
            engine.run_smoke_test(parse_settings(SmokeSettings, read))

    def show_notes(long_prompt: bool, **prompts: str) -> Markup:
        named = {_("Prompt {i}", i=name.removeprefix("prompt_")): prompt for name, prompt in prompts.items()}
        return prompt_notes_html(engine, named, long_prompt=long_prompt)

    noted = {name: control for name, control in mode.named.items() if name.startswith(("prompt_", "long_prompt"))}
    for control in noted.values():
        control.change(show_notes, inputs_kwargs=noted, outputs=mode.notes, queue=False, **QUIET)
    errors = FieldErrors(mode.errors, "smoke", mode.named)
    then_refresh(errors.press(mode.run.click, run_smoke_test, inputs_kwargs=mode.named, **QUIET))
    then_refresh(mode.cancel.click(cancelling(engine, "smoke test"), **QUIET))
