"""The saved steps of a run as a list: score and size of each; tried in Generate, kept, exported, deleted.

A step is saved as a checkpoint, from which the run goes on, as the LoRA that made its validation images, or both.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import RunError
from studio.core.files import move_to_trash
from studio.core.language import _, number
from studio.core.text import LITTLE_BYTES, gigabytes, template
from studio.jobs.folder import BUSY_STATES, status_or
from studio.jobs.words import title
from studio.training.begin import read_run_settings
from studio.training.events import CheckpointEvent
from studio.training.folder import KEPT, RunFolder
from studio.training.session import RunHistory, lora_of, loras_by_step
from studio.ui.shell import item_actions
from studio.ui.shell.images import served_url
from studio.ui.shell.parts import QUIET, live_html, save_link, toast, toasts
from studio.ui.training.destinations import Destinations, in_rows, lead_to, wire_use
from studio.ui.training.end_card import ACTS, CHOSEN_IN_GENERATE, telling_score
from studio.ui.training.plot import OUTCOME_KINDS, OUTCOME_WORDS, Outcome
from studio.ui.training.queue import TrainingPage

_template = template("ui/templates/training.html")

SAVE_LORA = '() => document.querySelector("#training-lora-link a")?.click()'


@dataclass(frozen=True)
class SavedStep:
    """One row of the list.

    Attributes:
        score: how its images score, in words; "" where they were not scored.
        outcome, kind: how that compares with the base, and as a colour.
        num_bytes: of all that is saved of it.
        has_checkpoint: whether the run could go on from it.
        is_kept: whether that is never pruned.
    """

    step: int
    score: str
    outcome: Outcome
    kind: str
    num_bytes: int
    has_checkpoint: bool
    is_kept: bool

    @property
    def told(self) -> str:
        """Its outcome in words."""
        return _(OUTCOME_WORDS[self.outcome])

    @property
    def size(self) -> str:
        """In words, also of little: files of the built-in model's LoRAs have some hundred thousand bytes."""
        little = self.num_bytes < LITTLE_BYTES
        return f"{number(self.num_bytes / 2**20, '.1f')} MB" if little else gigabytes(self.num_bytes)


@dataclass(frozen=True)
class SavedSteps:
    """Its components."""

    rows: gr.HTML
    link: gr.HTML
    trash: item_actions.TrashBox


def build() -> SavedSteps:
    """Lay the list out, with the question of a deletion above it."""
    trash = item_actions.build("training-step")
    rows = live_html("training-checkpoints", js_on_load=ACTS)
    return SavedSteps(rows, gr.HTML(elem_id="training-lora-link", visible="hidden", padding=False), trash)


def saved_steps(run: RunFolder, history: RunHistory) -> list[SavedStep]:
    """What is still there, newest first."""
    checkpoints = {event.step: event for event in history.checkpoints}
    found = []
    for step in sorted(checkpoints.keys() | loras_by_step(history).keys(), reverse=True):
        files = saved_files(run, history, step)
        if not files:
            continue
        scored = history.scores.get(step)
        told = telling_score(history, scored) if scored is not None else None
        score = f"{_(told[0].title)} {told[0].words(scored.scores)}" if told is not None and scored is not None else ""
        outcome: Outcome = told[1] if told is not None else ""
        folder = next((path for path in files if path.is_dir()), None)
        found.append(
            SavedStep(
                step=step,
                score=score,
                outcome=outcome,
                kind=OUTCOME_KINDS[outcome],
                num_bytes=sum(_num_bytes(path, checkpoints.get(step)) for path in files),
                has_checkpoint=folder is not None,
                is_kept=folder is not None and (folder / KEPT).exists(),
            )
        )
    return found


def saved_files(run: RunFolder, history: RunHistory, step: int) -> list[Path]:
    """What is saved of a step: the folder of its checkpoint, the LoRA that made its images."""
    reported = [event.folder for event in history.checkpoints if event.step == step]
    reported += [event.lora for event in history.samples if event.step == step > 0]
    found: dict[Path, None] = {}
    for name in filter(None, reported):
        try:
            path = run.file(name)
        except FileNotFoundError:  # it leads out of the run's folder
            continue
        if path.exists() and path != run.root:
            found[path] = None
    return list(found)


def _num_bytes(path: Path, checkpoint: CheckpointEvent | None) -> int:
    if path.is_dir():
        return checkpoint.num_bytes if checkpoint is not None else 0
    try:
        return path.stat().st_size
    except FileNotFoundError:  # pruned meanwhile
        return 0


def saved_steps_html(run: RunFolder | None, history: RunHistory | None) -> Markup:
    """The list; empty where nothing is saved yet."""
    rows = saved_steps(run, history) if run is not None and history is not None else []
    if run is None or history is None or not rows:
        return Markup()
    state = status_or("failed", run).state
    resumed = next((row.step for row in rows if row.has_checkpoint), None) if state != "finished" else None
    best = history.proposal.step if history.proposal is not None else None
    return _template("saved_steps", rows=rows, best=best, resumed=resumed, works=state in BUSY_STATES)


def set_kept(run: RunFolder, history: RunHistory, step: object) -> str:
    """Keep the checkpoint of a step for good, or no longer; that, in a sentence.

    Raises:
        RunError: where there is none.
        OSError: where it cannot be noted.
    """
    folder = next((path for path in saved_files(run, history, _known(step)) if path.is_dir()), None)
    if folder is None:
        raise RunError(_("The checkpoint of step {step} is gone: only the most recent ones are kept.", step=step))
    mark = folder / KEPT
    if mark.exists():
        mark.unlink()
        return _("The checkpoint of step {step:,} may be replaced by newer ones.", step=step)
    mark.touch()
    return _("The checkpoint of step {step:,} is kept for good.", step=step)


def question(run: RunFolder, history: RunHistory, step: object) -> item_actions.Question:
    """Whether to delete what is saved of a step, and what is lost by that.

    Raises:
        RunError: where nothing is, or the run is being worked on.
    """
    at, called = _known(step), title(run)
    files = saved_files(run, history, at)
    status = status_or("failed", run)
    if not files:
        raise RunError(_("Nothing is saved of step {step:,} any more.", step=at))
    if status.state in BUSY_STATES:
        raise RunError(_("{name} is being worked on. Pause or stop it first.", name=called))
    steps = [row.step for row in saved_steps(run, history) if row.has_checkpoint]
    lost = [_("{size} go.", size=row.size) for row in saved_steps(run, history) if row.step == at]
    if history.proposal is not None and history.proposal.step == at:
        lost.append(_("It is the recommended step."))
    if status.state != "finished" and steps[:1] == [at]:
        lost.append(
            _("The run would be resumed from here: without it, from step {step:,}.", step=steps[1])
            if len(steps) > 1
            else _("The run would be resumed from here: without it, from the beginning.")
        )
    lost.append(_("Its images and scores stay."))
    name = _("step {step:,} of {run}", step=at, run=called)
    return item_actions.Question(f"{at} {run.name}", name, " ".join(lost))


def delete(run: RunFolder, history: RunHistory, step: int, *, without_trash: Path) -> str:
    """Move what is saved of a step to the trash; where it is now, in words.

    Raises:
        RunError: as `question`.
        OSError: where it cannot be moved.
    """
    question(run, history, step)  # it may have been resumed since it was asked
    places = {move_to_trash(path, without_trash=without_trash) for path in saved_files(run, history, step)}
    return " ".join(_("Step {step:,} is {place}.", step=step, place=place) for place in sorted(places))


def _known(step: object) -> int:
    if not isinstance(step, int):
        raise RunError(_("There is no step {step}.", step=step))
    return step


def wire(
    box: SavedSteps, page: TrainingPage, selection: gr.HTML, to: Destinations, *, then_refresh: Callable[[Any], Any]
) -> None:
    """Connect the buttons of its rows, each of which names its step."""

    def keep(selection: str, event: gr.EventData) -> None:
        with toasts():
            run = page.run_of(selection)
            toast(set_kept(run, page.session.history(run), getattr(event, "step", None)))

    def export(selection: str, event: gr.EventData) -> str:
        with toasts():
            run = page.run_of(selection)
            step, file = lora_of(run, page.session.history(run), _known(getattr(event, "step", None)))
            name = f"{read_run_settings(run).name} step {step}.safetensors"
            return save_link(name, served_url(file, name), _("Save the LoRA"))

    def find(selection: str, event: gr.EventData) -> item_actions.Question:
        run = page.run_of(selection)
        return question(run, page.session.history(run), getattr(event, "step", None))

    def really(about: str) -> str:
        step, _space, name = about.partition(" ")
        run = page.session.named(name)
        trash = page.session.user_data.trash
        return delete(run, page.session.history(run), int(step), without_trash=trash)

    in_the_page: Mapping[str, Any] = {"fn": None, "queue": False, "show_progress": "hidden"}
    says, js = CHOSEN_IN_GENERATE, lead_to("Inference", "Generate")
    then_refresh(wire_use(box.rows.click, page, selection, to.generate, fill=in_rows, says=says, js=js))
    then_refresh(box.rows.edit(keep, selection, **QUIET))
    box.rows.download(export, selection, box.link, **QUIET).success(js=SAVE_LORA, **in_the_page)
    then_refresh(item_actions.wire(box.trash, box.rows.delete, selection, find=find, delete=really))
