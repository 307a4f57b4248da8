"""`python -m studio dataset check PATH`: the doctor of the Dataset tab, from the command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.options import JsonOption, UserDataOption, field_help, read_options
from studio.core.language import N_, _, number
from studio.core.paths import UserData, locate_user_data, typed_path
from studio.datasets.source import LAYOUT_NAMES, DatasetRecipe, LayoutChoice

if TYPE_CHECKING:
    from studio.datasets.report import DatasetReport, Duplicate, Finding
    from studio.images.records import Severity

GROUPS: "dict[Severity, str]" = {
    "reject": N_("Needs fixing"),
    "convert": N_("Converted when read"),
    "note": N_("Worth knowing"),
}

dataset_app = typer.Typer(no_args_is_help=True, help=_("Datasets: check a folder of images before training."))


@dataset_app.command(help=_("Look at every image and caption of a folder; exit code 1 when something needs fixing."))
def check(
    context: typer.Context,
    path: Annotated[Path, typer.Argument(help=_("The folder of the images; nothing in it is changed."))],
    layout: Annotated[
        str | None, typer.Option(help=field_help(LayoutChoice, "layout"), metavar="|".join(LAYOUT_NAMES))
    ] = None,
    table: Annotated[str | None, typer.Option(help=field_help(LayoutChoice, "table"))] = None,
    template: Annotated[str | None, typer.Option(help=field_help(DatasetRecipe, "template"))] = None,
    resolution: Annotated[int, typer.Option(help=field_help(DatasetRecipe, "resolution"))] = DatasetRecipe(
        source="-"
    ).resolution,
    masks: Annotated[
        Path | None, typer.Option(help=_("Also check how a mask folder (a training's mask_folder) fits the images."))
    ] = None,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Check a folder of images, and the masks of another."""
    choice, source = read_options(context, LayoutChoice), str(typed_path(path).resolve())
    recipe = read_options(context, DatasetRecipe, source=source, layout=choice)
    passed = check_dataset(recipe, locate_user_data(user_data), masks=masks, as_json=json)
    raise typer.Exit(0 if passed else 1)


def check_dataset(
    recipe: DatasetRecipe, user_data: UserData, *, masks: Path | None = None, as_json: bool = False
) -> bool:
    """Check every image of a folder, and the masks of another, and print what was found; whether nothing needs fixing.

    Nothing is written beside the images, and no dataset is made of them.

    Raises:
        DatasetError: where the folder cannot be read.
        OSError: where the cache of checks cannot be written.
    """
    from studio.datasets.checker import PictureChecker
    from studio.datasets.opened import OpenedDataset
    from studio.datasets.report import add_masks, make_report
    from studio.images.tokens import TokenCounter, tokenizer_of

    tokens = TokenCounter(tokenizer_of())
    nowhere = user_data.cache / "no-edits"
    dataset = OpenedDataset(
        Path(recipe.source).name,
        nowhere,
        recipe,
        count_tokens=tokens.count_plain,
        on_progress=None if as_json else _say_seen,
    )
    if not as_json:
        print(_("Checking {num_pictures:,} images …", num_pictures=len(dataset.pictures)), file=sys.stderr, flush=True)
    checker = PictureChecker(user_data.cache / "picture-checks.db", user_data.cache / "dataset-thumbnails")
    try:
        dataset.check(checker)
    finally:
        checker.close()
    report = make_report(dataset)
    if masks is not None:
        report = add_masks(report, dataset, str(masks))
    print(report.model_dump_json(indent=2) if as_json else report_text(report))
    return not report.needs_fixing


def _say_seen(num_seen: int) -> None:
    print(
        _("Looking through the folder: {num_seen:,} files and folders so far …", num_seen=num_seen),
        file=sys.stderr,
        flush=True,
    )


def report_text(report: "DatasetReport") -> str:
    """The report for a terminal."""
    lines = [report.source, _("Layout: {layout}", layout=report.layout), report.how_many]
    lines += [f"! {sentence}" for sentence in report.warnings]
    lines += [_("Masks: {sentence}", sentence=sentence) for sentence in report.masks]
    for severity, title in GROUPS.items():
        findings = [finding for finding in report.findings if finding.problem.severity == severity]
        if findings:
            lines += ["", f"{_(title)} ({number(len(findings))})", *map(_finding_line, findings)]
    if report.duplicates:
        lines += ["", _("Duplicates ({num_duplicates:,} pairs)", num_duplicates=len(report.duplicates))]
        lines += [f"  {_duplicate_words(pair)}" for pair in report.duplicates]
    verdict = _("Something needs fixing.") if report.needs_fixing else _("Nothing needs fixing.")
    return "\n".join([*lines, "", verdict])


def _duplicate_words(pair: "Duplicate") -> str:
    if pair.exact:
        return _("{first!r} and {second!r}: the same", first=pair.first, second=pair.second)
    return _(
        "{first!r} and {second!r}: {distance} of 64 bits apart",
        first=pair.first,
        second=pair.second,
        distance=pair.distance,
    )


def _finding_line(finding: "Finding") -> str:
    excluded = _("(excluded)")
    code = f"{_(finding.problem.code)} {excluded}" if finding.excluded else _(finding.problem.code)
    return f"  {finding.name!r}: {code}. {finding.problem.sentence}"
