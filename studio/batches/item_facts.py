"""What was seen of a batch's picture, as its row keeps it. Apart from the ledger: scores bring scipy along."""

from studio.results import Check, Fact
from studio.scoring.picture import PictureScores


class ItemFacts(Fact):
    """A picture's checks, and its scores."""

    checks: tuple[Check, ...] = ()
    scores: PictureScores | None = None
