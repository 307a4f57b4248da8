"""What a batch would take, as measured: a sentence below the buttons."""

from pydantic import ValidationError

from studio.batches.forecast import PlanFacts
from studio.core.text import escape
from studio.jobs.preflight_runner import PreflightState
from studio.ui.batch_preview import COUNTED_UP_TO, counts_html


def forecast_html(state: PreflightState) -> str:
    """Where the measuring stands, or what it found."""
    if state.running:
        return '<p class="quiet" role="status">A few real pictures are being made and measured; none is kept.</p>'
    if state.problem:
        return f'<p class="problem" role="alert">{escape(state.problem)}</p>'
    facts = read_facts(state)
    if facts is None:
        return '<p class="quiet">“Measure” makes a few real pictures and tells time, disk and when all are ready.</p>'
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
