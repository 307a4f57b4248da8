"""The doctor's report: what must be mended, what is worth knowing, and how many pictures training will use."""

from collections import Counter
from collections.abc import Sequence

from studio.dataset.duplicates import find_duplicates
from studio.dataset.opened import OpenedDataset
from studio.dataset.problems import Problem, Severity
from studio.dataset.recipe import LAYOUT_TITLES
from studio.dataset.row import DatasetRow
from studio.dataset.rows import captions_all_alike
from studio.results import Fact

WHY_NO_FLIP = (
    "Mirroring pictures (flip augmentation) is off, and should stay so where left and right matter: lettering, logos, "
    "the side from which a product is shown. It can be switched on for a training."
)


class Finding(Fact):
    """A problem of one file."""

    name: str
    problem: Problem
    excluded: bool = False


class Duplicate(Fact):
    """Two pictures that are the same, or nearly."""

    first: str
    second: str
    exact: bool
    distance: int


class DatasetReport(Fact):
    """A dataset as the check left it.

    Attributes:
        num_found: pictures in the source; `num_taken` of them pass the recipe's choice of rows.
        num_used: how many training will use; `num_shown` counts each as often as it is repeated in an epoch.
        findings: of pictures, worst first; leftovers too.
        warnings: what is only seen in the whole, a sentence each.
    """

    source: str
    layout: str
    other_layouts: tuple[str, ...]
    num_found: int
    num_taken: int
    num_unchecked: int
    num_rejected: int
    num_excluded: int
    num_used: int
    num_shown: int
    num_with_caption: int
    num_leftovers: int
    findings: tuple[Finding, ...]
    duplicates: tuple[Duplicate, ...]
    warnings: tuple[str, ...]

    @property
    def must_be_mended(self) -> bool:
        """Whether a file is lost to training that the user did not take out, or nothing is left to train on."""
        lost = any(finding.problem.severity == "reject" and not finding.excluded for finding in self.findings)
        return lost or self.num_used == 0

    @property
    def how_many(self) -> str:
        """How the number that training will use comes about, in a sentence."""
        steps = [f"{self.num_found:,} found"]
        if self.num_taken != self.num_found:
            steps.append(f"{self.num_found - self.num_taken:,} not among the chosen rows")
        for number, why in (
            (self.num_rejected, "that must be mended first"),
            (self.num_excluded, "excluded by you"),
            (self.num_unchecked, "not checked yet"),
        ):
            if number:
                steps.append(f"{number:,} {why}")
        total = f"{self.num_used:,} will be trained on"
        if self.num_shown != self.num_used:
            total += f", shown {self.num_shown:,} times an epoch with their repeats"
        return " − ".join(steps) + f" = {total}."


def make_report(dataset: OpenedDataset) -> DatasetReport:
    """Put together all that is known of a dataset now; duplicates are looked for anew."""
    rows = dataset.rows
    used = [row for row in rows if row.is_used]
    search = find_duplicates([row for row in rows if not row.excluded])
    left_out = (
        f"{search.num_left_out:,} more pairs look alike than are listed: exclude some, then look again."
        if search.num_left_out
        else ""
    )
    warnings = [sentence for sentence in (captions_all_alike(rows), dataset.progress.problem, left_out) if sentence]
    return DatasetReport(
        source=dataset.recipe.source,
        layout=LAYOUT_TITLES[dataset.reading.layout],
        other_layouts=tuple(LAYOUT_TITLES[n] for n in dataset.reading.recognised if n != dataset.reading.layout),
        num_found=len(dataset.reading.pictures),
        num_taken=len(rows),
        num_unchecked=sum(row.facts is None and not row.excluded and not row.is_rejected for row in rows),
        num_rejected=sum(row.is_rejected and not row.excluded for row in rows),
        num_excluded=sum(row.excluded for row in rows),
        num_used=len(used),
        num_shown=sum(row.repeats for row in used),
        num_with_caption=sum(bool(row.caption) for row in rows),
        num_leftovers=len(dataset.leftovers),
        findings=_findings(dataset, rows),
        duplicates=tuple(
            Duplicate(first=p.first_key, second=p.second_key, exact=p.exact, distance=p.distance) for p in search.pairs
        ),
        warnings=tuple(warnings),
    )


def count_problems(rows: Sequence[DatasetRow]) -> dict[str, int]:
    """How many pictures have each problem, by its code, most first."""
    counts = Counter(code for row in rows for code in {problem.code for problem in row.problems})
    return dict(counts.most_common())


_ORDER: dict[Severity, int] = {"reject": 0, "convert": 1, "note": 2}


def _findings(dataset: OpenedDataset, rows: Sequence[DatasetRow]) -> tuple[Finding, ...]:
    of_pictures = [Finding(name=r.key, problem=p, excluded=r.excluded) for r in rows for p in r.problems]
    of_others = [Finding(name=leftover.name, problem=leftover.problem) for leftover in dataset.leftovers]
    return tuple(sorted([*of_pictures, *of_others], key=lambda finding: _ORDER[finding.problem.severity]))
