"""The words in which people read of jobs. States and requests are their own words: `_(job.state)` says one."""

from typing import TYPE_CHECKING

from studio.core.errors import RunError
from studio.core.language import N_, _

if TYPE_CHECKING:
    from studio.jobs.queue import Job

STATE_WORDS = (
    N_("new"),
    N_("queued"),
    N_("waiting"),
    N_("preparing"),
    N_("running"),
    N_("sampling"),
    N_("paused"),
    N_("stopped"),
    N_("finished"),
    N_("failed"),
)
REQUEST_WORDS = (N_("pause"), N_("stop"), N_("save"), N_("sample"))


def refusal(message: str, job: "Job", **values: str) -> RunError:
    """Why something cannot be done with a job, and what can.

    Args:
        message: names `{job}`, `{state}` and `{advice}`, and what else is given.
    """
    return RunError(_(message, job=job, state=_(job.state), advice=advice(job), **values))


def advice(job: "Job") -> str:
    """What to do about a job that is in the way."""
    if job.state == "running":
        wait = _("Pause or stop it first, or wait.")
        if job.asked:
            wait = _("It was asked to {asked}: wait until it has.", asked=_(job.asked))
        return " ".join((wait, _("`python -m studio jobs` shows where it stands.")))
    if job.state == "queued":
        return _("`python -m studio jobs move {id} 1` makes it the next.", id=job.id)
    if job.state == "finished":
        return _("Its results are in its run's folder.")
    return _("`python -m studio jobs resume {id}` puts it back into the queue.", id=job.id)
