"""Curves of a training: the live plot, and scores of validation images.

The live plot: loss large, rate and gradient small; drawn on the server from at most 600 points a curve.

Scores of validation images: what each is called and read from, as rows of a table and as curves over the steps.
"""

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from markupsafe import Markup

from studio.core.language import N_, _, language, number
from studio.core.text import template
from studio.images.scores.summary import ScoreSummary, Spread
from studio.training.curves import Chart, Curve, CurveStyle, chart_svg, legend_html, smoothed
from studio.training.events import ScoreEvent
from studio.training.proposal import MAX_WHITENESS_LOSS, MIN_SHARPNESS_CHANGE, wants_white_background
from studio.training.session import RunHistory, StepColumns
from studio.ui.shell.parts import paragraph

_template = template("ui/templates/training.html")

ALL_STEPS = N_("All steps")
WINDOWS: Mapping[str, int] = {ALL_STEPS: 0, N_("Last 1,000"): 1000, N_("Last 200"): 200}
SMOOTHING_STEPS = 20
MAX_SMOOTHING = 0.98
DRAWN_POINTS = 600
HOVER_POINTS = 300
SHOWN_QUANTILE = 0.98
"""Of the losses of single steps: what lies above is counted and not drawn."""
LARGE_SIZE = (480, 300)
SMALL_SIZE = (230, 160)
OVERLAY_STYLES: tuple[CurveStyle, ...] = ("fourth", "fifth")


@dataclass(frozen=True)
class PlotOptions:
    """What of the curves is shown, and how."""

    window: str = ALL_STEPS
    log: bool = False


@dataclass
class PlotCache:
    """The plot that was drawn last, which stands until something of it would move by the width of a drawn point.

    Of 20,000 steps one more changes nothing that can be seen; drawing it costs the page and the browser all the same.
    It is kept in each language in which it was asked for.
    """

    _key: object = None
    _history: RunHistory | None = None
    _drawn: dict[str, Markup] = field(default_factory=dict)

    def html(
        self, history: RunHistory | None, options: PlotOptions, others: Mapping[str, RunHistory], *, running: bool
    ) -> Markup:
        """As `plot_html`; what does not run is drawn to its last step."""
        if history is None:
            return plot_html(history, options, others)
        lines = tuple((name, _drawn_up_to(other.steps, options)) for name, other in others.items())
        end = _drawn_up_to(history.steps, options) if running else (len(history.steps), "ended")
        key = (end, len(history.held_out), options, lines)
        if history is not self._history or key != self._key:
            self._history, self._key, self._drawn = history, key, {}
        drawn = self._drawn  # another thread may begin another one meanwhile
        if language() not in drawn:
            drawn[language()] = plot_html(history, options, others)
        return drawn[language()]


def _drawn_up_to(steps: StepColumns, options: PlotOptions) -> int:
    """The number of steps, rounded down to what makes a difference in the image."""
    num_steps = len(steps)
    shown = min(num_steps, WINDOWS.get(options.window, 0) or num_steps)
    grain = max(1, shown // DRAWN_POINTS)
    return num_steps - num_steps % grain


def plot_html(history: RunHistory | None, options: PlotOptions, others: Mapping[str, RunHistory]) -> Markup:
    """The charts of a run, the smoothed losses of others laid over; words where there is nothing yet."""
    if history is None or not len(history.steps):
        return paragraph(
            "quiet plot-empty", _("Loss, learning rate and gradient norm appear here from the first step on.")
        )
    first = _first_step(history.steps, options)
    columns = _columns(history.steps, first)
    curves, num_clipped = _loss_curves(history, columns, first, others)
    width, height = LARGE_SIZE
    loss = Chart(_("Loss"), _("step"), _("loss"), curves, log=options.log, width=width, height=height)
    rate = _small(_("Learning rate"), _("rate"), columns["step"], columns["learning_rate"], log=options.log)
    norm = _small(
        _("Gradient norm"), _("norm, before clipping"), columns["step"], columns["grad_norm"], log=options.log
    )
    large = figure_html(loss, "large", legend=legend_html(loss), clipped=num_clipped)
    return _template("plot", figures=[large, figure_html(rate, "small"), figure_html(norm, "small")])


def _first_step(steps: StepColumns, options: PlotOptions) -> float:
    last = WINDOWS.get(options.window, 0)
    return steps.step[-1] - last if last else -math.inf


def _columns(steps: StepColumns, first: float) -> dict[str, np.ndarray]:
    """Arrays of the steps that are shown."""
    num_steps = len(steps)  # another thread may add more meanwhile
    names = ("step", "loss", "learning_rate", "grad_norm")
    # Copied at once: an array that is looked into cannot grow, and the follower adds to it.
    columns = {name: np.frombuffer(getattr(steps, name).tobytes())[:num_steps] for name in names}
    begin = int(np.searchsorted(columns["step"], first, side="right"))
    return {name: column[begin:] for name, column in columns.items()}


def _loss_curves(
    history: RunHistory, columns: Mapping[str, np.ndarray], first: float, others: Mapping[str, RunHistory]
) -> tuple[tuple[Curve, ...], int]:
    """Single losses as dots, smoothed, held out and trained; then those of other runs. How many dots are left out.

    A few steps of high loss would press all other curves flat.
    """
    step, loss = columns["step"], columns["loss"]
    limit = np.nanquantile(loss, SHOWN_QUANTILE) if np.isfinite(loss).any() else math.inf
    shown = ~(loss > limit)
    looks = [look for look in history.held_out if look.step > first]
    at = [look.step for look in looks]
    held_out = [math.nan if look.held_out_loss is None else look.held_out_loss for look in looks]
    curves = [
        Curve(_("each step"), *_binned(step[shown], loss[shown]), "dots"),
        Curve(_("smoothed"), *_binned(step, smoothed_losses(loss)), "main"),
        Curve(_("held out"), at, held_out, "second"),
        Curve(_("trained"), at, [look.trained_loss for look in looks], "third"),
    ]
    for (name, other), style in zip(others.items(), OVERLAY_STYLES, strict=False):
        if len(other.steps):
            theirs = _columns(other.steps, first)
            curves.append(Curve(name, *_binned(theirs["step"], smoothed_losses(theirs["loss"])), style))
    return tuple(curves), int(np.count_nonzero(~shown))


def smoothed_losses(values: np.ndarray) -> np.ndarray:
    """Mean over about twenty steps, more of long runs."""
    weight = min(MAX_SMOOTHING, max(0.0, 1 - SMOOTHING_STEPS / max(1, len(values))))
    return np.array(smoothed(values.tolist(), weight))


def _binned(xs: np.ndarray, ys: np.ndarray) -> tuple[list[float], list[float]]:
    """At most 600 points: of each of equal parts the lowest and the highest, in their order."""
    if len(xs) <= DRAWN_POINTS:
        return xs.tolist(), ys.tolist()
    parts = DRAWN_POINTS // 2
    edges = np.linspace(0, len(xs), parts + 1).astype(int)
    kept: list[int] = []
    for begin, end in itertools.pairwise(edges):
        part = ys[begin:end]
        kept += sorted({begin + int(np.argmin(part)), begin + int(np.argmax(part))})
    return xs[kept].tolist(), ys[kept].tolist()


def _small(title: str, label: str, xs: np.ndarray, ys: np.ndarray, *, log: bool) -> Chart:
    curve = Curve(title.lower(), *_binned(xs, ys), "main")
    width, height = SMALL_SIZE
    return Chart(title, _("step"), label, (curve,), log=log, width=width, height=height)


def figure_html(chart: Chart, size: str, *, legend: Markup | None = None, empty: str = "", clipped: int = 0) -> Markup:
    """A chart with its title, its legend, and its points for the script that shows values under the pointer.

    Args:
        size: `large` or `small`.
        empty: said where there is nothing to draw.
        clipped: how many dots are too high to be drawn.
    """
    return _template(
        "figure",
        chart=chart,
        size=size,
        points=json.dumps([_hover_curve(curve) for curve in chart.curves if curve.points]),
        legend=legend or "",
        drawn=chart_svg(chart),
        empty=empty,
        clipped=clipped,
    )


def _hover_curve(curve: Curve) -> dict[str, object]:
    points = curve.points
    kept: Sequence[tuple[float, float]] = [*points[:-1][:: max(1, len(points) // HOVER_POINTS)], points[-1]]
    return {"name": curve.name, "xs": [x for x, __ in kept], "ys": [float(f"{y:.4g}") for __, y in kept]}


Outcome = Literal["better", "worse", "like the base", ""]
OUTCOME_KINDS: Mapping[Outcome, str] = {"better": "good", "worse": "bad", "like the base": "quiet", "": "quiet"}
OUTCOME_WORDS: Mapping[Outcome, str] = {
    "better": N_("better"),
    "worse": N_("worse"),
    "like the base": N_("like the base"),
    "": "",
}
WHITE_BORDER = N_("white border")
NOT_MEASURED = "–"


@dataclass(frozen=True)
class ScoreKind:
    """One score.

    Attributes:
        title: its name; as all texts here, said in a language where it is shown.
        axis: what it counts, and which end means what.
        read: finds it in a summary; None where it was not measured.
        min_change: a mean that moved by less is as it was; below 0 where less is better, 0 where neither end is.
        form: how its numbers are written.
        missing: said where no image has it.
    """

    title: str
    axis: str
    read: Callable[[ScoreSummary], Spread | None]
    min_change: float = 0.0
    form: str = ".2f"
    missing: str = N_("Nothing was measured.")

    def words(self, summary: ScoreSummary) -> str:
        """Its mean, as a cell of a table."""
        spread = self.read(summary)
        return NOT_MEASURED if spread is None else number(spread.mean, self.form)

    @property
    def unit(self) -> str:
        """What is written after its values."""
        return "%" if self.form.endswith("%") else ""

    @property
    def factor(self) -> float:
        """By what a point of its curve is multiplied: its numbers are written so in tables too."""
        return 100.0 if self.unit else 1.0

    def mean(self, summary: ScoreSummary) -> float:
        """As it was measured; nan where it was not."""
        spread = self.read(summary)
        return float("nan") if spread is None else spread.mean

    def verdict(self, event: ScoreEvent, reference: ScoreSummary | None) -> Outcome:
        """How the LoRA's images compare with the base's; "" where that cannot be said."""
        change = self.mean(event.scores) - self.mean(event.base)
        is_wanted = self.title != WHITE_BORDER or wants_white_background(reference)
        if not is_wanted or not self.min_change or math.isnan(change):
            return ""
        if abs(change) < abs(self.min_change):
            return "like the base"
        return "better" if (change > 0) == (self.min_change > 0) else "worse"

    def reaches(self, event: ScoreEvent, reference: ScoreSummary | None) -> bool:
        """Whether the LoRA's images are as good as the dataset's own, which is what there is to be reached."""
        if reference is None or not self.verdict(event, reference):
            return False
        missing = self.mean(reference) - self.mean(event.scores)
        return math.copysign(missing, missing * self.min_change) < abs(self.min_change)


CHART_SIZE = (320, 190)
NO_SUBJECT = N_("No subject can be told from its background.")
NEAREST = ScoreKind(N_("nearest training image"), N_("distance; 0 is a copy"), lambda s: s.nearest)
SCORES: tuple[ScoreKind, ...] = (
    ScoreKind(WHITE_BORDER, N_("% of the border"), lambda s: s.whiteness, MAX_WHITENESS_LOSS, form=".0%"),
    ScoreKind(
        N_("off centre"), N_("% of the side; 0 is centred"), lambda s: s.offset, -0.02, form=".0%", missing=NO_SUBJECT
    ),
    ScoreKind(
        N_("colour ΔE"),
        N_("ΔE; 0 is the prompt's colour"),
        lambda s: s.colour_difference,
        -3.0,
        form=".0f",
        missing=N_("No prompt names a colour, or no subject can be told from its background."),
    ),
    ScoreKind(N_("sharpness"), N_("0 to 1"), lambda s: s.sharpness, MIN_SHARPNESS_CHANGE),
    NEAREST,
)


def charts_html(history: RunHistory | None, beside: Markup | None = None) -> Markup:
    """One small chart a score: the LoRA's over the steps, base and dataset as level lines.

    Args:
        beside: what takes the place of a further chart.
    """
    if history is None or len(history.scores) < 2:
        return Markup()
    charts = [chart_of(kind, history) for kind in SCORES]
    figures = [figure_html(chart, "small", empty=_(kind.missing)) for chart, kind in zip(charts, SCORES, strict=True)]
    legend = legend_html(max(charts, key=lambda chart: sum(bool(curve.points) for curve in chart.curves)))
    return _template("scores", legend=legend, figures=figures, beside=beside or "")


def chart_of(kind: ScoreKind, history: RunHistory) -> Chart:
    """One score's chart; without curves where no image has it."""
    events = by_step(history.scores)
    steps = [float(event.step) for event in events]
    ends = [steps[0], steps[-1]]
    lora = Curve("LoRA", steps, [kind.factor * kind.mean(event.scores) for event in events], "main")
    levels = [Curve(_("base"), ends, [kind.factor * kind.mean(events[-1].base)] * 2, "second")]
    if history.reference is not None:
        levels.append(Curve(_("dataset"), ends, [kind.factor * kind.mean(history.reference.scores)] * 2, "third"))
    width, height = CHART_SIZE
    curves = (lora, *levels) if lora.points else ()  # the dataset's level alone says nothing of the LoRA
    return Chart(
        capitalized(_(kind.title)), _("step"), _(kind.axis), curves, unit=kind.unit, width=width, height=height
    )


def capitalized(words: str) -> str:
    """With a capital at its beginning, as a sentence or a title has it."""
    return words[:1].upper() + words[1:]


def by_step(scores: Mapping[int, ScoreEvent]) -> Sequence[ScoreEvent]:
    """In the order of their steps: another thread may add more meanwhile."""
    known = dict(scores)
    return [known[step] for step in sorted(known)]


def reached(kind: ScoreKind, history: RunHistory) -> str:
    """What the dataset's own images have of a score, which is what there is to be reached; "" where it has none."""
    if history.reference is None or kind.read(history.reference.scores) is None:
        return ""
    return kind.words(history.reference.scores)
