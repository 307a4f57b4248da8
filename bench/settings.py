"""What a bench run is required. No torch: the command line reads it."""

import sys
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le
from pydantic import Field

from studio.core.settings import Settings

BenchName = Literal[
    "startup",
    "cold-start",
    "memory",
    "dataset",
    "captions",
    "shipped",
    "lora",
    "passes",
    "training",
    "speed",
    "training-tab",
    "batch",
    "scale",
    "real-size",
]
BENCH_NAMES: tuple[BenchName, ...] = get_args(BenchName)


class BenchSettings(Settings):
    """Which benches to run, and how often."""

    only: tuple[BenchName, ...] = Field(
        (), title="Only", description=f"Run only this one of {', '.join(BENCH_NAMES)}; may be given more than once."
    )
    runs: Annotated[int, Ge(1), Le(100)] = Field(
        3, title="Runs", description="Pairs to measure of each. Ratios are medians, so an odd number is best."
    )
    real_size: bool = Field(
        True,
        title="Real size",
        description="Measure with a random model of Stable Diffusion 1.5's size too: minutes, 10 GB of memory, "
        "2 GB of disk meanwhile.",
    )
    diffusers: Path | None = Field(
        None,
        title="diffusers",
        description="A checkout of diffusers: its script is measured beside ours. Without one a plain loop is.",
    )
    diffusers_python: Path = Field(
        Path(sys.executable),
        title="Its Python",
        description="The Python of an environment that diffusers' script runs in.",
    )
    kohya: Path | None = Field(None, title="kohya", description="A checkout of sd-scripts, measured beside ours.")
    kohya_python: Path = Field(
        Path(sys.executable), title="Its Python", description="The Python of an environment that sd-scripts runs in."
    )
    speed_lora: Path | None = Field(
        None, title="Speed LoRA", description="A file to measure. Without one, a Speed LoRA is made: 5 minutes each."
    )
    speed_steps: tuple[Annotated[int, Ge(1), Le(8)], ...] = Field(
        (4,), title="Its steps", description="Steps of the Speed LoRAs that are made; may be given more than once."
    )
    whole_batch: bool = Field(
        False, title="Whole batch", description="Make a batch of 60 at both speeds, instead of estimating it from 6."
    )
    cpu: bool = Field(False, title="CPU only", description="Do not use a GPU, even where there is one.")

    @property
    def names(self) -> tuple[BenchName, ...]:
        """The benches to run, in the order in which they run."""
        wanted = self.only or BENCH_NAMES
        return tuple(name for name in BENCH_NAMES if name in wanted and (self.real_size or name != "real-size"))

    @property
    def command(self) -> str:
        """The command line that asks for the same."""
        words = ["python -m studio bench", *(f"--only {name}" for name in self.only), f"--runs {self.runs}"]
        words += [] if self.real_size else ["--no-real-size"]
        words += [f"--speed-steps {steps}" for steps in self.speed_steps if self.speed_steps != (4,)]
        words += ["--speed-lora FILE"] if self.speed_lora else []
        words += ["--whole-batch"] if self.whole_batch else []
        words += ["--diffusers CHECKOUT"] if self.diffusers else []
        words += ["--kohya CHECKOUT"] if self.kohya else []
        return " ".join([*words, "--cpu"] if self.cpu else words)
