"""Training beside its peers: time and memory of a step; what watching costs; from start to white backgrounds."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from bench.figures import Figure, measure_pairs, paired_figure, plain_figure
from bench.real_size_model import real_size_model
from bench.settings import BenchSettings
from bench.training_peers import (
    StepFacts,
    Workplace,
    run_diffusers,
    run_kohya,
    run_ours,
    run_plain,
    write_pictures,
)
from studio.core.paths import UserData, assets_folder
from studio.core.settings import GenerationSettings, LoraChoice, ModelSettings
from studio.core.text import GIB
from studio.engine.device import pick_device, synchronize
from studio.engine.pipeline import PipelineManager
from studio.loras.library import LoraLibrary
from studio.training.begin import begin_run
from studio.training.folder import RunFolder
from studio.training.presets import settings_from
from studio.training.settings import TargetName
from studio.training.torch.run import open_loop, train_run

# (time, memory) beside the peer's.
DIFFUSERS_LIMITS = (0.5, 0.85)
KOHYA_LIMITS, KOHYA_SMALL_LIMITS = (0.7, 1.0), (0.9, 0.8)
SMALL_PERCENT = 70  # of the activations' memory to free: from here on it costs much more time
WATCHING_LIMIT = 1.02
QUICK_TRY_LIMIT_SECONDS = 300.0
WHITE_LIMIT, BASE_LIMIT = 0.05, 0.1
WATCHED_STEPS = 6
# Prompts and seeds that were not trained on: the seed report's words for the ground, colours and kinds mixed anew.
WHITE_PROMPTS = (
    "black casual shoes, white background",
    "brown leather shoes, white background",
    "white sneakers, white background",
    "red canvas sneakers, white background",
    "a pair of navy boots, white background",
    "tan suede loafers, white background",
    "green sandals, white background",
    "pink high heels, white background",
    "blue sneakers, white background",
    "yellow leather boots, white background",
)


def bench_training(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """The shipped model's figures; those of Stable Diffusion 1.5's size where they were asked for."""
    figures = (*_quick_try(settings, user_data), _watching(settings, user_data))
    if not settings.real_size:
        return figures
    with real_size_model(user_data.cache) as model, tempfile.TemporaryDirectory(dir=user_data.cache) as folder:
        write_pictures(Path(folder))
        place = Workplace(model, Path(folder), pick_device(cpu_only=settings.cpu).type)
        return (*figures, *_real_size(place, settings))


def _real_size(place: Workplace, settings: BenchSettings) -> tuple[Figure, ...]:
    """Each side a fresh process. Without a checkout of a peer its place is taken by the plain loop.

    Peers checkpoint every block, which is the best that they have for this memory; ours keeps all, or frees a part.
    """
    diffusers, python = settings.diffusers, settings.diffusers_python
    if diffusers is not None:
        peer = "diffusers' script"
        theirs = _kept(lambda: run_diffusers(place, checkout=diffusers, python=python))
    else:
        peer = "plain loop, nothing cached"
        theirs = _kept(lambda: run_plain(place, targets="attention", checkpointing=True, cached=False))
    wide: TargetName = "attention + feed-forward"
    kohya, kohya_python = settings.kohya, settings.kohya_python
    if kohya is not None:
        wide_peer = "kohya"
        wide_theirs = _kept(lambda: run_kohya(place, checkout=kohya, python=kohya_python))
    else:
        wide_peer = "plain loop, everything cached"
        wide_theirs = _kept(lambda: run_plain(place, targets=wide, checkpointing=True, cached=True))
    fast = _kept(lambda: run_ours(place, targets="attention", checkpointing="off"))
    wide_fast = _kept(lambda: run_ours(place, targets=wide, checkpointing="off"))
    wide_small = _kept(lambda: run_ours(place, targets=wide, checkpointing="part", percent=SMALL_PERCENT))
    freed = f"192 layers, {SMALL_PERCENT} % freed"
    return (
        *_pair("128 layers, no checkpointing", fast, theirs, peer, DIFFUSERS_LIMITS, settings),
        *_pair("192 layers, no checkpointing", wide_fast, wide_theirs, wide_peer, KOHYA_LIMITS, settings),
        *_pair(freed, wide_small, wide_theirs, wide_peer, KOHYA_SMALL_LIMITS, settings),
    )


@dataclass
class _Side:
    """Runs one side, and keeps what it told."""

    run: Callable[[], StepFacts]
    facts: list[StepFacts]

    def seconds(self) -> float:
        self.facts.append(self.run())
        return self.facts[-1].best_seconds

    def cpu_seconds(self) -> list[float]:
        return [facts.best_cpu_seconds for facts in self.facts]

    def peaks(self) -> list[float]:
        return [facts.peak_bytes / GIB for facts in self.facts]


def _kept(run: Callable[[], StepFacts]) -> _Side:
    return _Side(run, [])


def _pair(
    what: str, ours: _Side, theirs: _Side, peer: str, limits: tuple[float, float], settings: BenchSettings
) -> list[Figure]:
    """Time of a step, and the peaks of the same processes. CPU time says more where the machine has other work."""
    before = len(theirs.facts)
    seconds = measure_pairs(ours.seconds, theirs.seconds, pairs=settings.runs)
    cpu_seconds = ours.cpu_seconds(), theirs.cpu_seconds()[before:]
    peaks = ours.peaks(), theirs.peaks()[before:]
    where = f"(512 × 512, batch 2, {what})"
    return [
        paired_figure(f"a step {where}", *seconds, peer=peer, unit="s", limit=limits[0]),
        paired_figure(f"CPU time of a step {where}", *cpu_seconds, peer=peer, unit="s", limit=limits[0]),
        paired_figure(f"peak memory {where}", *peaks, peer=peer, unit="GiB", limit=limits[1]),
    ]


def _watching(settings: BenchSettings, user_data: UserData) -> Figure:
    """Our step with its checks, events, boards and gauge, beside the same passes bare, in one process on one model."""
    with tempfile.TemporaryDirectory(dir=user_data.cache) as folder:
        own = UserData(Path(folder))
        run = _begin(own, settings, name="watched", max_train_steps=10_000, num_validation_images=0)
        with open_loop(run, own) as loop:
            loop.denoiser.train()

            def watched() -> float:
                started = time.perf_counter()
                for _ in range(WATCHED_STEPS):
                    loop.answer_requests()
                    loop.step()
                synchronize(loop.processes.device)
                return (time.perf_counter() - started) / WATCHED_STEPS

            def bare() -> float:
                started = time.perf_counter()
                for number in range(WATCHED_STEPS):
                    batch = loop.steps.maker.batch(number)
                    prediction = loop.denoiser(batch.noisy_BCHW, batch.timesteps_B, batch.text_BND)
                    torch.autograd.backward(nn.functional.mse_loss(prediction, batch.target_BCHW))
                    nn.utils.clip_grad_norm_(loop.state.adapters.parameters(), 1.0)
                    loop.state.optimizer.step()
                    loop.state.optimizer.zero_grad(set_to_none=True)
                synchronize(loop.processes.device)
                return (time.perf_counter() - started) / WATCHED_STEPS

            watched()
            bare()
            ours, theirs = measure_pairs(watched, bare, pairs=max(5, settings.runs))
    name = "a step with checks, events, gauge and boards (shipped model, batch 16)"
    return paired_figure(name, ours, theirs, peer="the bare step", unit="s", limit=WATCHING_LIMIT)


def _quick_try(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """The whole run as a person starts it, then images that it never saw."""
    with tempfile.TemporaryDirectory(dir=user_data.cache) as folder:
        own = UserData(Path(folder))
        started = time.perf_counter()
        run = _begin(own, settings, name="quick try")
        train_run(run, own)
        seconds = time.perf_counter() - started
        library = LoraLibrary(own.loras)
        manager = PipelineManager(pick_device(cpu_only=settings.cpu), rejected_folder=own.rejected, library=library)
        manager.load(ModelSettings())
        base, white = _whiteness(manager, ()), _whiteness(manager, (LoraChoice(name="quick try"),))
    return (
        plain_figure(
            "quick try on the demo dataset, from start to a finished file",
            [seconds],
            unit="s",
            limit=QUICK_TRY_LIMIT_SECONDS,
        ),
        plain_figure("border whiteness of the base", [base], unit="", limit=BASE_LIMIT),
        plain_figure("what is not white of the border after it", [1 - white], unit="", limit=WHITE_LIMIT),
    )


def _begin(own: UserData, settings: BenchSettings, **changes: object) -> RunFolder:
    values = {"dataset": str(assets_folder() / "casual-shoes"), "cpu": settings.cpu, **changes}
    return begin_run(settings_from("quick-try", values, ()), own)


def _whiteness(manager: PipelineManager, loras: tuple[LoraChoice, ...]) -> float:
    """Mean over the prompts."""
    pictures = [
        manager.generate(GenerationSettings(prompt=prompt, guidance_scale=4, seed=500 + i, loras=loras)).picture
        for i, prompt in enumerate(WHITE_PROMPTS)
    ]
    return float(np.mean([border_whiteness(picture) for picture in pictures]))


def border_whiteness(picture: np.ndarray) -> float:
    """The share of a 6-pixel border whose every channel is 245 or more; image is (height, width, 3) uint8."""
    border = [part.reshape(-1, 3) for part in (picture[:6], picture[-6:], picture[:, :6], picture[:, -6:])]
    return float((np.concatenate(border).min(axis=1) >= 245).mean())
