"""Base against LoRA: what a comparison found, saved with its images and found again. No torch."""

import logging
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError

from studio.core.files import write_atomically
from studio.core.results import Record
from studio.core.settings import CompareSettings, GenerationSettings, LoraChoice

logger = logging.getLogger(__name__)

JSON_NAME = "comparison.json"
NOTICEABLE = 16  # of 255, in any channel: about where an eye that flips between two images sees a change
HARDLY_SHARE = 0.01


class Difference(Record):
    """How far two images of the same seed are apart.

    `pixels` is the mean of |left - right| in 0 to 255, `changed_share` the share of pixels that differ by 16 or more
    in some channel, `latents` the mean of |left - right| of the latents (noise has a deviation of 1 there).
    """

    pixels: float
    changed_share: float
    latents: float

    @property
    def words(self) -> str:
        """What it means, in the middle of a sentence."""
        if self.pixels == 0 and self.latents == 0:
            return "changes nothing: both images are the same, to the last bit"
        if self.pixels == 0:
            return "changes nothing visible: only the latents differ, barely"
        if self.changed_share < HARDLY_SHARE:
            return f"changes hardly anything: pixels differ by {self.pixels:.2g} of 255 on average"
        return f"changes {100 * self.changed_share:.0f} % of the pixels noticeably"


class ComparedPicture(Record):
    """One side: its file within the comparison's folder, or why there is none."""

    settings: GenerationSettings
    file: str = ""
    seconds: float = 0.0
    error: str = ""


class ComparedPair(Record):
    """Left and right of one prompt and seed. `difference` is there when both are."""

    left: ComparedPicture
    right: ComparedPicture | None = None
    difference: Difference | None = None


class StripPicture(Record):
    """The right side at one strength, and how far it is from the left side."""

    strength: float
    picture: ComparedPicture
    difference: Difference | None = None


class CompareReport(Record):
    """All of it, finished or not."""

    started_at: datetime
    settings: CompareSettings
    model: str
    pairs: tuple[ComparedPair, ...] = ()
    strip: tuple[StripPicture, ...] = ()
    finished: bool = False
    cancelled: bool = False

    @property
    def left_name(self) -> str:
        return side_name(self.settings.left)

    @property
    def right_name(self) -> str:
        return side_name(self.settings.right)

    @property
    def num_finished(self) -> int:
        """How many it has."""
        return sum(1 if pair.right is None else 2 for pair in self.pairs) + len(self.strip)

    @property
    def sentence(self) -> str:
        """What the right side does, over all pairs, in words."""
        differences = [pair.difference for pair in self.pairs if pair.difference]
        if not differences:
            return "There is no finished pair yet." if not self.cancelled else "Cancelled before a pair was finished."
        count = len(differences)
        mean = Difference(
            pixels=sum(d.pixels for d in differences) / count,
            changed_share=sum(d.changed_share for d in differences) / count,
            latents=sum(d.latents for d in differences) / count,
        )
        over = "" if count == 1 else f", on average of {count} pairs"
        return (
            f"{self.right_name} {mean.words}{over}. Mean difference: {mean.pixels:.3g} of 255 in pixels, "
            f"{mean.latents:.3g} in latents."
        )


class SavedComparison(Record):
    """A report and the folder it lies in, with its images."""

    folder: Path
    report: CompareReport


def side_name(loras: tuple[LoraChoice, ...]) -> str:
    """`base`, or `white-ground 0.8 + sketch`."""
    return " + ".join(c.name if c.strength == 1 else f"{c.name} {c.strength:g}" for c in loras) or "base"


def new_comparison_folder(outputs: Path, *, now: datetime) -> Path:
    """Make and return an empty folder: `outputs/<date>/compare-<time>`."""
    folder = outputs / f"{now:%Y-%m-%d}" / f"compare-{now:%H%M%S-%f}"
    folder.mkdir(parents=True)
    return folder


def save_comparison(saved: SavedComparison) -> None:
    """Write the report beside its images."""
    write_atomically(saved.folder / JSON_NAME, saved.report.model_dump_json(indent=2).encode())


def latest_comparison(outputs: Path) -> SavedComparison | None:
    """The newest that can be read; one that cannot is passed over, and logged."""
    for path in sorted(outputs.glob(f"*/compare-*/{JSON_NAME}"), reverse=True):
        try:
            report = CompareReport.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            logger.warning("The comparison %s cannot be read: %s", path, error)
            continue
        return SavedComparison(folder=path.parent, report=report)
    return None
