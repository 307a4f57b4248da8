"""Speeds beside images in full: time, distance, whiteness, colours, sharpness; making a Speed LoRA; a batch of 60."""

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from bench.figures import Figure, paired_figure, plain_figure
from bench.settings import BenchSettings
from bench.training import WHITE_PROMPTS
from studio.batches.folder import begin_batch
from studio.batches.ledger import read_items
from studio.batches.settings import BatchSettings
from studio.batches.torch.run import run_batch
from studio.core.paths import UserData
from studio.core.settings import GenerationSettings, LoraChoice, ModelSettings
from studio.engine.device import pick_device
from studio.engine.pipeline import PipelineManager
from studio.engine.speeds import Drawn, distance_of, draw, scores_of
from studio.loras.library import LoraLibrary
from studio.loras.speed import LCM_USE, use_of
from studio.loras.weights_file import read_header
from studio.training.begin import begin_run
from studio.training.presets import settings_from
from studio.training.torch.run import train_run

GUIDANCE = 4.0  # of the preset quick-try, which the built-in LoRA was made with
SEED = 1000  # of the first image: none of the teacher's
STYLE = LoraChoice(name="white-ground")
NEAR, WHITE, SHARP = 10.0, 0.02, 0.05
FAST_TIME, SPEED_LORA_TIME, BATCH_TIME = 0.5, 0.2, 0.25
MAKING_SECONDS = 300.0
BATCH, SAMPLE = 60, 6
FULL_NAME, EXACT_NAME = "25 steps", "100 steps"


@dataclass
class Contest:
    """Images of the same prompts and seeds, drawn in several ways: one list for each seed."""

    manager: PipelineManager
    ways: Mapping[str, GenerationSettings]
    drawn: dict[str, list[list[Drawn]]] = field(default_factory=dict)

    def draw(self, prompts: Sequence[str], *, num_seeds: int) -> None:
        """All ways of an image one after the other, so that a machine that slows down slows all of them."""
        for settings in self.ways.values():
            draw(self.manager, settings.model_copy(update={"prompt": prompts[0]}))  # the first call of each warms up
        for block in range(num_seeds):
            for number, prompt in enumerate(prompts):
                seed = SEED + block * len(prompts) + number
                for name, settings in self.ways.items():
                    blocks = self.drawn.setdefault(name, [])
                    blocks += [[] for __ in range(block + 1 - len(blocks))]
                    one = settings.model_copy(update={"prompt": prompt, "seed": seed})
                    blocks[block].append(draw(self.manager, one))

    def figures(self, name: str, *, time_limit: float) -> list[Figure]:
        """What a way costs beside 25 steps; the range is that of the seeds."""
        ours, full, exact = (self.drawn[way] for way in (name, FULL_NAME, EXACT_NAME))
        seconds = [[fmean(one.seconds for one in block) for block in blocks] for blocks in (ours, full)]
        cpu = [[fmean(one.cpu_seconds for one in block) for block in blocks] for blocks in (ours, full)]
        scores = [(scores_of(our), scores_of(their)) for our, their in zip(ours, full, strict=True)]
        less_white = [
            their.whiteness.mean - our.whiteness.mean for our, their in scores if our.whiteness and their.whiteness
        ]
        sharper = [
            abs(our.sharpness.mean / their.sharpness.mean - 1)
            for our, their in scores
            if our.sharpness and their.sharpness
        ]
        wrong = [float(their.num_named_right - our.num_named_right) for our, their in scores]
        return [
            paired_figure(f"{name}: an image", *seconds, peer=FULL_NAME, unit="s", limit=time_limit),
            paired_figure(f"{name}: CPU time of an image", *cpu, peer=FULL_NAME, unit="s", limit=time_limit),
            plain_figure(f"{name}: distance to {FULL_NAME}", _distances(ours, full), unit="of 255", limit=NEAR),
            plain_figure(f"{name}: distance to {EXACT_NAME}", _distances(ours, exact), unit="of 255", limit=NEAR),
            plain_figure(f"{name}: whiteness lost", less_white, unit="of the border", limit=WHITE),
            plain_figure(f"{name}: sharpness changed", sharper, unit="", limit=SHARP),
            plain_figure(f"{name}: colours more often wrong", wrong, unit=f"of {len(WHITE_PROMPTS)}", limit=0.0),
        ]


def _distances(ours: Sequence[Sequence[Drawn]], theirs: Sequence[Sequence[Drawn]]) -> list[float]:
    """Mean of each seed's images; NaN, which keeps no limit, where none is valid."""
    found = (distance_of(our, their) for our, their in zip(ours, theirs, strict=True))
    return [float("nan") if distance is None else distance for distance in found]


def bench_speed(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """All figures of speeds, on the built-in model with the built-in LoRA."""
    figures = list[Figure]()
    with tempfile.TemporaryDirectory(dir=user_data.cache) as folder:
        own = UserData(Path(folder))
        names = {steps: f"in {steps} steps" for steps in settings.speed_steps}
        for steps, name in names.items():
            if settings.speed_lora is not None:
                names[steps] = str(settings.speed_lora.resolve())
                continue
            seconds = _make(name, steps, own, settings)
            what = f"Speed LoRA of {steps} steps, from press to file"
            figures.append(plain_figure(what, [seconds], unit="s", limit=MAKING_SECONDS))
        library = LoraLibrary(own.loras)
        ways = _ways() | {f"Speed LoRA, {n} steps": _with_lora(name, library) for n, name in names.items()}
        manager = PipelineManager(pick_device(cpu_only=settings.cpu), rejected_folder=own.rejected, library=library)
        manager.load(ModelSettings())
        contest = Contest(manager, ways)
        contest.draw(WHITE_PROMPTS, num_seeds=settings.runs)
        for name in ways:
            if name not in (FULL_NAME, EXACT_NAME):
                limit = SPEED_LORA_TIME if name.startswith("Speed LoRA") else FAST_TIME
                figures += contest.figures(name, time_limit=limit)
        figures.append(_batch(own, settings, ways[FULL_NAME], list(ways.values())[-1]))
    return tuple(figures)


def _ways() -> dict[str, GenerationSettings]:
    """25 steps, what they come near to, and fewer of them, guided in all or in a part."""
    full = GenerationSettings(prompt="", guidance_scale=GUIDANCE, loras=(STYLE,))
    ways = {FULL_NAME: full, EXACT_NAME: full.model_copy(update={"num_inference_steps": 100})}
    for scheduler, steps, until in (
        ("DPM++ 2M", 8, 1.0),
        ("DPM++ 2M", 10, 1.0),
        ("DPM++ 2M", 12, 1.0),
        ("UniPC", 8, 1.0),
        ("UniPC", 10, 1.0),
        ("UniPC", 12, 1.0),
        ("DPM++ 2M", 8, 0.75),
        ("DPM++ 2M", 8, 0.5),
    ):
        part = "" if until == 1 else f", guided until {until:.0%}"
        changes = {"scheduler": scheduler, "num_inference_steps": steps, "guidance_end": until}
        ways[f"{scheduler}, {steps} steps{part}"] = full.model_copy(update=changes)
    return ways


def _with_lora(name: str, library: LoraLibrary) -> GenerationSettings:
    """Drawn with a Speed LoRA of the library, or of a file, as it says."""
    file = Path(name) if name.endswith(".safetensors") else library.path_of(name)
    use = use_of(file.stem, read_header(file).metadata) or LCM_USE
    return _ways()[FULL_NAME].model_copy(update={**use.changes, "loras": (STYLE, LoraChoice(name=name))})


def _make(name: str, steps: int, own: UserData, settings: BenchSettings) -> float:
    """Seconds from the beginning of a run that makes a Speed LoRA until its file is in the library."""
    started = time.perf_counter()
    values = {
        "name": name,
        "dataset": "built-in:casual-shoes",
        "teacher_lora": STYLE.name,
        "teacher_guidance_scale": GUIDANCE,
        "speed_steps": steps,
        "cpu": settings.cpu,
    }
    train_run(begin_run(settings_from("speed", values, ()), own), own)
    return time.perf_counter() - started


def _batch(own: UserData, settings: BenchSettings, full: GenerationSettings, fast: GenerationSettings) -> Figure:
    """Sixty images as a batch; of fewer, the time of an image, sixty times."""
    num = BATCH if settings.whole_batch else SAMPLE
    pairs = [tuple(_batch_seconds(own, settings, one, num) for one in (fast, full)) for __ in range(settings.runs)]
    how = "" if settings.whole_batch else f", estimated from {SAMPLE}"
    ours, theirs = zip(*pairs, strict=True)
    what = f"a batch of {BATCH} with the Speed LoRA{how}"
    return paired_figure(what, ours, theirs, peer=FULL_NAME, unit="s", limit=BATCH_TIME)


def _batch_seconds(own: UserData, settings: BenchSettings, generation: GenerationSettings, num: int) -> float:
    started = time.perf_counter()
    wanted = BatchSettings(prompts="\n".join(WHITE_PROMPTS), total=num, generation=generation, cpu=settings.cpu)
    folder = begin_batch(wanted, own)
    run_batch(folder, own)
    if num == BATCH:
        return time.perf_counter() - started
    return BATCH * fmean(row.seconds for row in read_items(folder.ledgers))
