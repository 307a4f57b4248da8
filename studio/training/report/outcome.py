"""What came out of a run, in sentences: how far it got, and what its losses say."""

import math
from dataclasses import dataclass

from studio.core.language import N_, _
from studio.core.text import duration, gigabytes
from studio.jobs.folder import RunState
from studio.training.events import FinishedEvent, HeldOutEvent, ProposalEvent
from studio.training.report.facts import RunFacts

NO_CHANGE = 0.005  # images, timesteps and noise are fixed, so that half a percent is more than chance

_BEGINNINGS: dict[RunState, str] = {
    "finished": "Finished",
    "stopped": N_("Stopped early"),
    "paused": "Paused",
    "failed": "Failed",
    "waiting": N_("Waiting to start or continue"),
    "preparing": N_("In preparation when this was written"),
    "running": N_("Still running when this was written"),
    "sampling": N_("Still running when this was written"),
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
        return _(
            "from {first:.4f} to {last:.4f} ({percent})", first=self.first, last=self.last, percent=percent(self.share)
        )


def percent(share: float) -> str:
    """`−7.2 %`; `no number` where it is none."""
    return f"{100 * share:+.1f} %".replace("-", "−") if math.isfinite(share) else _("no number")


def first_sentences(facts: RunFacts) -> tuple[str, ...]:
    """State, steps and time; what is wrong with the files; which step is proposed; what the losses mean."""
    problems = facts.reported(FinishedEvent)[-1].problems if facts.reported(FinishedEvent) else ()
    proposed = [event.sentence for event in facts.reported(ProposalEvent)[-1:]]
    compared = [facts.comparison.sentence] if facts.comparison else []
    said = (how_far(facts), *problems, *proposed, *compared, *loss_sentences(facts))
    return tuple(sentence for sentence in said if sentence)


def how_far(facts: RunFacts) -> str:
    """State, steps, time, and why a run ended early."""
    status = facts.status
    of_all = _(" of {num_steps:,}", num_steps=facts.num_steps) if facts.num_steps else ""
    if status.state == "new":
        return _("Not started: no step{of_all} is done.", of_all=of_all)
    sentence = _(
        "{beginnings}: {step:,}{of_all} steps are done, in {time}.",
        beginnings=_BEGINNINGS[status.state],
        step=facts.step,
        of_all=of_all,
        time=duration(facts.seconds),
    )
    if status.message and status.state != "finished":
        sentence += _(" The run says: {message_value}", message_value=status.message)
    return sentence


def loss_sentences(facts: RunFacts) -> tuple[str, ...]:
    """How held-out and trained loss changed, what that means, and whether an earlier step was better."""
    looks = facts.held_out
    if not looks:
        return (_("The loss of fixed images was not measured: whether the run learned is not known."),)
    if len(looks) == 1:
        return (
            _(
                "The loss of fixed images was measured once, at step {step:,}: a change needs two measurements.",
                step=looks[0].step,
            ),
        )
    trained, held_out = trained_change(looks), held_out_change(looks)
    between = _("From step {step:,} to step {step_2:,}", step=looks[0].step, step_2=looks[-1].step)
    if held_out is None:
        measured = _(
            "{between} the loss of trained images went {words}; nothing was held out.",
            between=between,
            words=trained.words,
        )
        return (f"{measured} {_meaning_without(trained)}",)
    measured = _(
        "{between} the loss of held-out images went {words}, that of trained ones {words_2}.",
        between=between,
        words=held_out.words,
        words_2=trained.words,
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
        worse = _(" and the held-out loss got worse") if held_out.rose else ""
        advice = _("Fewer steps, a lower rank or more images help.")
        return _("Only the training loss improved{worse}: the run is memorising. {advice}", worse=worse, advice=advice)
    if held_out.fell:
        return _("Only the held-out loss improved, which is unusual: those images may be easier.")
    if held_out.rose or trained.rose:
        return _("Nothing got better, and one side got worse. Try a lower learning rate.")
    return _(
        "Neither loss changed by more than 0.5 %: nothing learned so far. Try more steps or a higher learning rate."
    )


def _meaning_without(trained: LossChange) -> str:
    if trained.rose:
        return _("It got worse: try a lower learning rate.")
    if trained.fell:
        return _("It got better; whether images that were never seen did too is not known.")
    return _("It did not change by more than 0.5 %: nothing has been learned so far.")


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
    advice = (
        _(" The nearest checkpoint on the disk is that of step {nearest:,}.", nearest=nearest)
        if nearest is not None
        else ""
    )
    return (
        _(
            "The held-out loss was lowest at step {step:,} ({lowest:.4f}), {percent} since then.{advice}",
            step=step,
            lowest=lowest,
            percent=percent(since.share),
            advice=advice,
        ),
    )


def key_figures(facts: RunFacts) -> tuple[tuple[str, str], ...]:
    """The numbers that are looked for first."""
    looks, median = facts.held_out, facts.median_step_seconds
    held_out = held_out_change(looks) if looks else None
    peak = facts.peak_accelerator_bytes
    figures = [
        (
            "Steps",
            f"{facts.step:,}"
            + ("" if facts.num_steps in (None, facts.step) else _(" of {num_steps:,}", num_steps=facts.num_steps)),
        ),
        (_("Working time"), duration(facts.seconds)),
        (_("Step time, median"), duration_of_step(median)),
        (_("Held-out loss"), percent(held_out.share) if held_out else "–"),
        (_("Trained loss"), percent(trained_change(looks).share) if len(looks) > 1 else "–"),
        (_("Peak memory"), gigabytes(facts.peak_process_bytes)),
    ]
    return (*figures, (_("Accelerator, peak"), gigabytes(peak))) if peak is not None else tuple(figures)


def duration_of_step(seconds: float | None) -> str:
    """Short times with their digits: `0.042 s`, `8.1 s`."""
    if seconds is None:
        return "–"
    return f"{seconds:.3g} s" if seconds < 10 else duration(seconds)
