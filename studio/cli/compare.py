"""`python -m studio compare`: the same images with the LoRAs of two sides."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from studio.core.errors import SettingsError
from studio.core.files import write_atomically
from studio.core.language import _
from studio.core.paths import locate_user_data
from studio.core.settings import SHIPPED_MODEL, CompareSettings, GenerationSettings, ModelSettings
from studio.core.system import heavy_imports

if TYPE_CHECKING:
    from studio.images.comparison import SavedComparison


def compare(
    context: typer.Context,
    prompts: Annotated[list[str], typer.Argument(help=field_help(CompareSettings, "prompts"))],
    left: Annotated[
        list[str] | None,
        typer.Option(metavar=LORA_METAVAR, help=_("A LoRA for the left side; leave out for the base model.")),
    ] = None,
    right: Annotated[list[str] | None, typer.Option(metavar=LORA_METAVAR, help=_("A LoRA for the right side."))] = None,
    num_seeds: Annotated[int, typer.Option("--seeds", help=field_help(CompareSettings, "num_seeds"))] = 1,
    strip: Annotated[list[float] | None, typer.Option(help=field_help(CompareSettings, "strip"))] = None,
    negative_prompt: NegativePromptOption = "",
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
    out: Annotated[
        Path | None,
        typer.Option(
            help=_("The comparison's folder: new or empty."), show_default="user_data/outputs/DATE/compare-TIME"
        ),
    ] = None,
    cpu: CpuOption = False,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Make the same images with two sides' LoRAs."""
    place = locate_user_data(user_data)
    generation = read_options(context, GenerationSettings, prompt="")
    generation = at_speed(speed, generation, place, given=given_options(context), both_sides=True)
    sides = {"left": lora_choices(left), "right": lora_choices(right)}
    settings = read_options(context, CompareSettings, generation=generation, **sides)
    _assert_apart(settings)
    model_settings = read_options(context, ModelSettings)
    folder = output_folder(out, empty=True)
    prepare_engine()
    print_prompt_notes((side for pair in settings.pairs() for side in pair), model=model_settings.model)
    with heavy_imports():
        from studio.cli.engine import loaded_manager, printing_watcher
        from studio.engine.generation import run_comparison
    from studio.images.comparison import comparison_grid

    with loaded_manager("compare", model_settings, user_data=place, cpu_only=cpu) as manager:
        watcher = printing_watcher(settings.num_pictures)
        saved = run_comparison(manager, settings, outputs=place.outputs, folder=folder, watcher=watcher)
    grid = saved.folder / "grid.png"
    write_atomically(grid, comparison_grid(saved))
    print(file=sys.stderr)
    print(saved.model_dump_json(indent=2) if json else _comparison_lines(saved, grid))
    raise typer.Exit(0 if all(pair.difference is not None for pair in saved.report.pairs) else 1)


def _assert_apart(settings: CompareSettings) -> None:
    shared = {lora.name for lora in settings.generation.loras}
    for name in shared & {lora.name for lora in (*settings.left, *settings.right)}:
        said = _("The speed brings {name} on both sides: choose another LoRA here, or another speed.", name=name)
        raise SettingsError(said)


def _comparison_lines(saved: "SavedComparison", grid: Path) -> str:
    pairs = [
        _(
            "- {prompt} · seed {seed}: {difference}",
            prompt=pair.left.settings.prompt,
            seed=pair.left.settings.seed,
            difference=pair.difference.words if pair.difference else _("no valid pair"),
        )
        for pair in saved.report.pairs
    ]
    strip = [
        _(
            "- {prompt} · seed {seed} · strength {strength:g}: {pixels:.3g} of 255",
            prompt=made.picture.settings.prompt,
            seed=made.picture.settings.seed,
            strength=made.strength,
            pixels=made.difference.pixels,
        )
        for made in saved.report.strip
        if made.difference
    ]
    return "\n".join(
        [
            saved.report.sentence,
            *pairs,
            *strip,
            _("Images and report: {folder}", folder=saved.folder),
            _("Grid: {grid}", grid=grid),
        ]
    )
