"""The command line: `python -m studio COMMAND`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.settings import BENCH_NAMES, BenchSettings
from studio import __version__
from studio.cli.batch import batch
from studio.cli.export import export
from studio.cli.jobs import jobs_app
from studio.cli.score import score
from studio.cli.train import train
from studio.core.errors import StudioError, system_error_message
from studio.core.paths import locate_user_data
from studio.core.settings import (
    SCHEDULER_NAMES,
    SHIPPED_MODEL,
    CompareSettings,
    GenerationSettings,
    ImagesSettings,
    ModelSettings,
    ServerSettings,
    SmokeSettings,
    parse_settings,
)
from studio.core.system import prepare_threads
from studio.datasets.recipe import LAYOUT_NAMES, DatasetRecipe, LayoutChoice

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="LoRA Studio.")

UserDataOption = Annotated[
    Path | None, typer.Option("--user-data", help="Where models, images and runs are kept.", show_default="user_data")
]
ModelOption = Annotated[str, typer.Option("--model", help=str(ModelSettings.model_fields["model"].description))]
PrecisionOption = Annotated[
    str, typer.Option("--precision", help=str(ModelSettings.model_fields["precision"].description))
]
SlicingOption = Annotated[
    bool, typer.Option("--attention-slicing", help=str(ModelSettings.model_fields["attention_slicing"].description))
]
CpuOption = Annotated[bool, typer.Option("--cpu", help=str(ServerSettings.model_fields["cpu"].description))]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@app.command()
def ui(
    port: Annotated[int | None, typer.Option(help=str(ServerSettings.model_fields["port"].description))] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Do not open the page in the browser.")] = False,
    listen: Annotated[
        bool, typer.Option("--listen", help=str(ServerSettings.model_fields["listen"].description))
    ] = False,
    auth_file: Annotated[
        Path | None, typer.Option(help=str(ServerSettings.model_fields["auth_file"].description))
    ] = None,
    model: ModelOption = SHIPPED_MODEL,
    cpu: CpuOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Open the studio in the browser."""
    from studio.ui.shell.server import serve

    settings = parse_settings(
        ServerSettings,
        {
            "port": port,
            "open_browser": not no_browser,
            "listen": listen,
            "auth_file": auth_file.resolve() if auth_file else None,
            "cpu": cpu,
        },
    )
    # A relative folder is meant from here; the page's process works elsewhere.
    folder = Path(model).expanduser()
    model_settings = parse_settings(ModelSettings, {"model": str(folder.resolve()) if folder.is_dir() else model})
    serve(settings, model=model_settings, user_data=locate_user_data(user_data))


@app.command()
def smoke(
    model: ModelOption = SHIPPED_MODEL,
    precision: PrecisionOption = "float32",
    attention_slicing: SlicingOption = False,
    steps: Annotated[int, typer.Option(help="Denoising steps.")] = SmokeSettings().num_inference_steps,
    seed: Annotated[int, typer.Option(help="Seed of the first image.")] = SmokeSettings().seed,
    cpu: CpuOption = False,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Make the three test images and check them; exit code 0 only when all are valid."""
    prepare_threads()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from studio.cli.images import run_smoke

    model_settings = parse_settings(
        ModelSettings, {"model": model, "precision": precision, "attention_slicing": attention_slicing}
    )
    smoke_settings = parse_settings(SmokeSettings, {"num_inference_steps": steps, "seed": seed})
    passed = run_smoke(
        model_settings, smoke_settings, user_data=locate_user_data(user_data), cpu_only=cpu, as_json=json
    )
    raise typer.Exit(0 if passed else 1)


def _help(name: str) -> str:
    return str(GenerationSettings.model_fields[name].description)


LoraOption = Annotated[
    list[str] | None,
    typer.Option("--lora", metavar="NAME[:STRENGTH]", help="A LoRA of the library or a file; may be given more often."),
]
StepsOption = Annotated[int, typer.Option("--steps", help=_help("num_inference_steps"))]
GuidanceOption = Annotated[float, typer.Option("--guidance", help=_help("guidance_scale"))]
GuidanceFromOption = Annotated[float, typer.Option("--guidance-from", help=_help("guidance_start"))]
GuidanceUntilOption = Annotated[float, typer.Option("--guidance-until", help=_help("guidance_end"))]
WidthOption = Annotated[int | None, typer.Option("--width", help=_help("width"))]
HeightOption = Annotated[int | None, typer.Option("--height", help=_help("height"))]
SchedulerOption = Annotated[
    str, typer.Option("--scheduler", help=_help("scheduler"), metavar="|".join(SCHEDULER_NAMES))
]
SeedOption = Annotated[int, typer.Option("--seed", help=_help("seed"))]
NegativeOption = Annotated[str, typer.Option("--negative-prompt", help=_help("negative_prompt"))]
LongOption = Annotated[bool, typer.Option("--long-prompt", help=_help("long_prompt"))]
PredictionOption = Annotated[
    str, typer.Option("--prediction-type", help=str(ModelSettings.model_fields["prediction_type"].description))
]
DEFAULTS = GenerationSettings(prompt="")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help=_help("prompt"))],
    negative_prompt: NegativeOption = "",
    lora: LoraOption = None,
    images: Annotated[int, typer.Option(help=str(ImagesSettings.model_fields["num_images"].description))] = 1,
    steps: StepsOption = DEFAULTS.num_inference_steps,
    guidance: GuidanceOption = DEFAULTS.guidance_scale,
    guidance_from: GuidanceFromOption = DEFAULTS.guidance_start,
    guidance_until: GuidanceUntilOption = DEFAULTS.guidance_end,
    width: WidthOption = None,
    height: HeightOption = None,
    scheduler: SchedulerOption = DEFAULTS.scheduler,
    seed: SeedOption = DEFAULTS.seed,
    long_prompt: LongOption = False,
    model: ModelOption = SHIPPED_MODEL,
    precision: PrecisionOption = "float32",
    prediction_type: PredictionOption = "auto",
    cpu: CpuOption = False,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Make images, each checked and saved with its settings; exit code 0 only when all are valid."""
    values = {
        "prompt": prompt,
        "negative_prompt": negative_prompt,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "guidance_start": guidance_from,
        "guidance_end": guidance_until,
        "width": width,
        "height": height,
        "scheduler": scheduler,
        "seed": seed,
        "long_prompt": long_prompt,
        "loras": _loras(lora),
    }
    settings = parse_settings(
        ImagesSettings, {"generation": parse_settings(GenerationSettings, values), "num_images": images}
    )
    model_settings = parse_settings(
        ModelSettings, {"model": model, "precision": precision, "prediction_type": prediction_type}
    )
    _prepare_engine()
    from studio.cli.images import run_generate

    valid = run_generate(model_settings, settings, user_data=locate_user_data(user_data), cpu_only=cpu, as_json=json)
    raise typer.Exit(0 if valid else 1)


@app.command()
def compare(
    prompts: Annotated[list[str], typer.Argument(help=str(CompareSettings.model_fields["prompts"].description))],
    left: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:STRENGTH]", help="A LoRA of the left side. None: the base.")
    ] = None,
    right: Annotated[
        list[str] | None, typer.Option(metavar="NAME[:STRENGTH]", help="A LoRA of the right side.")
    ] = None,
    seeds: Annotated[int, typer.Option(help=str(CompareSettings.model_fields["num_seeds"].description))] = 1,
    strip: Annotated[
        list[float] | None, typer.Option(help=str(CompareSettings.model_fields["strip"].description))
    ] = None,
    negative_prompt: NegativeOption = "",
    steps: StepsOption = DEFAULTS.num_inference_steps,
    guidance: GuidanceOption = DEFAULTS.guidance_scale,
    guidance_from: GuidanceFromOption = DEFAULTS.guidance_start,
    guidance_until: GuidanceUntilOption = DEFAULTS.guidance_end,
    width: WidthOption = None,
    height: HeightOption = None,
    scheduler: SchedulerOption = DEFAULTS.scheduler,
    seed: SeedOption = DEFAULTS.seed,
    long_prompt: LongOption = False,
    model: ModelOption = SHIPPED_MODEL,
    precision: PrecisionOption = "float32",
    cpu: CpuOption = False,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Make the same images with two sides' LoRAs and say how far they are apart."""
    shared = {
        "prompt": "",
        "negative_prompt": negative_prompt,
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "guidance_start": guidance_from,
        "guidance_end": guidance_until,
        "width": width,
        "height": height,
        "scheduler": scheduler,
        "seed": seed,
        "long_prompt": long_prompt,
    }
    values = {
        "prompts": tuple(prompts),
        "num_seeds": seeds,
        "generation": parse_settings(GenerationSettings, shared),
        "left": _loras(left),
        "right": _loras(right),
        "strip": tuple(strip or ()),
    }
    settings = parse_settings(CompareSettings, values)
    model_settings = parse_settings(ModelSettings, {"model": model, "precision": precision})
    _prepare_engine()
    from studio.cli.images import run_compare

    valid = run_compare(model_settings, settings, user_data=locate_user_data(user_data), cpu_only=cpu, as_json=json)
    raise typer.Exit(0 if valid else 1)


def _loras(options: list[str] | None) -> tuple[dict[str, object], ...]:
    """`white-ground:0.8` as a choice; a file's path may hold colons, so only a number after the last one counts."""
    choices: list[dict[str, object]] = []
    for option in options or ():
        name, _, strength = option.rpartition(":")
        try:
            choices.append({"name": name or option, "strength": float(strength)} if name else {"name": option})
        except ValueError:
            choices.append({"name": option})
    return tuple(
        {**choice, "name": str(Path(str(choice["name"])).resolve())}
        if str(choice["name"]).endswith(".safetensors")
        else choice
        for choice in choices
    )


def _prepare_engine() -> None:
    """What must be said before torch and transformers are imported."""
    prepare_threads()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


dataset_app = typer.Typer(no_args_is_help=True, help="Datasets: check a folder of images before training.")
app.add_typer(dataset_app, name="dataset")


@dataset_app.command("check")
def dataset_check(
    path: Annotated[Path, typer.Argument(help="The folder of the images; nothing in it is changed.")],
    layout: Annotated[
        str | None,
        typer.Option(help=str(LayoutChoice.model_fields["layout"].description), metavar="|".join(LAYOUT_NAMES)),
    ] = None,
    table: Annotated[str | None, typer.Option(help=str(LayoutChoice.model_fields["table"].description))] = None,
    template: Annotated[str | None, typer.Option(help=str(DatasetRecipe.model_fields["template"].description))] = None,
    resolution: Annotated[
        int, typer.Option(help=str(DatasetRecipe.model_fields["resolution"].description))
    ] = DatasetRecipe(source="-").resolution,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Look at every image and caption of a folder; exit code 1 when something needs fixing."""
    from studio.cli.dataset import check_dataset

    recipe = parse_settings(
        DatasetRecipe,
        {
            "source": str(path.expanduser().resolve()),
            "layout": parse_settings(LayoutChoice, {"layout": layout, "table": table}),
            "template": template,
            "resolution": resolution,
        },
    )
    passed = check_dataset(recipe, locate_user_data(user_data), as_json=json)
    raise typer.Exit(0 if passed else 1)


app.command()(train)
app.command()(batch)
app.command()(export)
app.command()(score)
app.add_typer(jobs_app, name="jobs")


@app.command()
def doctor(
    model: ModelOption = SHIPPED_MODEL,
    cpu: CpuOption = False,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Look for what would fail here, and say what to do; exit code 0 unless there is a problem."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from studio.cli.doctor import examine, to_text

    model_settings = parse_settings(ModelSettings, {"model": model})
    diagnosis = examine(model_settings, user_data=locate_user_data(user_data), cpu_only=cpu)
    typer.echo(diagnosis.model_dump_json(indent=2) if json else to_text(diagnosis))
    raise typer.Exit(0 if diagnosis.healthy else 1)


def _bench_help(name: str) -> str:
    return str(BenchSettings.model_fields[name].description)


@app.command()
def bench(
    only: Annotated[
        list[str] | None,
        typer.Option(help=str(BenchSettings.model_fields["only"].description), metavar="|".join(BENCH_NAMES)),
    ] = None,
    runs: Annotated[int, typer.Option(help=str(BenchSettings.model_fields["runs"].description))] = BenchSettings().runs,
    real_size: Annotated[
        bool, typer.Option("--real-size/--no-real-size", help=str(BenchSettings.model_fields["real_size"].description))
    ] = BenchSettings().real_size,
    diffusers: Annotated[Path | None, typer.Option(help=_bench_help("diffusers"))] = None,
    diffusers_python: Annotated[Path | None, typer.Option(help=_bench_help("diffusers_python"))] = None,
    kohya: Annotated[Path | None, typer.Option(help=_bench_help("kohya"))] = None,
    kohya_python: Annotated[Path | None, typer.Option(help=_bench_help("kohya_python"))] = None,
    output: Annotated[Path | None, typer.Option(help="Write the page here too, in place of what is there.")] = None,
    cpu: CpuOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Measure the studio beside its peers; exit code 0 only when every limit is kept."""
    prepare_threads()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from bench.command import run_bench

    peers = {
        "diffusers": diffusers,
        "diffusers_python": diffusers_python,
        "kohya": kohya,
        "kohya_python": kohya_python,
    }
    given = {name: path.absolute() for name, path in peers.items() if path is not None}
    settings = parse_settings(
        BenchSettings, {"only": tuple(only or ()), "runs": runs, "real_size": real_size, "cpu": cpu, **given}
    )
    kept = run_bench(settings, user_data=locate_user_data(user_data), output=output)
    raise typer.Exit(0 if kept else 1)


@app.command()
def version() -> None:
    """Print the studio's version."""
    typer.echo(__version__)


def main() -> None:
    """Run a command; what the user can act on is printed as one sentence, without a traceback."""
    try:
        app()
    except StudioError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except (OSError, MemoryError) as error:
        print(system_error_message(error), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
