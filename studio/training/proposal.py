"""Which checkpoint to take, and why: rules that a person can follow (docs/scores.md has them in full)."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Literal

from studio.core.errors import RunError
from studio.core.language import _, number
from studio.core.records import Record
from studio.images.scores.summary import ScoreSummary
from studio.training.events import ScoreEvent

TIE = 0.02  # of the merit, 0 to 1: points so near to the best are as good, and the earliest of them is taken
LOSS_TIE = 0.01  # relative: held-out losses within this are as good
MAX_OVERFIT = 0.10  # relative to the lowest held-out loss: a point above that is no longer proposed
MAX_COPIES = 0.10  # share of images as a copy, beyond what the base has: a point above that is no longer proposed
TAUGHT_WHITENESS = 0.5  # mean of a dataset's borders: from there on it teaches white backgrounds
MAX_WHITENESS_LOSS = 0.05  # below the base's mean whiteness: a point under that is no longer proposed

WEIGHTS = {"ground": 3.0, "colour": 2.0, "own": 2.0, "loss": 2.0, "place": 1.0, "sharpness": 0.5}
_WORST_OFFSET = 0.25
_WORST_DIFFERENCE = 30.0
_Outcome = Literal["better", "worse", "same"]


class CheckpointPoint(Record):
    """What is known of a run at one step.

    Attributes:
        held_out_loss, trained_loss: of fixed images and noise; None where not measured.
        scores: of its validation images; None where there are none.
        base: the same of the model without the LoRA.
    """

    step: int
    held_out_loss: float | None = None
    trained_loss: float | None = None
    scores: ScoreSummary | None = None
    base: ScoreSummary | None = None


class Verdict(Record):
    """What speaks for a point and against it.

    Attributes:
        merit: 0 to 1; None where there are no scores and no held-out loss to judge by.
        objections: why it is not proposed, a phrase each.
    """

    step: int
    merit: float | None
    objections: tuple[str, ...]


class Proposal(Record):
    """The step that is proposed.

    Attributes:
        sentence: which and why, for people.
        is_sure: False where there was little to judge by, or something speaks against every point.
        verdicts: of all points, in order of steps.
    """

    step: int
    sentence: str
    is_sure: bool
    verdicts: tuple[Verdict, ...]


def propose_checkpoint(points: Sequence[CheckpointPoint], *, white_background: bool = True) -> Proposal:
    """Choose a step. Of a step that is there twice the last one counts; losses that are no numbers count as missing.

    Args:
        white_background: whether white backgrounds are wanted; where not, the ground is not judged.

    Raises:
        RunError: where there is no point.
    """
    if not points:
        raise RunError(_("The run has no checkpoint to choose among. Train until its first one."))
    by_step = {point.step: point for point in points}
    ordered = [by_step[step] for step in sorted(by_step)]
    losses = [loss for point in ordered if (loss := _loss(point)) is not None]
    lowest = min(losses, default=None)
    judged = _judged(ordered)
    used = _used_parts(judged, lowest, white_background=white_background)
    verdicts = tuple(
        Verdict(
            step=point.step,
            merit=_merit(point, lowest, used) if point in judged and used else None,
            objections=_objections(point, lowest, white_background=white_background),
        )
        for point in ordered
    )
    chosen, is_sure = _choose(verdicts, ordered, judged_by_scores=bool(used - {"loss"}))
    why = _why(chosen, verdicts, by_step, lowest, used)
    return Proposal(step=chosen.step, sentence=why, is_sure=is_sure, verdicts=verdicts)


def _loss(point: CheckpointPoint) -> float | None:
    loss = point.held_out_loss
    return loss if loss is not None and math.isfinite(loss) else None


def _judged(points: Sequence[CheckpointPoint]) -> list[CheckpointPoint]:
    """Points with scores, where any has them: the others' images were not looked at. Else those with a loss."""
    scored = [point for point in points if point.scores is not None and point.scores.num_pictures]
    return scored or [point for point in points if _loss(point) is not None]


def _used_parts(points: Sequence[CheckpointPoint], lowest: float | None, *, white_background: bool) -> set[str]:
    """What all judged points have: a merit of other parts could not be compared."""
    parts = set.intersection(*(set(_parts(point, lowest)) for point in points)) if points else set()
    return parts if white_background else parts - {"ground"}


def _merit(point: CheckpointPoint, lowest: float | None, used: set[str]) -> float:
    parts = _parts(point, lowest)
    return sum(WEIGHTS[name] * parts[name] for name in used) / sum(WEIGHTS[name] for name in used)


def _parts(point: CheckpointPoint, lowest: float | None) -> dict[str, float]:
    """Each from 0 to 1, 1 is best."""
    parts: dict[str, float] = {}
    if (loss := _loss(point)) is not None and lowest is not None:
        parts["loss"] = max(0.0, 1 - _excess(loss, lowest) / MAX_OVERFIT)
    scores = point.scores
    if scores is None:
        return parts
    if scores.whiteness is not None:
        parts["ground"] = scores.whiteness.mean
    if scores.colour_difference is not None and scores.named_right is not None:
        near = max(0.0, 1 - scores.colour_difference.median / _WORST_DIFFERENCE)
        parts["colour"] = (scores.named_right + near) / 2
    if scores.nearest is not None:
        parts["own"] = 1 - (scores.num_copies + 0.25 * scores.num_close) / scores.nearest.count
    if scores.num_pictures:
        # An image without a subject is not in the middle.
        place = 0.0 if scores.offset is None else max(0.0, 1 - scores.offset.median / _WORST_OFFSET)
        parts["place"] = place * (scores.num_pictures - scores.num_without_subject) / scores.num_pictures
    if scores.sharpness is not None:
        parts["sharpness"] = scores.sharpness.median
    return parts


def _excess(loss: float, lowest: float) -> float:
    return (loss - lowest) / lowest if lowest > 0 else 0.0


def _objections(point: CheckpointPoint, lowest: float | None, *, white_background: bool) -> tuple[str, ...]:
    found = []
    if (loss := _loss(point)) is not None and lowest is not None and _excess(loss, lowest) > MAX_OVERFIT:
        found.append(_("its held-out loss is {excess:.0%} above the lowest", excess=_excess(loss, lowest)))
    scores, base = point.scores, point.base
    if scores is not None and scores.copies is not None:
        allowed = MAX_COPIES + ((base.copies if base is not None else None) or 0.0)
        if scores.copies > allowed:
            num_scored = scores.nearest.count if scores.nearest else 0
            found.append(_("{num:,} of {num_scored:,} are copies", num=scores.num_copies, num_scored=num_scored))
    if white_background and scores is not None and base is not None and scores.whiteness and base.whiteness:
        ours, theirs = scores.whiteness.mean, base.whiteness.mean
        if ours < theirs - MAX_WHITENESS_LOSS:
            less_white = _(
                "its backgrounds are less white than the base's ({ours:.0%} against {base:.0%})", ours=ours, base=theirs
            )
            found.append(less_white)
    return tuple(found)


def _choose(
    verdicts: Sequence[Verdict], points: Sequence[CheckpointPoint], *, judged_by_scores: bool
) -> tuple[Verdict, bool]:
    """The earliest of the best without objections; where all have some, the best of those with the fewest."""
    rated = [verdict for verdict in verdicts if verdict.merit is not None]
    if not rated:
        return verdicts[-1], False
    fewest = min(len(verdict.objections) for verdict in rated)
    left = [verdict for verdict in rated if len(verdict.objections) == fewest]
    best = max(verdict.merit for verdict in left if verdict.merit is not None)
    # With nothing but the loss, a merit of 0.1 is a hundredth of the loss.
    tie = TIE if judged_by_scores else LOSS_TIE / MAX_OVERFIT
    chosen = next(verdict for verdict in left if verdict.merit is not None and verdict.merit >= best - tie - 1e-9)
    return chosen, fewest == 0 and judged_by_scores and len(points) > 1


def _why(
    chosen: Verdict,
    verdicts: Sequence[Verdict],
    by_step: dict[int, CheckpointPoint],
    lowest: float | None,
    used: set[str],
) -> str:
    point = by_step[chosen.step]
    said = list(_praise(point, lowest, used))
    if chosen.merit is None:
        said = [_("no images were scored and nothing was held out, so this is only the last checkpoint")]
    elif not used - {"loss"}:
        said.append(_("no images were scored, so look at them before you take it"))
    if chosen.objections:
        objections = reduce(lambda one, other: _("{one} and {other}", one=one, other=other), chosen.objections)
        said.append(_("but {objections}, and no other step is better", objections=objections))
    if len(verdicts) == 1:
        said.append(_("it is the only checkpoint"))
    sentence = _("Step {step:,}: {reasons}", step=chosen.step, reasons=", ".join(said))
    later = _of_later_steps(chosen, verdicts, by_step)
    return f"{sentence}; {later}." if later else f"{sentence}."


def _praise(point: CheckpointPoint, lowest: float | None, used: set[str]) -> list[str]:
    said = []
    scores, base = point.scores, point.base
    if scores is not None and "ground" in used and scores.whiteness is not None:
        mean, before = scores.whiteness.mean, base.whiteness.mean if base is not None and base.whiteness else None
        if before is None:
            said.append(_("white backgrounds {mean:.0%}", mean=mean))
        else:
            said.append(_("white backgrounds {mean:.0%} (base {before:.0%})", mean=mean, before=before))
    if (loss := _loss(point)) is not None and lowest is not None:
        excess = _excess(loss, lowest)
        above = _("held-out loss {excess:.0%} above the lowest", excess=excess)
        said.append(above if excess > LOSS_TIE else _("held-out loss lowest"))
    if scores is not None and "colour" in used and scores.colour_difference is not None:
        num_right, num_asked = scores.num_named_right, scores.colour_difference.count
        said.append(_("{num_right:,} of {num_asked:,} colours as asked", num_right=num_right, num_asked=num_asked))
    if scores is not None and "own" in used and scores.nearest is not None and not scores.num_copies:
        said.append(_("no image is a copy"))
    if scores is not None and not said:
        said.append(_("its images score best"))
    return said


def _of_later_steps(chosen: Verdict, verdicts: Sequence[Verdict], by_step: dict[int, CheckpointPoint]) -> str:
    """What is worse about going on, if anything is known of it."""
    later = [verdict for verdict in verdicts if verdict.step > chosen.step and verdict.merit is not None]
    if not later or chosen.merit is None:
        return ""
    ours = by_step[chosen.step].scores
    theirs = [by_step[verdict.step].scores for verdict in later]
    distances = [scores.nearest.median for scores in theirs if scores is not None and scores.nearest is not None]
    if ours is not None and ours.nearest is not None and distances and min(distances) < 0.9 * ours.nearest.median:
        return _("later steps get closer to the training images")
    if all(verdict.objections for verdict in later):
        return _("of later steps, {objection} (step {step:,})", objection=later[0].objections[0], step=later[0].step)
    if all(verdict.merit is not None and verdict.merit < chosen.merit - TIE for verdict in later):
        return _("later steps are worse")
    return _("later steps are no better")


MIN_CHANGE = 0.2  # of the images: a share that moved by less is as it was (one of eight may be chance)
MIN_SHARPNESS_CHANGE = 0.1


class BaseComparison(Record):
    """What the LoRA changed, score by score, beside the same images of the base.

    Attributes:
        better, worse, same: a phrase each, such as `colours got worse: 4 of 4 → 2 of 4`.
    """

    step: int
    better: tuple[str, ...] = ()
    worse: tuple[str, ...] = ()
    same: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """All of them, what got worse first; "" where nothing was compared."""
        said = "; ".join((*self.worse, *self.better, *self.same))
        return _("Compared with the base at step {step:,}: {changes}.", step=self.step, changes=said) if said else ""


def wants_white_background(reference: ScoreSummary | None) -> bool:
    """Whether white backgrounds count: the dataset's own images have them, or nothing is known of these."""
    return reference is None or (reference.whiteness is not None and reference.whiteness.mean >= TAUGHT_WHITENESS)


def compare_with_base(
    scores: Mapping[int, ScoreEvent], *, step: int | None, reference: ScoreSummary | None
) -> BaseComparison | None:
    """Of the proposed step, where its images were scored, else of the last that were; None where none were.

    Args:
        scores: by step.
        step: that is proposed.
        reference: of the dataset's own images; None where it is not known.
    """
    trained = {at: event for at, event in scores.items() if at > 0}
    if not trained:
        return None
    event = trained.get(step or 0) or trained[max(trained)]
    found: dict[_Outcome, list[str]] = {"better": [], "worse": [], "same": []}
    for change in _changes(event.base, event.scores, white_background=wants_white_background(reference)):
        found[change.outcome].append(change.words)
    better, worse, same = map(tuple, found.values())
    return BaseComparison(step=event.step, better=better, worse=worse, same=same)


@dataclass(frozen=True)
class _Change:
    """A score of the base and of the LoRA, in words, and by how much the LoRA's is better."""

    score: str
    base: str
    lora: str
    improvement: float
    min_improvement: float

    @property
    def outcome(self) -> _Outcome:
        if abs(self.improvement) < self.min_improvement:
            return "same"
        return "better" if self.improvement > 0 else "worse"

    @property
    def words(self) -> str:
        values = self.base if self.lora == self.base else f"{self.base} → {self.lora}"
        match self.outcome:
            case "better":
                return _("{score} got better: {values}", score=self.score, values=values)
            case "worse":
                return _("{score} got worse: {values}", score=self.score, values=values)
            case "same":
                return _("{score} unchanged: {values}", score=self.score, values=values)


def _changes(base: ScoreSummary, scores: ScoreSummary, *, white_background: bool) -> Iterator[_Change]:
    if white_background and base.whiteness is not None and scores.whiteness is not None:
        old, new = base.whiteness.mean, scores.whiteness.mean
        yield _Change(_("white backgrounds"), number(old, ".0%"), number(new, ".0%"), new - old, MAX_WHITENESS_LOSS)
    subjects = [(s.num_pictures - s.num_without_subject, s.num_pictures) for s in (base, scores)]
    yield from _share(_("subjects found"), *subjects)
    yield from _share(_("centring"), *((s.num_centred, s.num_pictures) for s in (base, scores)))
    colours = [(s.num_named_right, s.colour_difference.count if s.colour_difference else 0) for s in (base, scores)]
    yield from _share(_("colours"), *colours)
    copies = [(s.num_copies, s.nearest.count if s.nearest else 0) for s in (base, scores)]
    yield from _share(_("copies of training images"), *copies, sign=-1, min_improvement=MAX_COPIES)
    if base.sharpness is not None and scores.sharpness is not None:
        old, new = base.sharpness.median, scores.sharpness.median
        yield _Change(_("sharpness"), number(old, ".2f"), number(new, ".2f"), new - old, MIN_SHARPNESS_CHANGE)


def _share(
    score: str, base: tuple[int, int], lora: tuple[int, int], *, sign: int = 1, min_improvement: float = MIN_CHANGE
) -> Iterator[_Change]:
    if base[1] > 0 and lora[1] > 0:
        improvement = sign * (lora[0] / lora[1] - base[0] / base[1])
        old, new = (_("{num:,} of {whole:,}", num=num, whole=whole) for num, whole in (base, lora))
        yield _Change(score, old, new, improvement, min_improvement)
