"""What `python -m studio bench` does."""

import sys
from datetime import datetime
from pathlib import Path

from bench.report import machine_rows, to_markdown
from bench.settings import BenchSettings
from bench.suite import run_benches
from studio.core.files import write_atomically
from studio.core.paths import UserData


def run_bench(settings: BenchSettings, *, user_data: UserData, output: Path | None) -> bool:
    """Run the benches, print their page, write it where `output` says, and say whether every limit was kept.

    Raises:
        StudioError: where a bench cannot be carried out; nothing is written then.
    """
    machine = machine_rows(cpu_only=settings.cpu)
    results = run_benches(settings, user_data)
    page = to_markdown(results, settings, machine=machine, measured_at=datetime.now().astimezone())
    print(page)
    if output is not None:
        write_atomically(output, page.encode())
        print(f"Written to {output}", file=sys.stderr)
    return all(figure.reached for result in results for figure in result.figures)
