"""What `python -m studio train` does: begin a run, go on with one, queue it, or only tell what it would take."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from studio.cli.jobs import queue_job
from studio.cli.options import (
    CpuOption,
    JobOption,
    ListSettingsOption,
    NoteOption,
    QueueOption,
    TitleOption,
    UserDataOption,
    field_help,
    label_folder,
    prepare_engine,
)
from studio.core.errors import SettingsError, StudioError
from studio.core.language import _, ngettext, said
from studio.core.paths import UserData, locate_user_data
from studio.core.system import heavy_imports
from studio.core.text import STEP_SIGN, duration, gigabytes
from studio.training.folder import Preflight, RunFolder, variants_words
from studio.training.presets import PRESETS, settings_from
from studio.training.settings import TrainingSettings

MakeFastOption = Annotated[
    str | None,
    typer.Option(
        "--make-fast",
        metavar="RUN",
        help=_("Train a Speed LoRA of a finished run: its LoRA's images in 4 steps without guidance."),
    ),
]


def train(
    run: Annotated[str | None, typer.Argument(help=_("A run to resume: its folder or name."))] = None,
    dataset: Annotated[str | None, typer.Option(help=field_help(TrainingSettings, "dataset"))] = None,
    model: Annotated[str | None, typer.Option(help=field_help(TrainingSettings, "model"))] = None,
    name: Annotated[str | None, typer.Option(help=field_help(TrainingSettings, "name"))] = None,
    preset: Annotated[
        str | None, typer.Option(help="; ".join(f"{key}: {_(p.purpose)}" for key, p in PRESETS.items()))
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help=_("Any other setting, such as rank=16; repeatable.")),
    ] = None,
    list_settings: ListSettingsOption = False,
    settings_file: Annotated[
        Path | None,
        typer.Option("--settings", help=_("Start with the settings of another run, or of the page: a JSON file.")),
    ] = None,
    make_fast: MakeFastOption = None,
    preflight: Annotated[
        bool,
        typer.Option("--preflight", help=_("Run a few steps to estimate time, memory and disk space; train nothing.")),
    ] = False,
    json: Annotated[bool, typer.Option("--json", help=_("Print the preflight as JSON."))] = False,
    title: TitleOption = None,
    note: NoteOption = None,
    queue: QueueOption = False,
    use_snapshot: Annotated[
        bool, typer.Option("--use-snapshot", help=_("Resume with the cached images although image files changed."))
    ] = False,
    cpu: CpuOption = False,
    job: JobOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Begin a run, or go on with one."""
    # Here, not above: what reads datasets takes a while to import, and every command would wait for it.
    from studio.training.begin import begin_run, read_run_settings, read_settings_file

    if list_settings:
        typer.echo(describe_settings())
        return
    place = locate_user_data(user_data)
    cpu = cpu and not job  # of the queue's worker, which passes it on: a run has its own
    given = {"dataset": dataset, "model": model, "name": name, "cpu": cpu or None}
    values = {key: value for key, value in given.items() if value is not None}
    if settings_file is not None:
        values = {**read_settings_file(settings_file).model_dump(), **values}
    _assert_possible(run, preset, values, assignments or (), make_fast=make_fast)
    if queue and use_snapshot:
        raise SettingsError(_("--use-snapshot cannot be queued: the queue starts a run as it is. Leave --queue out."))
    found = RunFolder.find(run, place.runs) if run is not None else None
    if preflight:
        wanted = read_run_settings(found) if found else _new_settings(make_fast, preset, values, assignments, place)
        _preflight(wanted, place, as_json=json)
        return
    folder = found or begin_run(_new_settings(make_fast, preset, values, assignments, place), place)
    label_folder(folder, title, note, listed_in=place.runs)
    if queue:
        queue_job("train", folder.root, place)
        return
    _train(folder, place, use_snapshot=use_snapshot, as_job=job)


def _new_settings(
    make_fast: str | None,
    preset: str | None,
    values: Mapping[str, object],
    assignments: Sequence[str] | None,
    place: UserData,
) -> TrainingSettings:
    """Of a run that is not begun yet; where it makes another's LoRA fast, that goes into the library."""
    if make_fast is None:
        return settings_from(preset, values, assignments or ())
    from studio.loras.library import LoraLibrary
    from studio.training.begin import read_run_settings
    from studio.training.presets import speed_settings
    from studio.training.session import add_to_library, follow_run

    source = RunFolder.find(make_fast, place.runs)
    lora = add_to_library(source, follow_run(source.events).look(), LoraLibrary(place.loras))
    return speed_settings(
        read_run_settings(source), lora, [*(["cpu=true"] if values.get("cpu") else []), *(assignments or ())]
    )


def _assert_possible(
    run: str | None,
    preset: str | None,
    values: Mapping[str, object],
    assignments: Sequence[str],
    *,
    make_fast: str | None,
) -> None:
    """A run that is gone on with takes no settings, a new one needs a dataset or the run that it makes fast."""
    if make_fast is not None:
        if run or preset or values.keys() - {"cpu"}:
            raise SettingsError(_("--make-fast takes the settings of its run; only --set can change some."))
        return
    if run is not None and (preset or assignments or values):
        raise SettingsError(
            _(
                "A run keeps its settings; {run} cannot be changed. Duplicate it: python -m studio jobs duplicate"
                " {run} --set name=value.",
                run=run,
            )
        )
    sets_dataset = any(assignment.partition("=")[0].strip() == "dataset" for assignment in assignments)
    if run is None and "dataset" not in values and not sets_dataset:
        raise SettingsError(_("Give --dataset (a folder or a dataset's name) to start a run, or a run to resume."))


def _train(folder: RunFolder, place: UserData, *, use_snapshot: bool, as_job: bool) -> None:
    prepare_engine()
    from studio.jobs.device_lock import device_asked_for

    first = int(os.environ.get("RANK", "0")) == 0
    if first and not as_job:
        print(_("Run: {folder}", folder=folder.root), file=sys.stderr)
    try:
        with device_asked_for(place, _("training {name}", name=folder.name)):
            with heavy_imports():
                from studio.training.torch.run import train_run

            ending = train_run(folder, place, use_snapshot=use_snapshot)
    except (StudioError, OSError, MemoryError) as error:
        if as_job:  # it is in the run's status too, where the queue reads it; other endings are tried again
            print(error, file=sys.stderr)
            raise typer.Exit(1) from error
        raise
    if first:
        words = {
            "finished": _("Report: {file}", file=folder.root / "report.html"),
            "stopped": _("Resume with: python -m studio train {folder}", folder=folder.root),
            "paused": _("Resume with: python -m studio train {folder}", folder=folder.root),
        }
        print(f"\n{words[ending]}", file=sys.stderr)


def _preflight(settings: TrainingSettings, place: UserData, *, as_json: bool) -> None:
    prepare_engine()
    from studio.jobs.device_lock import device_turn

    def waiting(owner: str) -> None:
        report(_("The device is in use by {owner}. The preflight starts when it is free.", owner=owner))

    def report(step: str) -> None:
        print(f"{STEP_SIGN}{step}", file=sys.stderr, flush=True)

    with device_turn(place, _("a training's preflight"), waiting=waiting, given_up=lambda: False):
        report(_("Starting PyTorch."))
        with heavy_imports():
            from studio.training.torch.preflight import run_preflight

        found = run_preflight(settings, place, report=report)
    print(found.model_dump_json() if as_json else preflight_text(found))


def describe_settings() -> str:
    """Every setting with its default and its help, and every preset with what it is for."""
    required, defaults = _("(required)"), _("the defaults")
    lines = [
        f"{name} = {required if field.is_required() else repr(field.default)}\n    {field_help(TrainingSettings, name)}"
        for name, field in TrainingSettings.model_fields.items()
    ]
    presets = [
        f"--preset {key}: {_(preset.purpose)}\n    {preset.changes or defaults}" for key, preset in PRESETS.items()
    ]
    return "\n".join([*lines, "", *presets])


def preflight_text(found: Preflight) -> str:
    """The forecast for a terminal."""
    lines = [
        _(
            "{num_steps:,} steps ≈ {time}, {peak} of {limit} memory, {disk} of disk.",
            num_steps=found.num_steps,
            time=duration(found.total_seconds),
            peak=gigabytes(found.peak_bytes),
            limit=gigabytes(found.limit_bytes),
            disk=gigabytes(found.disk_bytes),
        ),
        _(
            "A step is {batches}, {time}. {num_pictures:,} images, each seen about {epochs:.1f} times.",
            batches=_batches(found.batches_per_step),
            time=duration(found.step_seconds),
            num_pictures=found.num_pictures,
            epochs=found.epochs,
        ),
        _(
            "Besides the steps: encoding {encoding}, images {images}, held-out losses {losses}.",
            encoding=duration(found.encoding_seconds),
            images=duration(found.pictures_seconds),
            losses=duration(found.held_out_seconds),
        ),
        *([variants_words(found)] if found.variants else []),
        said(found.reason),
        *([_("Gradient checkpointing: {points}.", points="; ".join(_curve_points(found)))] if found.curve else []),
        *(f"! {warning}" for warning in found.warnings),
    ]
    for offer in found.offers:
        words = " ".join(f"--set {name}={value}" for name, value in offer.changes.items())
        lines.append(f"- {offer.effect}: {words}")
    return "\n".join(lines)


def _curve_points(found: Preflight) -> list[str]:
    """What each point of a preflight's curve takes."""
    return [
        _(
            "{percent}% freed: {memory}, {time} a step",
            percent=point.percent,
            memory=gigabytes(point.peak_bytes),
            time=duration(point.seconds),
        )
        for point in found.curve
    ]


def _batches(num_batches: int) -> str:
    return ngettext("one batch", "{num_batches:,} batches", num_batches, num_batches=num_batches)
