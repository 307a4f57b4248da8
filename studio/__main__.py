"""The command line: `python -m studio COMMAND`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from studio import __version__
from studio.bench.settings import BENCH_NAMES, BenchSettings
from studio.errors import StudioError, system_error_sentence
from studio.paths import locate_user_data
from studio.settings import SHIPPED_MODEL, ModelSettings, ServerSettings, SmokeSettings, parse_settings
from studio.threads import prepare_threads

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help="LoRA Studio.")

UserDataOption = Annotated[
    Path | None, typer.Option("--user-data", help="Where models, pictures and runs are kept.", show_default="user_data")
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
    from studio.ui.server import serve

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
    seed: Annotated[int, typer.Option(help="Seed of the first picture.")] = SmokeSettings().seed,
    cpu: CpuOption = False,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Make the three test pictures and check them; exit code 0 only when all are valid."""
    prepare_threads()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from studio.commands import run_smoke

    model_settings = parse_settings(
        ModelSettings, {"model": model, "precision": precision, "attention_slicing": attention_slicing}
    )
    smoke_settings = parse_settings(SmokeSettings, {"num_inference_steps": steps, "seed": seed})
    passed = run_smoke(
        model_settings, smoke_settings, user_data=locate_user_data(user_data), cpu_only=cpu, as_json=json
    )
    raise typer.Exit(0 if passed else 1)


@app.command()
def doctor(
    model: ModelOption = SHIPPED_MODEL,
    cpu: CpuOption = False,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Look for what would fail here, and say what to do; exit code 0 unless there is a problem."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from studio.doctor import examine, to_text

    model_settings = parse_settings(ModelSettings, {"model": model})
    diagnosis = examine(model_settings, user_data=locate_user_data(user_data), cpu_only=cpu)
    typer.echo(diagnosis.model_dump_json(indent=2) if json else to_text(diagnosis))
    raise typer.Exit(0 if diagnosis.healthy else 1)


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
    output: Annotated[Path | None, typer.Option(help="Write the page here too, in place of what is there.")] = None,
    cpu: CpuOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Measure the studio beside its peers; exit code 0 only when every limit is kept."""
    prepare_threads()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from studio.bench.command import run_bench

    settings = parse_settings(
        BenchSettings, {"only": tuple(only or ()), "runs": runs, "real_size": real_size, "cpu": cpu}
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
        print(system_error_sentence(error), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
