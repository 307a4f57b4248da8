"""`python -m studio smoke`: the three test images."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from studio.cli.options import (
    GENERATION_DEFAULTS,
    CpuOption,
    GuidanceOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    UserDataOption,
    field_help,
    prepare_engine,
    read_options,
)
from studio.core.language import _
from studio.core.paths import UserData, locate_user_data
from studio.core.settings import SHIPPED_MODEL, ModelSettings, SmokeSettings
from studio.core.system import heavy_imports

if TYPE_CHECKING:
    from studio.loras.speed import MeasuredSpeeds


def smoke(
    context: typer.Context,
    model: ModelOption = SHIPPED_MODEL,
    precision: PrecisionOption = "float32",
    attention_slicing: Annotated[
        bool, typer.Option("--attention-slicing", help=field_help(ModelSettings, "attention_slicing"))
    ] = False,
    num_inference_steps: Annotated[
        int, typer.Option("--steps", help=_("Denoising steps."))
    ] = SmokeSettings().num_inference_steps,
    seed: Annotated[int, typer.Option(help=_("Seed of the first image."))] = SmokeSettings().seed,
    guidance_scale: GuidanceOption = GENERATION_DEFAULTS.guidance_scale,
    speeds: Annotated[
        bool, typer.Option("--speeds", help=_("Also measure what each speed costs on this model, and remember it."))
    ] = False,
    cpu: CpuOption = False,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Make the three test images and check them."""
    settings, model_settings = read_options(context, SmokeSettings), read_options(context, ModelSettings)
    place = locate_user_data(user_data)
    prepare_engine()
    with heavy_imports():
        from studio.cli.engine import loaded_manager, step_printer
        from studio.engine.generation import SmokeWatcher, run_smoke_test
        from studio.engine.speeds import measure_and_keep
    from studio.images.smoke_report import MARKDOWN_NAME, to_markdown

    with loaded_manager("smoke", model_settings, user_data=place, cpu_only=cpu) as manager:
        watcher = SmokeWatcher(on_step=step_printer(len(settings.prompts)))
        saved = run_smoke_test(manager, settings, outputs=place.outputs, watcher=watcher)
        measured = measure_and_keep(manager, place, settings.generations()) if speeds else None
    print(file=sys.stderr)
    print(saved.report.model_dump_json(indent=2) if json else to_markdown(saved.report))
    if measured is not None:
        print(_speed_lines(measured, place), file=sys.stderr)
    print(_("Saved in {folder}", folder=saved.folder / MARKDOWN_NAME), file=sys.stderr)
    raise typer.Exit(0 if saved.report.passed else 1)


def _speed_lines(measured: "MeasuredSpeeds", place: UserData) -> str:
    """What each speed costs, a line each."""
    from studio.loras.library import LoraLibrary
    from studio.loras.speed import all_speeds

    titles = all_speeds(LoraLibrary(place.loras))
    return "\n".join(f"- {titles.get(speed, speed)}: {cost.words}" for speed, cost in measured.costs.items())
