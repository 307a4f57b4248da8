"""One picture of a dataset as it stands: source, edits, and what the check found, in one."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from studio.dataset.picture_facts import PictureFacts
from studio.dataset.problems import Problem


@dataclass(frozen=True, slots=True)
class DatasetRow:
    """A picture with the caption it will be trained with.

    Attributes:
        key: its path below the source folder, with forward slashes.
        path: the file that is read: the source's, or the converted copy.
        caption: with template and edits applied; "" where there is none.
        caption_from: who said it, for people.
        repeats: how often an epoch shows it.
        attributes: its row of the table.
        facts: what the check found; None where it has not been checked yet.
        problems: of picture, caption and name, and those seen only in the whole (too small, all captions the same).
        excluded: whether the user took it out.
    """

    key: str
    path: Path
    caption: str
    caption_from: str
    repeats: int
    attributes: Mapping[str, str]
    facts: PictureFacts | None
    problems: tuple[Problem, ...]
    excluded: bool

    @property
    def is_rejected(self) -> bool:
        """Whether something must be mended before it can be trained on."""
        return any(problem.severity == "reject" for problem in self.problems)

    @property
    def is_used(self) -> bool:
        """Whether training will see it."""
        return self.facts is not None and not self.excluded and not self.is_rejected
