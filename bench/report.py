"""The benches' page: the machine, every figure beside its limit, and how it was measured. Markdown."""

import os
from collections.abc import Sequence
from datetime import datetime

import psutil
import torch

from bench.figures import Figure, Spread
from bench.settings import BenchSettings
from bench.suite import BenchResult
from studio.core.system import versions
from studio.core.text import gigabytes, markdown_table
from studio.engine.device import device_name, pick_device, processor_name

Rows = Sequence[tuple[str, ...]]


def to_markdown(
    results: Sequence[BenchResult], settings: BenchSettings, *, machine: Rows, measured_at: datetime
) -> str:
    """The whole page."""
    figures = [figure_row(result.name, figure) for result in results for figure in result.figures]
    return (
        "\n\n".join(
            [
                "# Benchmarks",
                f"`{settings.command}` wrote this page on {measured_at:%Y-%m-%d}. Compare ratios, not seconds: "
                "both sides of a ratio were measured in turns in this one run, and the ratio is the median of the "
                "pairs, with the least and the greatest in brackets.",
                "## Figures\n\n"
                + markdown_table(
                    ("Bench", "Figure", "Ours", "Peer", "Its figure", "Ratio", "Limit", "Reached"), figures
                ),
                "## Machine\n\n" + markdown_table(("Item", "Value"), machine),
                "## How it was measured\n\n" + "\n".join(_method_line(result) for result in results),
            ]
        )
        + "\n"
    )


def _method_line(result: BenchResult) -> str:
    skipped = f" **It was skipped: {result.skipped}**" if result.skipped else ""
    return f"- **{result.name}**: {result.method}{skipped}"


def figure_row(bench: str, figure: Figure) -> tuple[str, ...]:
    """One line of the figures' table; the limit is for the ratio where there is a peer."""
    reached, unit = "yes" if figure.reached else "no", f" {figure.unit}" if figure.unit else ""
    ours = f"{figure.ours.median:.4g}{unit}"
    if figure.peer is None:
        low_to_high = "" if figure.ours.least == figure.ours.greatest else f" ({_ends(figure.ours, '.4g')})"
        return bench, figure.name, ours + low_to_high, "–", "–", "–", f"{figure.limit:g}{unit}", reached
    theirs = f"{figure.peer.theirs.median:.4g}{unit}"
    ratio = f"{figure.peer.ratio.median:.3f} ({_ends(figure.peer.ratio, '.3f')})"
    return bench, figure.name, ours, figure.peer.name, theirs, ratio, f"{figure.limit:g} ×", reached


def _ends(values: Spread, form: str) -> str:
    return f"{values.least:{form}} to {values.greatest:{form}}"


def machine_rows(*, cpu_only: bool) -> Rows:
    """The machine, named: what the figures hold for. The load tells whether it was quiet."""
    device = pick_device(cpu_only=cpu_only)
    return (
        ("Processor", processor_name()),
        ("Cores", f"{psutil.cpu_count(logical=False)} ({psutil.cpu_count()} logical)"),
        ("Memory", gigabytes(psutil.virtual_memory().total)),
        ("Device", f"{device_name(device)} ({device})"),
        ("torch's threads", f"{torch.get_num_threads()}, OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'unset')}"),
        ("Load before", f"{psutil.getloadavg()[0]:.2f} (mean number of waiting programs, one minute)"),
        *versions().items(),
    )
