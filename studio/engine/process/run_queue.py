"""Images that were asked for while something else is being made: they begin by themselves, one after the other."""

from dataclasses import dataclass, replace

from studio.core.errors import EngineError
from studio.core.language import _, ngettext
from studio.engine.process.messages import Generate

MAX_QUEUED = 16


@dataclass(frozen=True)
class QueuedRun:
    """A request that waits; `number` is its own for good, so that no press is on another."""

    number: int
    run: Generate


@dataclass(frozen=True)
class RunQueue:
    """Those that wait, the next first; `last_number` is that of the one that came last."""

    waiting: tuple[QueuedRun, ...] = ()
    last_number: int = 0

    @property
    def is_full(self) -> bool:
        return len(self.waiting) >= MAX_QUEUED

    def with_losses(self, reason: str) -> str:
        """The reason for which none of them will be made, and how many that are; the reason alone where none waits."""
        if not self.waiting:
            return reason
        num_lost = len(self.waiting)
        lost = ngettext("{num:,} queued request dropped.", "{num:,} queued requests dropped.", num_lost, num=num_lost)
        return _("{reason} {lost}", reason=reason, lost=lost)

    def added(self, run: Generate) -> "RunQueue":
        """With one more at its end.

        Raises:
            EngineError: where it is full.
        """
        if self.is_full:
            raise EngineError(
                _(
                    "{num} requests are queued already. Remove one, or wait until the next begins.",
                    num=MAX_QUEUED,
                )
            )
        number = self.last_number + 1
        return RunQueue((*self.waiting, QueuedRun(number, run)), number)

    def without(self, number: int) -> "RunQueue":
        """Without the one of that number.

        Raises:
            EngineError: where it is not there.
        """
        rest = tuple(queued for queued in self.waiting if queued.number != number)
        if len(rest) == len(self.waiting):
            raise EngineError(_("Nothing was removed: this request has begun, or is no longer in the queue."))
        return replace(self, waiting=rest)

    def emptied(self) -> "RunQueue":
        """Without any."""
        return replace(self, waiting=())
