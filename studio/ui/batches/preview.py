"""What a plan would make, while it is written: how many, ten of them, how often each value; what it would take."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from pydantic import ValidationError

from studio.batches.folder import plan_of
from studio.batches.forecast import Pace, PlanFacts, pace_of_like
from studio.batches.session import BatchSession
from studio.batches.settings import BatchSettings
from studio.core.errors import RunError, StudioError
from studio.core.language import N_, _
from studio.core.paths import typed_path
from studio.core.text import duration, template
from studio.ui.batches import form as batch_form
from studio.ui.datasets.html import file_size
from studio.ui.forms import LORA_ROWS
from studio.ui.shell.commands import PreflightState, forecast_box
from studio.ui.shell.parts import paragraph, problem

_template = template("ui/templates/batches.html")

COUNTED_UP_TO = 2_000_000  # items; more take a second and longer to count, too long for something that follows typing
READ_UP_TO_BYTES = 8_000_000  # of a file of prompts, likewise: about 200,000 lines
MAX_VALUES = 12

NO_PLAN = paragraph("quiet", N_("No plan yet: see the message at the form's fields."))
EMPTY = paragraph(
    "quiet",
    N_("The plan appears here as you type: the number of images, ten examples, and how often each value comes up."),
)
LARGE = paragraph(
    "note",
    N_(
        "This prompt file is too large to preview as you type: “Measure” reads it and "
        "estimates how many images it makes, time and disk."
    ),
)
COUNTED_LATER = N_("“Measure” counts this many, and estimates time and disk space.")


def is_too_large_to_follow(settings: BatchSettings) -> bool:
    """Whether the file of prompts takes seconds to be read."""
    path = typed_path(settings.prompt_file.strip())
    return bool(settings.prompt_file.strip()) and path.is_file() and path.stat().st_size > READ_UP_TO_BYTES


def preview_html(facts: PlanFacts) -> Markup:
    """The plan in short."""
    later = (COUNTED_LATER,) if facts.num_columns and not facts.value_counts else ()
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
        return [], _("{found:,} different values", found=found)
    return list(found.items())[:MAX_VALUES], _("and {num_found:,} more", num_found=len(found) - MAX_VALUES) if len(
        found
    ) > MAX_VALUES else ""


def forecast_html(state: PreflightState) -> Markup:
    """Where the measuring stands, or what it found, and for what."""
    return forecast_box(state, _forecast_words(state), form="batch", labels=batch_form.LABELS, button="Measure")


def _forecast_words(state: PreflightState) -> Markup:
    if state.running:
        words = _(
            "A few real images are being made and measured, for {time_words} so far; none are kept.",
            time_words=state.time_words,
        )
        return paragraph("quiet", words, role="status") + paragraph(
            "quiet", _("Now: {step_words}.", step_words=state.step_words)
        )
    if state.problem:
        return problem(state.problem)
    facts = read_facts(state)
    if facts is None:
        return paragraph(
            "quiet", _("“Measure” makes a few real images to estimate the time, disk space and finish time.")
        )
    counts = counts_html(facts.value_counts) if facts.num_items > COUNTED_UP_TO else ""
    return _template("forecast", sentence=facts.sentence, counts=counts)


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
        return Preview(EMPTY)
    try:
        settings = settings_of()
        if is_too_large_to_follow(settings):
            return Preview(LARGE)
        plan = plan_of(settings, session.user_data)
        facts = PlanFacts.of(plan, counted=plan.num_items <= COUNTED_UP_TO)
    except (StudioError, OSError) as error:
        return Preview(NO_PLAN, error=error)
    pace = _measured_pace(measured, values) or pace_of_like(settings, session.folders())
    return Preview(preview_html(facts), line_html(facts.num_items, pace, jobs_before=_num_ahead(session)))


def line_html(num_items: int, pace: Pace | None, *, jobs_before: int) -> Markup:
    """`60 images · about 2 min · ready 19:19 · 9 MB`: what of it is known; the page's script keeps the clock true."""
    seconds = round(num_items * pace.seconds_per_picture) if pace else None
    size = file_size(round(num_items * pace.bytes_per_picture)) if pace else ""
    about = _about(seconds or 0)
    return _template("plan_line", num_items=num_items, seconds=seconds, about=about, size=size, jobs_before=jobs_before)


def _about(seconds: int) -> str:
    """No finer than it is known: `40 s`, `2 min`, `1 h 12 min`."""
    return _("{seconds} min", seconds=round(seconds / 60)) if 90 <= seconds < 3570 else duration(seconds)


_PACE_FIELDS = ("model", "precision", "size", "num_inference_steps", "scheduler", "picture_format", "quality")


def _measured_pace(measured: PreflightState, values: Mapping[str, Any]) -> Pace | None:
    """What “Measure” found, where the form still says the same of all that a single image takes."""
    facts = read_facts(measured)
    names = [*_PACE_FIELDS, *(f"lora_{i}" for i in range(LORA_ROWS))]
    if facts is None or any(str(measured.form.get(name)) != str(values.get(name)) for name in names):
        return None
    if facts.seconds_per_picture is None or facts.bytes_per_picture is None:
        return None
    return Pace(facts.seconds_per_picture, facts.bytes_per_picture)


def _num_ahead(session: BatchSession) -> int:
    try:
        return sum(line.job.state in ("queued", "running") for line in session.jobs())
    except RunError:
        return 0  # the queue's own place says that it cannot be read
