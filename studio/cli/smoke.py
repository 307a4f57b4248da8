"""`python -m studio smoke`: the three test images."""

import sys
from typing import Annotated

import typer

from studio.cli.options import (
    CpuOption,
    JsonOption,
    ModelOption,
    PrecisionOption,
    UserDataOption,
    field_help,
    prepare_engine,
    read_options,
)
from studio.core.language import _
from studio.core.paths import locate_user_data
from studio.core.settings import SHIPPED_MODEL, ModelSettings, SmokeSettings
from studio.core.system import heavy_imports


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
    from studio.images.smoke_report import MARKDOWN_NAME, to_markdown

    with loaded_manager("smoke", model_settings, user_data=place, cpu_only=cpu) as manager:
        watcher = SmokeWatcher(on_step=step_printer(len(settings.prompts)))
        saved = run_smoke_test(manager, settings, outputs=place.outputs, watcher=watcher)
    print(file=sys.stderr)
    print(saved.report.model_dump_json(indent=2) if json else to_markdown(saved.report))
    print(_("Saved in {folder}", folder=saved.folder / MARKDOWN_NAME), file=sys.stderr)
    raise typer.Exit(0 if saved.report.passed else 1)
