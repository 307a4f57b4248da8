"""What a plan would make, while it is written: how many, ten of them, how often each value. From facts to HTML.

What a batch would take, as measured: a sentence below the buttons.
"""

from collections.abc import Mapping

from pydantic import ValidationError

from studio.batches.forecast import Example, PlanFacts
from studio.batches.settings import BatchSettings
from studio.core.paths import typed_path
from studio.core.text import counted, escape
from studio.ui.shell.preflight_runner import PreflightState

COUNTED_UP_TO = 2_000_000  # items; more take a second and longer to count, too long for something that follows typing
READ_UP_TO_BYTES = 8_000_000  # of a file of prompts, likewise: about 200,000 lines
MAX_VALUES = 12

NO_PLAN = '<p class="quiet">There is no plan yet: what is missing is said below the attributes.</p>'
EMPTY = (
    '<p class="quiet">What would be made is shown here while you write: how many images, ten of them, and how often '
    "each value comes up.</p>"
)


LARGE = (
    '<p class="note">This file of prompts is too large to be read while one types: “Measure” reads it, and tells how '
    "many images it makes, time and disk.</p>"
)


def is_too_large_to_follow(settings: BatchSettings) -> bool:
    """Whether the file of prompts takes seconds to be read."""
    path = typed_path(settings.prompt_file.strip())
    return bool(settings.prompt_file.strip()) and path.is_file() and path.stat().st_size > READ_UP_TO_BYTES


def problem_html(sentence: str) -> str:
    """Why there is no plan."""
    return f'<p class="problem" role="alert">{escape(sentence)}</p>'


def preview_html(facts: PlanFacts) -> str:
    """The plan in short."""
    notes = "".join(f'<p class="note">{escape(note)}</p>' for note in facts.notes)
    if facts.num_columns and not facts.value_counts:
        notes += '<p class="note">So many are counted by “Measure”, which also tells time and disk.</p>'
    return (
        f'<p class="plan-count"><b>{counted(facts.num_items, "image")}</b></p>{notes}<div class="plan">'
        f"{_examples_html(facts.examples)}{counts_html(facts.value_counts)}</div>"
    )


def counts_html(counts: Mapping[str, Mapping[str, int] | int]) -> str:
    """A small table for each column."""
    if not counts:
        return ""
    return f'<div class="plan-values">{"".join(_column_html(column, found) for column, found in counts.items())}</div>'


def _column_html(column: str, found: Mapping[str, int] | int) -> str:
    if isinstance(found, int):
        rows = f'<tr><td colspan="2">{found:,} different values</td></tr>'
    else:
        shown = list(found.items())[:MAX_VALUES]
        rows = "".join(f'<tr><th scope="row">{escape(value)}</th><td>{number:,}</td></tr>' for value, number in shown)
        if len(found) > MAX_VALUES:
            rows += f'<tr><td colspan="2">and {len(found) - MAX_VALUES:,} more</td></tr>'
    return f"<table><caption>{escape(column)}</caption><tbody>{rows}</tbody></table>"


def _examples_html(examples: tuple[Example, ...]) -> str:
    rows = "".join(
        f"<tr><td>{example.index:,}</td><td>{example.seed}</td><td>{escape(example.prompt)}</td></tr>"
        for example in examples
    )
    return (
        '<div class="table-frame plan-examples" tabindex="0" role="group" aria-label="Examples"><table><caption>'
        f'{counted(len(examples), "example")}</caption><thead><tr><th scope="col">#</th><th scope="col">seed</th>'
        f'<th scope="col">prompt</th></tr></thead><tbody>{rows}</tbody></table></div>'
    )


def forecast_html(state: PreflightState) -> str:
    """Where the measuring stands, or what it found."""
    if state.running:
        return '<p class="quiet" role="status">A few real images are being made and measured; none is kept.</p>'
    if state.problem:
        return f'<p class="problem" role="alert">{escape(state.problem)}</p>'
    facts = read_facts(state)
    if facts is None:
        return '<p class="quiet">“Measure” makes a few real images and tells time, disk and when all are ready.</p>'
    counts = counts_html(facts.value_counts) if facts.num_items > COUNTED_UP_TO else ""
    return f'<div class="verdict" role="status">{escape(facts.sentence)}</div>{counts}'


def read_facts(state: PreflightState) -> PlanFacts | None:
    """What was found; None where nothing was, or not by this version."""
    if not state.result_json:
        return None
    try:
        return PlanFacts.model_validate_json(state.result_json)
    except ValidationError:
        return None
