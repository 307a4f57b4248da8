"""`python -m studio bench`: the command, which only a checkout has. Importing it loads nothing heavy."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from bench.settings import BENCH_NAMES, BenchSettings
from studio.cli.options import CpuOption, UserDataOption, field_help, prepare_engine, read_options
from studio.core.files import write_atomically
from studio.core.paths import UserData, locate_user_data

_DEFAULTS = BenchSettings()


def bench(
    context: typer.Context,
    only: Annotated[
        list[str] | None, typer.Option(help=field_help(BenchSettings, "only"), metavar="|".join(BENCH_NAMES))
    ] = None,
    runs: Annotated[int, typer.Option(help=field_help(BenchSettings, "runs"))] = _DEFAULTS.runs,
    real_size: Annotated[
        bool, typer.Option("--real-size/--no-real-size", help=field_help(BenchSettings, "real_size"))
    ] = _DEFAULTS.real_size,
    diffusers: Annotated[Path | None, typer.Option(help=field_help(BenchSettings, "diffusers"))] = None,
    diffusers_python: Annotated[Path | None, typer.Option(help=field_help(BenchSettings, "diffusers_python"))] = None,
    kohya: Annotated[Path | None, typer.Option(help=field_help(BenchSettings, "kohya"))] = None,
    kohya_python: Annotated[Path | None, typer.Option(help=field_help(BenchSettings, "kohya_python"))] = None,
    speed_lora: Annotated[Path | None, typer.Option(help=field_help(BenchSettings, "speed_lora"))] = None,
    speed_steps: Annotated[list[int] | None, typer.Option(help=field_help(BenchSettings, "speed_steps"))] = None,
    whole_batch: Annotated[
        bool, typer.Option("--whole-batch", help=field_help(BenchSettings, "whole_batch"))
    ] = _DEFAULTS.whole_batch,
    output: Annotated[
        Path | None, typer.Option("--output", "--out", help="Also write the page to this file, replacing it.")
    ] = None,
    cpu: CpuOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Measure the studio beside its peers; exit code 0 only when every limit is kept."""
    peers = {
        "diffusers": diffusers,
        "diffusers_python": diffusers_python,
        "kohya": kohya,
        "kohya_python": kohya_python,
        "speed_lora": speed_lora,
    }
    absolute = {name: path.absolute() for name, path in peers.items() if path is not None}
    settings = read_options(
        context,
        BenchSettings,
        only=tuple(only or ()),
        speed_steps=tuple(speed_steps or _DEFAULTS.speed_steps),
        **absolute,
    )
    prepare_engine()
    kept = run_bench(settings, user_data=locate_user_data(user_data), output=output)
    raise typer.Exit(0 if kept else 1)


def run_bench(settings: BenchSettings, *, user_data: UserData, output: Path | None) -> bool:
    """Run the benches, print their page, write it where `output` says, and say whether every limit was kept.

    Raises:
        StudioError: where a bench cannot be carried out; nothing is written then.
    """
    from bench.report import machine_rows, to_markdown
    from bench.suite import run_benches

    machine = machine_rows(cpu_only=settings.cpu)
    results = run_benches(settings, user_data)
    page = to_markdown(results, settings, machine=machine, measured_at=datetime.now().astimezone())
    print(page)
    if output is not None:
        write_atomically(output, page.encode())
        print(f"Written to {output}", file=sys.stderr)
    return all(figure.reached for result in results for figure in result.figures)
