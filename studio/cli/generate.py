"""`python -m studio generate`: images of one prompt."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from studio.cli.options import (
    GENERATION_DEFAULTS,
    LORA_METAVAR,
    CpuOption,
    GuidanceEndOption,
    GuidanceOption,
    GuidanceStartOption,
    HeightOption,
    JsonOption,
    LongPromptOption,
    ModelOption,
    NegativePromptOption,
    PrecisionOption,
    SchedulerOption,
    SeedOption,
    SpeedOption,
    StepsOption,
    UserDataOption,
    WidthOption,
    at_speed,
    field_help,
    given_options,
    lora_choices,
    output_folder,
    prepare_engine,
    print_prompt_notes,
    read_options,
)
from studio.core.language import _
from studio.core.paths import locate_user_data
from studio.core.results import FailedImage, ImagesReport
from studio.core.settings import SHIPPED_MODEL, GenerationSettings, ImagesSettings, ModelSettings
from studio.core.system import heavy_imports


def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help=field_help(GenerationSettings, "prompt"))],
    negative_prompt: NegativePromptOption = "",
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar=LORA_METAVAR, help=_("A LoRA from the library, or a file; repeatable.")),
    ] = None,
    num_images: Annotated[int, typer.Option("--images", help=field_help(ImagesSettings, "num_images"))] = 1,
    num_inference_steps: StepsOption = GENERATION_DEFAULTS.num_inference_steps,
    guidance_scale: GuidanceOption = GENERATION_DEFAULTS.guidance_scale,
    guidance_start: GuidanceStartOption = GENERATION_DEFAULTS.guidance_start,
    guidance_end: GuidanceEndOption = GENERATION_DEFAULTS.guidance_end,
    width: WidthOption = None,
    height: HeightOption = None,
    scheduler: SchedulerOption = GENERATION_DEFAULTS.scheduler,
    seed: SeedOption = GENERATION_DEFAULTS.seed,
    long_prompt: LongPromptOption = False,
    speed: SpeedOption = None,
    model: ModelOption = SHIPPED_MODEL,
    precision: PrecisionOption = "float32",
    prediction_type: Annotated[
        str, typer.Option("--prediction-type", help=field_help(ModelSettings, "prediction_type"))
    ] = "auto",
    out: Annotated[
        Path | None,
        typer.Option(
            help=_("The folder of the images, made where it is missing; nothing in it is overwritten."),
            show_default="user_data/outputs/DATE",
        ),
    ] = None,
    cpu: CpuOption = False,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Make images of one prompt."""
    place = locate_user_data(user_data)
    generation = read_options(context, GenerationSettings, loras=lora_choices(lora))
    generation = at_speed(speed, generation, place, given=given_options(context))
    settings, model_settings = (
        read_options(context, ImagesSettings, generation=generation),
        read_options(context, ModelSettings),
    )
    print_prompt_notes([generation], model=model_settings.model)
    folder = output_folder(out)
    prepare_engine()
    with heavy_imports():
        from studio.cli.engine import loaded_manager, printing_watcher
        from studio.engine.generation import make_images

    with loaded_manager("generate", model_settings, user_data=place, cpu_only=cpu) as manager:
        watcher = printing_watcher(settings.num_images)
        report = make_images(manager, settings, outputs=place.outputs, folder=folder, watcher=watcher)
    print(file=sys.stderr)
    print(report.model_dump_json(indent=2) if json else _image_lines(report))
    raise typer.Exit(1 if any(isinstance(image, FailedImage) for image in report.images) else 0)


def _image_lines(report: ImagesReport) -> str:
    return "\n".join(
        _("not valid (seed {seed}): {error}", seed=image.settings.seed, error=image.error)
        if isinstance(image, FailedImage)
        else str(image.path)
        for image in report.images
    )
