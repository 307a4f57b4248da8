"""What came out of a run, in sentences: how far it got, and what its losses say."""

import math
from dataclasses import dataclass

from studio.core.language import N_, _, number, percent
from studio.core.text import duration, gigabytes
from studio.jobs.folder import RunState
from studio.training.events import FinishedEvent, HeldOutEvent, ProposalEvent
from studio.training.report.facts import RunFacts

NO_CHANGE = 0.005  # images, timesteps and noise are fixed, so that half a percent is more than chance

_BEGINNINGS: dict[RunState, str] = {
    "finished": N_("Finished"),
    "stopped": N_("Stopped early"),
    "paused": N_("Paused"),
    "failed": N_("Failed"),
    "waiting": N_("Waiting to start or continue"),
    "preparing": N_("In preparation when this was written"),
    "running": N_("Still running when this was written"),
    "sampling": N_("Still running when this was written"),
}


STATE_WORDS: dict[RunState, str] = {
    "new": N_("new"),
    "waiting": N_("waiting"),
    "preparing": N_("preparing"),
    "running": N_("running"),
    "sampling": N_("sampling"),
    "paused": N_("paused"),
    "stopped": N_("stopped"),
    "finished": N_("finished"),
    "failed": N_("failed"),
}


@dataclass(frozen=True)
class LossChange:
    """A loss at its first and its last look; `share` is the change as a share of the first."""

    first: float
    last: float

    @property
    def share(self) -> float:
        return (self.last - self.first) / self.first if self.first else math.nan

    @property
    def fell(self) -> bool:
        return self.share < -NO_CHANGE

    @property
    def rose(self) -> bool:
        return not self.share <= NO_CHANGE  # a loss that is no number is no better one

    @property
    def words(self) -> str:
        change = signed_percent(self.share)
        return _("from {first:.4f} to {last:.4f} ({change})", first=self.first, last=self.last, change=change)


def signed_percent(share: float) -> str:
    """`−7.2%`; `no number` where it is none."""
    return percent(share, "+.1f").replace("-", "−") if math.isfinite(share) else _("no number")


def first_sentences(facts: RunFacts) -> tuple[str, ...]:
    """State, steps and time; what is wrong with the files; which step is proposed; what the losses mean."""
    problems = facts.reported(FinishedEvent)[-1].problems if facts.reported(FinishedEvent) else ()
    proposed = [event.sentence for event in facts.reported(ProposalEvent)[-1:]]
    compared = [facts.comparison.sentence] if facts.comparison else []
    said = (how_far(facts), *problems, *proposed, *compared, *loss_sentences(facts))
    return tuple(sentence for sentence in said if sentence)


def how_far(facts: RunFacts) -> str:
    """State, steps, time, and why a run ended early."""
    status, wanted = facts.status, facts.num_steps
    if status.state == "new":
        if wanted:
            return _("Not started: no step of {wanted:,} is done.", wanted=wanted)
        return _("Not started: no step is done.")
    beginning, time = _(_BEGINNINGS[status.state]), duration(facts.seconds)
    if wanted:
        sentence = _(
            "{beginning}: {step:,} of {wanted:,} steps are done, in {time}.",
            beginning=beginning,
            step=facts.step,
            wanted=wanted,
            time=time,
        )
    else:
        sentence = _(
            "{beginning}: {step:,} steps are done, in {time}.", beginning=beginning, step=facts.step, time=time
        )
    if status.message and status.state != "finished":
        said = _("The run says: {message}", message=status.message)
        return f"{sentence} {said}"
    return sentence


def loss_sentences(facts: RunFacts) -> tuple[str, ...]:
    """How held-out and trained loss changed, what that means, and whether an earlier step was better."""
    looks = facts.held_out
    if not looks:
        return (_("The loss of fixed images was not measured: whether the run learned is not known."),)
    if len(looks) == 1:
        once = _(
            "The loss of fixed images was measured once, at step {step:,}: a change needs two measurements.",
            step=looks[0].step,
        )
        return (once,)
    trained, held_out = trained_change(looks), held_out_change(looks)
    if held_out is None:
        measured = _(
            "From step {first:,} to step {last:,} the loss of trained images went {change}; nothing was held out.",
            first=looks[0].step,
            last=looks[-1].step,
            change=trained.words,
        )
        return (f"{measured} {_meaning_without(trained)}",)
    measured = _(
        "From step {first:,} to step {last:,} the loss of held-out images went {held_out}, that of trained ones "
        "{trained}.",
        first=looks[0].step,
        last=looks[-1].step,
        held_out=held_out.words,
        trained=trained.words,
    )
    return (measured, _meaning(held_out, trained), *_better_before(facts))


def trained_change(looks: list[HeldOutEvent]) -> LossChange:
    """Of images that are trained on."""
    return LossChange(looks[0].trained_loss, looks[-1].trained_loss)


def held_out_change(looks: list[HeldOutEvent]) -> LossChange | None:
    """Of images that are kept out; None where none were."""
    values = [look.held_out_loss for look in looks if look.held_out_loss is not None]
    return LossChange(values[0], values[-1]) if len(values) > 1 else None


def _meaning(held_out: LossChange, trained: LossChange) -> str:
    if not (math.isfinite(held_out.last) and math.isfinite(trained.last)):
        return _("The loss is no longer a number: the run diverged. Try a lower learning rate.")
    if held_out.rose and trained.rose:
        return _("Both losses got worse: the run forgets more than it learns. Try a lower learning rate.")
    if held_out.fell and trained.fell:
        return _("Both losses improved: the LoRA generalises to unseen images.")
    if trained.fell:
        meaning, advice = (
            _("Only the training loss improved: the run is memorising."),
            _("Fewer steps, a lower rank or more images help."),
        )
        if held_out.rose:
            meaning = _("Only the training loss improved and the held-out loss got worse: the run is memorising.")
        return f"{meaning} {advice}"
    if held_out.fell:
        return _("Only the held-out loss improved, which is unusual: those images may be easier.")
    if held_out.rose or trained.rose:
        return _("Nothing got better, and one side got worse. Try a lower learning rate.")
    return _(
        "Neither loss changed by more than 0.5%: nothing learned so far. Try more steps or a higher learning rate."
    )


def _meaning_without(trained: LossChange) -> str:
    if trained.rose:
        return _("It got worse: try a lower learning rate.")
    if trained.fell:
        return _("It got better; whether images that were never seen did too is not known.")
    return _("It did not change by more than 0.5%: nothing has been learned so far.")


def _better_before(facts: RunFacts) -> tuple[str, ...]:
    looks = [(look.held_out_loss, look.step) for look in facts.held_out if look.held_out_loss is not None]
    if not math.isfinite(looks[-1][0]):
        return ()
    lowest, step = min(look for look in looks if math.isfinite(look[0]))
    since = LossChange(lowest, looks[-1][0])
    if not since.rose or step == looks[0][1]:
        return ()
    kept = [c.step for c in facts.checkpoints if (facts.run.root / c.folder).is_dir()]
    nearest = min(kept, key=lambda other: abs(other - step), default=None)
    best = _(
        "The held-out loss was lowest at step {step:,} ({lowest:.4f}), {change} since then.",
        step=step,
        lowest=lowest,
        change=signed_percent(since.share),
    )
    if nearest is None:
        return (best,)
    saved = _("The nearest checkpoint on the disk is that of step {nearest:,}.", nearest=nearest)
    return (f"{best} {saved}",)


def key_figures(facts: RunFacts) -> tuple[tuple[str, str], ...]:
    """The numbers that are looked for first."""
    looks, median = facts.held_out, facts.median_step_seconds
    held_out = held_out_change(looks) if looks else None
    peak = facts.peak_accelerator_bytes
    steps, wanted = number(facts.step), facts.num_steps
    if wanted is not None and wanted != facts.step:
        steps = _("{step:,} of {wanted:,}", step=facts.step, wanted=wanted)
    figures = [
        (_("Steps"), steps),
        (_("Working time"), duration(facts.seconds)),
        (_("Step time, median"), duration_of_step(median)),
        (_("Held-out loss"), signed_percent(held_out.share) if held_out else "–"),
        (_("Trained loss"), signed_percent(trained_change(looks).share) if len(looks) > 1 else "–"),
        (_("Peak memory"), gigabytes(facts.peak_process_bytes)),
    ]
    return (*figures, (_("Accelerator, peak"), gigabytes(peak))) if peak is not None else tuple(figures)


def duration_of_step(seconds: float | None) -> str:
    """Short times with their digits: `0.042 s`, `8.1 s`."""
    if seconds is None:
        return "–"
    return f"{number(seconds, '.3g')} s" if seconds < 10 else duration(seconds)
