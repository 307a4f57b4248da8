"""What a plan would make, while it is written: how many, ten of them, how often each value; what it would take."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from pydantic import ValidationError

from studio.batches.folder import plan_of
from studio.batches.forecast import Pace, PlanFacts, pace_of_like
from studio.batches.session import BatchSession
from studio.batches.settings import BatchSettings
from studio.core.errors import RunError, StudioError
from studio.core.language import N_, _, language, ngettext
from studio.core.paths import typed_path
from studio.core.text import duration, template
from studio.jobs.session import JobLine
from studio.ui.batches import form as batch_form
from studio.ui.datasets.html import file_size
from studio.ui.forms import LORA_ROWS
from studio.ui.shell.commands import PreflightState, forecast_box
from studio.ui.shell.parts import paragraph, problem

_template = template("ui/templates/batches.html")

COUNTED_UP_TO = 2_000_000  # items; more take a second and longer to count, too long for something that follows typing
READ_UP_TO_BYTES = 8_000_000  # of a file of prompts, likewise: about 200,000 lines
MAX_VALUES = 12


def empty_html() -> Markup:
    """What stands where nothing is written yet."""
    words = N_(
        "The plan appears here as you type: the number of images, ten examples, and how often each value comes up."
    )
    return paragraph("quiet", _(words))


def is_too_large_to_follow(settings: BatchSettings) -> bool:
    """Whether the file of prompts takes seconds to be read."""
    path = typed_path(settings.prompt_file.strip())
    return bool(settings.prompt_file.strip()) and path.is_file() and path.stat().st_size > READ_UP_TO_BYTES


def preview_html(facts: PlanFacts) -> Markup:
    """The plan in short."""
    is_counted = facts.value_counts or not facts.num_columns
    later = () if is_counted else (_("“Measure” counts this many, and estimates time and disk space."),)
    return _template(
        "preview",
        num_items=facts.num_items,
        notes=[*facts.notes, *later],
        examples=facts.examples,
        counts=counts_html(facts.value_counts),
    )


def counts_html(counts: Mapping[str, Mapping[str, int] | int]) -> Markup:
    """A small table for each column."""
    if not counts:
        return Markup()
    return _template("counts", columns=[(column, *_values(found)) for column, found in counts.items()])


def _values(found: Mapping[str, int] | int) -> tuple[list[tuple[str, int]], str]:
    """The first values of a column, each with how often it comes up, and how many more there are in words."""
    if isinstance(found, int):
        return [], ngettext("{num:,} different value", "{num:,} different values", found, num=found)
    num_more = len(found) - MAX_VALUES
    more = _("and {num:,} more", num=num_more) if num_more > 0 else ""
    return list(found.items())[:MAX_VALUES], more


def forecast_html(state: PreflightState, jobs: Sequence[JobLine]) -> Markup:
    """Where the measuring stands, or what it found, and for what."""
    labels = {name: _(label) for name, label in batch_form.LABELS.items()}
    return forecast_box(state, _forecast_words(state, jobs), form="batch", labels=labels, button=_("Measure"))


def _forecast_words(state: PreflightState, jobs: Sequence[JobLine]) -> Markup:
    if state.running:
        words = _(
            "A few real images are being made and measured, for {time} so far; none are kept.", time=state.time_words
        )
        now = _("Now: {step}.", step=state.step_words)
        return paragraph("quiet", words, role="status") + paragraph("quiet", now)
    if state.problem:
        return problem(state.problem)
    facts = read_facts(state)
    if facts is None:
        words = _("“Measure” makes a few real images to estimate the time, disk space and finish time.")
        return paragraph("quiet", words)
    counts = counts_html(facts.value_counts) if facts.num_items > COUNTED_UP_TO else ""
    seconds, ahead = facts.total_seconds, num_ahead(jobs)
    return _template(
        "forecast",
        sentence=facts.sentence,
        seconds=None if seconds is None else round(seconds),
        jobs_before=ahead,
        language=language(),
        counts=counts,
    )


def ahead_html(jobs: Sequence[JobLine]) -> Markup:
    """How many jobs are ahead of a new one, for the script of the plan's line."""
    return _template("ahead", num_jobs=num_ahead(jobs))


def num_ahead(jobs: Sequence[JobLine]) -> int:
    """How many jobs a new one would wait for."""
    return sum(line.job.state in ("queued", "running") for line in jobs)


def read_facts(state: PreflightState) -> PlanFacts | None:
    """What was found; None where nothing was, or not by this version."""
    if not state.result_json:
        return None
    try:
        return PlanFacts.model_validate_json(state.result_json)
    except ValidationError:
        return None


@dataclass(frozen=True)
class Preview:
    """The plan that the form describes, in full and as one line, or why it has none."""

    plan: Markup
    line: str = ""
    error: StudioError | OSError | None = None


def preview_of(
    values: Mapping[str, Any], settings_of: Callable[[], BatchSettings], session: BatchSession, measured: PreflightState
) -> Preview:
    """What the form's plan would make.

    Args:
        values: what the form holds.
        settings_of: the settings that those are; raises StudioError where they are none.
        measured: the last measurement, for whichever form.
    """
    if not values["prompts"].strip() and not values["prompt_file"].strip():
        return Preview(empty_html())
    try:
        settings = settings_of()
        if is_too_large_to_follow(settings):
            return Preview(_large_html())
        plan = plan_of(settings, session.user_data)
        facts = PlanFacts.of(plan, counted=plan.num_items <= COUNTED_UP_TO)
    except (StudioError, OSError) as error:
        return Preview(paragraph("quiet", _("No plan yet: see the message at the form's fields.")), error=error)
    pace = _measured_pace(measured, values) or pace_of_like(settings, session.folders())
    return Preview(preview_html(facts), line_html(facts.num_items, pace, jobs_before=_ahead_of(session)))


def _large_html() -> Markup:
    words = N_(
        "This prompt file is too large to preview as you type: “Measure” reads it and estimates how many images it "
        "makes, time and disk."
    )
    return paragraph("note", _(words))


def line_html(num_items: int, pace: Pace | None, *, jobs_before: int) -> Markup:
    """`60 images · about 2 min · ready 19:19 · 9 MB`: what of it is known; the page's script keeps the clock true."""
    seconds = round(num_items * pace.seconds_per_picture) if pace else None
    size = file_size(round(num_items * pace.bytes_per_picture)) if pace else ""
    about = _about(seconds or 0)
    return _template(
        "plan_line",
        num_items=num_items,
        seconds=seconds,
        about=about,
        size=size,
        jobs_before=jobs_before,
        language=language(),
    )


def _about(seconds: int) -> str:
    """No finer than it is known: `40 s`, `2 min`, `1 h 12 min`."""
    return f"{round(seconds / 60)} min" if 90 <= seconds < 3570 else duration(seconds)


_OF_PASSES = ("num_inference_steps", "guidance_scale", "guidance_start", "guidance_end")
_PACE_FIELDS = ("model", "precision", "size", "scheduler", "picture_format", "quality", *_OF_PASSES)


def _measured_pace(measured: PreflightState, values: Mapping[str, Any]) -> Pace | None:
    """What “Measure” found, where the form still says the same of all that a single image takes."""
    facts = read_facts(measured)
    names = [*_PACE_FIELDS, *(f"lora_{i}" for i in range(LORA_ROWS))]
    if facts is None or any(str(measured.form.get(name)) != str(values.get(name)) for name in names):
        return None
    if facts.seconds_per_picture is None or facts.bytes_per_picture is None:
        return None
    return Pace(facts.seconds_per_picture, facts.bytes_per_picture)


def _ahead_of(session: BatchSession) -> int:
    try:
        return num_ahead(session.jobs())
    except RunError:
        return 0  # the queue's own place says that it cannot be read
