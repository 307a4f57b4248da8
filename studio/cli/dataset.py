"""`python -m studio dataset`: the doctor of the Dataset tab, captions by a model, backgrounds and masks."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.jobs import queue_job
from studio.cli.options import (
    CpuOption,
    JobOption,
    JsonOption,
    QueueOption,
    UserDataOption,
    field_help,
    prepare_engine,
    read_options,
)
from studio.core.errors import StudioError
from studio.core.language import N_, _, number, said
from studio.core.paths import UserData, locate_user_data, typed_path
from studio.core.text import counted
from studio.datasets.captioning import (
    CaptionFolder,
    CaptionSettings,
    begin_captioning,
    dataset_of,
    open_dataset,
    read_caption_settings,
    read_captions,
    take_captions,
)
from studio.datasets.source import LAYOUT_NAMES, DatasetRecipe, LayoutChoice
from studio.images.records import GroundSettings

if TYPE_CHECKING:
    from collections.abc import Callable

    from studio.datasets.caption_job import Captioner
    from studio.datasets.report import DatasetReport, Duplicate, Finding
    from studio.images.records import Severity

GROUPS: "dict[Severity, str]" = {
    "reject": N_("Needs fixing"),
    "convert": N_("Converted when read"),
    "note": N_("Worth knowing"),
}

dataset_app = typer.Typer(
    no_args_is_help=True, help=_("Datasets: check a folder of images, caption it, put it on white.")
)


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


_DEFAULTS = CaptionSettings(dataset="-")
_CAPTIONED = _("A folder of images, the name of a dataset, or a caption job to resume.")


def _help(name: str) -> str:
    return field_help(CaptionSettings, name)


@dataset_app.command(help=_("Write captions with a model, as edits that can be undone; Ctrl+C ends it well."))
def caption(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(help=_CAPTIONED)],
    model: Annotated[str, typer.Option(help=_help("model"))] = _DEFAULTS.model,
    everything: Annotated[
        bool, typer.Option("--all", help=_("Caption every image, not only those without a caption."))
    ] = False,
    prompt: Annotated[str, typer.Option(help=_help("prompt"))] = "",
    prefix: Annotated[str, typer.Option(help=_help("prefix"))] = "",
    suffix: Annotated[str, typer.Option(help=_help("suffix"))] = "",
    leave_out: Annotated[str, typer.Option(help=_help("leave_out"))] = "",
    num_candidates: Annotated[int, typer.Option("--candidates", help=_help("num_candidates"))] = 1,
    max_new_tokens: Annotated[int, typer.Option("--max-tokens", help=_help("max_new_tokens"))] = 60,
    general_threshold: Annotated[float, typer.Option(help=_help("general_threshold"))] = _DEFAULTS.general_threshold,
    character_threshold: Annotated[
        float, typer.Option(help=_help("character_threshold"))
    ] = _DEFAULTS.character_threshold,
    seed: Annotated[int, typer.Option(help=_help("seed"))] = 0,
    precision: Annotated[str, typer.Option(help=_help("precision"))] = _DEFAULTS.precision,
    take: Annotated[bool, typer.Option(help=_("Make them the dataset's captions when all are written."))] = True,
    several: Annotated[
        bool, typer.Option("--several", help=_("Take all candidates: training takes one by chance each time."))
    ] = False,
    json: JsonOption = False,
    queue: QueueOption = False,
    cpu: CpuOption = False,
    job: JobOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Begin to caption a folder or a dataset, or go on."""
    place = locate_user_data(user_data)
    path = typed_path(folder).resolve()
    known = [one for one in CaptionFolder.all_in(place.captions) if folder == one.name or path == one.root.resolve()]
    if known:
        begun = known[0]
    else:
        which = "all" if everything else "missing"
        begun = begin_captioning(
            read_options(context, CaptionSettings, dataset=dataset_of(folder, place), which=which), place
        )
    if queue:
        queue_job("caption", begun.root, place)
        return
    ended = _run_captioning(begun, place, as_job=job)
    if job:
        return
    if json:
        print("\n".join(made.model_dump_json() for made in read_captions(begun).values()))
    if ended and take:
        opened = open_dataset(read_caption_settings(begun), place)
        num = take_captions(opened, begun, candidate=None if several else 0)
        print(_("{captions} changed.", captions=counted(num, "caption", "captions")), file=sys.stderr)
    elif not ended:
        print(_("Resume with: python -m studio dataset caption {name}", name=begun.name), file=sys.stderr)


def _run_captioning(folder: CaptionFolder, place: UserData, *, as_job: bool) -> bool:
    """Whether all images were captioned.

    Raises:
        StudioError, OSError, MemoryError: where it cannot be done.
    """
    prepare_engine()
    from studio.datasets.caption_job import run_captioning

    def load(settings: CaptionSettings, say: "Callable[[str], None]", should_stop: "Callable[[], bool]") -> "Captioner":
        from studio.engine.captioner import load_captioner

        return load_captioner(
            settings.model,
            precision=settings.precision,
            cpu=settings.cpu,
            thresholds=(settings.general_threshold, settings.character_threshold),
            say=say,
            should_stop=should_stop,
        )

    try:
        end = run_captioning(folder, place, load)
    except (StudioError, OSError, MemoryError) as error:
        if as_job:  # it is in the job's status too, where the queue reads it
            print(error, file=sys.stderr)
            raise typer.Exit(1) from error
        raise
    print(file=sys.stderr)
    return end == "finished"


@dataset_app.command(help=_("Put subjects on white, centre them, write masks; originals stay as they are."))
def ground(
    context: typer.Context,
    folder: Annotated[str, typer.Argument(help=_("A folder of images, or the name of a dataset."))],
    white: Annotated[bool, typer.Option(help=field_help(GroundSettings, "white"))] = True,
    shadow: Annotated[bool, typer.Option(help=field_help(GroundSettings, "shadow"))] = False,
    subject_percent: Annotated[
        int, typer.Option("--subject-percent", help=field_help(GroundSettings, "subject_percent"))
    ] = 0,
    masks: Annotated[bool, typer.Option(help=field_help(GroundSettings, "masks"))] = False,
    user_data: UserDataOption = None,
) -> None:
    """Change every image that is not excluded; the originals stay as they are."""
    from studio.datasets.checker import PictureChecker
    from studio.datasets.grounds import GroundChanger, use_copies
    from studio.datasets.library import DatasetLibrary

    place = locate_user_data(user_data)
    settings = read_options(context, GroundSettings)
    opened = DatasetLibrary(place.datasets).open(dataset_of(folder, place), count_tokens=len)
    checker = PictureChecker(place.cache / "picture-checks.db", place.cache / "dataset-thumbnails")
    changer = GroundChanger(checker, place.cache / "command-line")
    try:
        keys = [row.key for row in opened.rows if not row.excluded]
        work = changer.begin(opened, keys, settings)
        while not work.done.wait(1):
            print(work.words, file=sys.stderr, flush=True)
    finally:
        changer.close()
        checker.close()
    for result in work.results:
        if result.problem:
            print(f"{result.key}: {said(result.problem)}")
    if work.problem:
        raise StudioError(said(work.problem))
    print(_("Done: {images}.", images=counted(use_copies(opened, work), "image", "images")), file=sys.stderr)
