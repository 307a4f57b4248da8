"""What `python -m studio batch` does: begin a batch, go on with one, queue it, or only tell what it would make."""

import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.jobs import queue_job
from studio.cli.options import (
    LORA_METAVAR,
    CpuOption,
    JobOption,
    ListSettingsOption,
    NoteOption,
    QueueOption,
    SpeedOption,
    TitleOption,
    UserDataOption,
    at_speed,
    field_help,
    label_folder,
    lora_choices,
    prepare_engine,
)
from studio.core.errors import BatchError, SettingsError, StudioError
from studio.core.language import _
from studio.core.paths import UserData, locate_user_data, typed_path
from studio.core.settings import GenerationSettings, LoraChoice, parse_settings
from studio.core.system import heavy_imports
from studio.core.text import STEP_SIGN

if TYPE_CHECKING:
    from studio.batches.folder import BatchFolder
    from studio.batches.settings import BatchSettings


_PLAN = _(
    "A file of prompts (.txt, .csv, .jsonl), the settings.json of another batch, or a batch to resume: its folder or "
    "name."
)


def batch(
    plan: Annotated[str, typer.Argument(help=_PLAN)],
    out: Annotated[
        Path | None, typer.Option(help=_("The batch's folder: new or empty."), show_default="user_data/batches")
    ] = None,
    total: Annotated[int | None, typer.Option(help=_("How many images in all."))] = None,
    seed: Annotated[int | None, typer.Option(help=_("The first image's seed."))] = None,
    steps: Annotated[int | None, typer.Option(help=_("Denoising steps."))] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar=LORA_METAVAR, help=_("A LoRA for all images; repeatable.")),
    ] = None,
    speed: SpeedOption = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help=_("Any other setting, such as images_per_prompt=4.")),
    ] = None,
    list_settings: ListSettingsOption = False,
    show: Annotated[bool, typer.Option("--show", help=_("Show the plan without making any image."))] = False,
    forecast: Annotated[
        bool, typer.Option("--forecast", help=_("Make a few images to estimate time and disk space; keep none."))
    ] = False,
    json: Annotated[bool, typer.Option("--json", help=_("Print what --show or --forecast finds as JSON."))] = False,
    title: TitleOption = None,
    note: NoteOption = None,
    queue: QueueOption = False,
    cpu: CpuOption = False,
    job: JobOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Begin a batch, or go on with one."""
    from studio.batches.folder import begin_batch, read_batch_settings

    if list_settings:
        typer.echo(describe_settings())
        return
    place = locate_user_data(user_data)
    loras = [parse_settings(LoraChoice, choice) for choice in lora_choices(lora)]
    shared = {"seed": seed, "num_inference_steps": steps, "loras": loras or None}
    changes = {"total": total, "cpu": cpu or None}
    given = _given(shared), _given(changes), assignments or ()
    make = partial(_settings, plan, *given, speed=speed, place=place)
    folder = _existing(plan, place)
    if folder is not None and not job:
        _assert_unchanged(folder, changed=any(given) or speed is not None or out is not None)
    if show or forecast:
        settings = read_batch_settings(folder) if folder else make()
        _report(settings, place, measured=forecast, as_json=json)
        return
    if folder is None:
        folder = begin_batch(make(), place, out=out)
    label_folder(folder, title, note, listed_in=place.batches)
    if queue:
        queue_job("batch", folder.root, place)
        return
    _run(folder, place, as_job=job)


def _assert_unchanged(folder: "BatchFolder", *, changed: bool) -> None:
    if changed:
        raise SettingsError(
            _(
                "A batch keeps its settings; {name} cannot be changed. Start another from its settings: python -m"
                " studio batch {settings} --set name=value.",
                name=folder.name,
                settings=folder.settings,
            )
        )


def describe_settings() -> str:
    """Every setting of a batch with its default and its help."""
    from studio.batches.settings import BatchSettings

    fields = BatchSettings.model_fields.items()
    return "\n".join(f"{name} = {field.default!r}\n    {field_help(BatchSettings, name)}" for name, field in fields)


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _existing(plan: str, place: UserData) -> "BatchFolder | None":
    """The batch that is meant; None where a file to begin from is."""
    from studio.batches.folder import BatchFolder

    path = typed_path(plan)
    if path.is_file():
        return None
    if path.suffix.lower() in (".txt", ".csv", ".jsonl", ".json"):
        raise BatchError(
            _("There is no file {plan}. Give a .txt, .csv or .jsonl file of prompts, or a batch.", plan=plan)
        )
    return BatchFolder.find(plan, place.batches)


def _settings(
    plan: str,
    shared: dict[str, object],
    changes: dict[str, object],
    assignments: "list[str] | tuple[str, ...]",
    *,
    speed: str | None,
    place: UserData,
) -> "BatchSettings":
    from studio.batches.folder import read_settings_file
    from studio.batches.settings import BatchSettings, parse_assignments

    path = typed_path(plan)
    if path.suffix.lower() == ".json":
        values = read_settings_file(path).model_dump()
    else:
        values = {"prompt_file": str(path.resolve()), "name": path.stem}
    own, for_all = parse_assignments(assignments)
    wanted = {"prompt": "", **values.get("generation", {}), **for_all, **shared}
    given = {name: f"--set {name}" for name in for_all} | (
        {"num_inference_steps": "--steps"} if "num_inference_steps" in shared else {}
    )
    generation = at_speed(speed, parse_settings(GenerationSettings, wanted), place, given=given)
    return parse_settings(BatchSettings, {**values, **own, **changes, "generation": generation})


def _report(settings: "BatchSettings", place: UserData, *, measured: bool, as_json: bool) -> None:
    from studio.batches.folder import plan_of
    from studio.batches.forecast import PlanFacts

    plan = plan_of(settings, place)
    if measured:
        prepare_engine()
        from studio.jobs.device_lock import device_turn

        def waiting(owner: str) -> None:
            report(_("The device is in use by {owner}. The forecast starts when it is free.", owner=owner))

        def report(step: str) -> None:
            print(f"{STEP_SIGN}{step}", file=sys.stderr, flush=True)

        with device_turn(place, _("a batch's forecast"), waiting=waiting, given_up=lambda: False):
            report(_("Starting PyTorch."))
            with heavy_imports():
                from studio.batches.torch.forecast import measure

            facts = measure(settings, plan, place, report=report)
    else:
        facts = PlanFacts.of(plan)
    print(facts.model_dump_json() if as_json else facts.words)


def _run(folder: "BatchFolder", place: UserData, *, as_job: bool) -> None:
    prepare_engine()
    from studio.jobs.device_lock import device_asked_for

    first = int(os.environ.get("RANK", "0")) == 0
    if first and not as_job:
        print(_("Batch: {folder}", folder=folder.root), file=sys.stderr)
    try:
        with device_asked_for(place, _("the batch {name}", name=folder.name)):
            with heavy_imports():
                from studio.batches.torch.run import run_batch

            ending = run_batch(folder, place)
    except (StudioError, OSError, MemoryError) as error:
        if as_job:  # it is in the batch's status too, where the queue reads it; other endings are tried again
            print(error, file=sys.stderr)
            raise typer.Exit(1) from error
        raise
    if first:
        words = (
            _("Report: {file}", file=folder.report)
            if ending == "finished"
            else _("Resume with: python -m studio batch {folder}", folder=folder.root)
        )
        print(f"\n{words}", file=sys.stderr)
