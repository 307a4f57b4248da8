"""Scores of validation pictures: what each is called and read from, as rows of a table and as curves over the steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from studio.core.text import escape
from studio.runs.curves import Chart, Curve, legend_html
from studio.runs.events import ScoreEvent
from studio.runs.follower import RunHistory
from studio.scoring.summary import ScoreSummary, Spread
from studio.ui.training_plot import figure_html


@dataclass(frozen=True)
class ScoreKind:
    """One score.

    Attributes:
        title: its name.
        axis: what it counts, and which end means what.
        read: finds it in a summary; None where it was not measured.
        form: how its numbers are written.
        missing: said where no picture has it.
    """

    title: str
    axis: str
    read: Callable[[ScoreSummary], Spread | None]
    form: str = ".2f"
    missing: str = "Nothing was measured."

    def words(self, summary: ScoreSummary) -> str:
        """Its mean, as a cell of a table."""
        spread = self.read(summary)
        return "–" if spread is None else f"{spread.mean:{self.form}}"

    def mean(self, summary: ScoreSummary) -> float:
        """As a point of a curve; nan where it was not measured."""
        spread = self.read(summary)
        return float("nan") if spread is None else spread.mean


CHART_SIZE = (320, 190)
NO_SUBJECT = "No subject can be told from its ground."
NEAREST = ScoreKind("nearest training picture", "distance; 0 is a copy", lambda s: s.nearest)
SCORES: tuple[ScoreKind, ...] = (
    ScoreKind("white border", "share of the border", lambda s: s.whiteness),
    ScoreKind("off centre", "share of the side; 0 is centred", lambda s: s.offset, missing=NO_SUBJECT),
    ScoreKind(
        "colour ΔE",
        "ΔE; 0 is the prompt's colour",
        lambda s: s.colour_difference,
        form=".0f",
        missing="No prompt names a colour, or no subject can be told from its ground.",
    ),
    ScoreKind("sharpness", "0 to 1", lambda s: s.sharpness),
    NEAREST,
)


def charts_html(history: RunHistory | None, beside: str = "") -> str:
    """One small chart a score: the LoRA's over the steps, base and dataset as level lines.

    Args:
        beside: HTML that takes the place of a further chart.
    """
    if history is None or len(history.scores) < 2:
        return ""
    charts = [chart_of(kind, history) for kind in SCORES]
    figures = [figure_html(chart, "small", empty=kind.missing) for chart, kind in zip(charts, SCORES, strict=True)]
    legend = legend_html(max(charts, key=lambda chart: sum(bool(curve.points) for curve in chart.curves)))
    return (
        f'<h3 class="chart-figure-legend">Scores over the steps {legend}</h3>'
        f'<div class="score-charts">{"".join(figures)}{beside}</div>'
    )


def chart_of(kind: ScoreKind, history: RunHistory) -> Chart:
    """One score's chart; without curves where no picture has it."""
    events = by_step(history.scores)
    steps = [float(event.step) for event in events]
    ends = [steps[0], steps[-1]]
    lora = Curve("LoRA", steps, [kind.mean(event.scores) for event in events], "main")
    levels = [Curve("base", ends, [kind.mean(events[-1].base)] * 2, "second")]
    if history.reference is not None:
        levels.append(Curve("dataset", ends, [kind.mean(history.reference.scores)] * 2, "third"))
    title = kind.title[0].upper() + kind.title[1:]
    width, height = CHART_SIZE
    curves = (lora, *levels) if lora.points else ()  # the dataset's level alone says nothing of the LoRA
    return Chart(title, "step", kind.axis, curves, width=width, height=height)


def by_step(scores: Mapping[int, ScoreEvent]) -> Sequence[ScoreEvent]:
    """In the order of their steps: another thread may add more meanwhile."""
    known = dict(scores)
    return [known[step] for step in sorted(known)]


def title_html(kind: ScoreKind, history: RunHistory) -> str:
    """A score's name, and below it what the dataset's own pictures have, which is what there is to be reached."""
    title = escape(kind.title)
    if history.reference is None or kind.read(history.reference.scores) is None:
        return title
    return f'{title}<span class="reached">dataset {escape(kind.words(history.reference.scores))}</span>'
