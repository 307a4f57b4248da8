"""`python -m studio dataset check PATH`: the doctor of the Dataset tab, from the command line."""

import sys
from pathlib import Path

from studio.core.paths import UserData, assets_folder
from studio.core.settings import SHIPPED_MODEL
from studio.datasets.checker import PictureChecker
from studio.datasets.opened import OpenedDataset
from studio.datasets.recipe import DatasetRecipe
from studio.datasets.report import DatasetReport, Finding, make_report
from studio.images.prompts import TokenCounter
from studio.images.records import Severity

GROUPS: dict[Severity, str] = {
    "reject": "Needs fixing",
    "convert": "Read with a conversion",
    "note": "Worth knowing",
}


def check_dataset(recipe: DatasetRecipe, user_data: UserData, *, as_json: bool) -> bool:
    """Check every image of a folder and print what was found; whether nothing needs fixing.

    Nothing is written beside the images, and no dataset is made of them.

    Raises:
        DatasetError: where the folder cannot be read.
        OSError: where the cache of checks cannot be written.
    """
    tokens = TokenCounter(assets_folder() / SHIPPED_MODEL / "tokenizer" / "tokenizer.json")
    nowhere = user_data.cache / "no-edits"
    dataset = OpenedDataset(Path(recipe.source).name, nowhere, recipe, count_tokens=tokens.count_plain)
    if not as_json:
        print(f"Checking {len(dataset.pictures):,} images …", file=sys.stderr, flush=True)
    checker = PictureChecker(user_data.cache / "picture-checks.db", user_data.cache / "dataset-thumbnails")
    try:
        dataset.check(checker)
    finally:
        checker.close()
    report = make_report(dataset)
    print(report.model_dump_json(indent=2) if as_json else report_text(report))
    return not report.needs_fixing


def report_text(report: DatasetReport) -> str:
    """The report for a terminal."""
    lines = [report.source, f"Layout: {report.layout}", report.how_many]
    lines += [f"! {sentence}" for sentence in report.warnings]
    for severity, title in GROUPS.items():
        findings = [finding for finding in report.findings if finding.problem.severity == severity]
        if findings:
            lines += ["", f"{title} ({len(findings):,})", *map(_finding_line, findings)]
    if report.duplicates:
        lines += ["", f"Duplicates ({len(report.duplicates):,} pairs)"]
        lines += [
            f"  {pair.first!r} and {pair.second!r}: {'the same' if pair.exact else f'{pair.distance} of 64 bits apart'}"
            for pair in report.duplicates
        ]
    verdict = "Something needs fixing." if report.needs_fixing else "Nothing needs fixing."
    return "\n".join([*lines, "", verdict])


def _finding_line(finding: Finding) -> str:
    excluded = " (excluded)" if finding.excluded else ""
    return f"  {finding.name!r}: {finding.problem.code}{excluded}. {finding.problem.sentence}"
