"""What a LoRA costs: switching, strength, images, memory; and what cached prompts save."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from bench.figures import Figure, measure_pairs, paired_figure, plain_figure
from bench.memory import measure_peak
from bench.real_size_model import REAL_SIZE_PIXELS, real_size_model
from bench.settings import BenchSettings
from studio.core.paths import UserData
from studio.core.settings import SHIPPED_MODEL, SMOKE_PROMPTS, GenerationSettings, LoraChoice, ModelSettings
from studio.core.text import GIB
from studio.engine.device import pick_device, synchronize
from studio.engine.pipeline import PipelineManager

SWITCH_LIMIT_SECONDS = 0.3
PAIR_LIMIT = 2.02
MEMORY_LIMIT = 1.05
CACHED_TEXT_LIMIT = 0.02
RANK = 8
# kohya's usual 192 layers: attention, feed-forward, and the projections around them
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
SHIPPED_STEPS, REAL_SIZE_STEPS = 25, 2
PAIRS_A_RUN = 5


def bench_lora(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """The shipped model with its own LoRA; Stable Diffusion 1.5's size with a random one where it was asked for."""
    white = LoraChoice(name="white-ground")
    shipped = _load(SHIPPED_MODEL, settings, user_data)
    picture = GenerationSettings(prompt=SMOKE_PROMPTS[0], num_inference_steps=SHIPPED_STEPS)
    pair = _pair_figure("shipped model, 25 steps", shipped, picture, white, pairs=settings.runs * PAIRS_A_RUN)
    text = _text_figure("shipped model", shipped, picture)
    if not settings.real_size:
        return (pair, text)
    with real_size_model(user_data.cache) as model, tempfile.TemporaryDirectory(dir=user_data.cache) as folder:
        return (pair, text, *_real_size_figures(model, Path(folder), settings, user_data))


def _real_size_figures(model: Path, folder: Path, settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    what = "512 × 512, 192 layers of rank 8"
    picture = GenerationSettings(
        prompt=SMOKE_PROMPTS[0],
        num_inference_steps=REAL_SIZE_STEPS,
        width=REAL_SIZE_PIXELS,
        height=REAL_SIZE_PIXELS,
    )
    manager = _load(str(model), settings, user_data)
    file = folder / "random.safetensors"
    write_random_lora(file, manager.components.unet)
    lora = LoraChoice(name=str(file))
    figures = (
        *_switch_figures(manager, lora, times=10),
        _text_figure("512 × 512", manager, picture),
        _pair_figure(f"{what}, 2 steps", manager, picture, lora, pairs=settings.runs),
    )
    manager.unload()
    return (*figures, _memory_figure(what, model, picture, lora, settings, user_data))


def write_random_lora(file: Path, unet: nn.Module) -> None:
    """A LoRA in kohya's form for every target layer of a U-Net, with small random weights."""
    generator, state = torch.Generator().manual_seed(0), {}
    for path, layer in unet.named_modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and path.endswith(TARGETS):
            name, shape = "lora_unet_" + path.replace(".", "_"), layer.weight.shape
            down, up = (RANK, *shape[1:]), (shape[0], RANK, *(1 for _ in shape[2:]))
            state[f"{name}.lora_down.weight"] = torch.randn(down, generator=generator) * 0.02
            state[f"{name}.lora_up.weight"] = torch.randn(up, generator=generator) * 0.02
            state[f"{name}.alpha"] = torch.tensor(float(RANK))
    save_file({key: value.half() for key, value in state.items()}, file)


def _load(model: str, settings: BenchSettings, user_data: UserData) -> PipelineManager:
    manager = PipelineManager(pick_device(cpu_only=settings.cpu), rejected_folder=user_data.rejected)
    manager.load(ModelSettings(model=model))
    return manager


def _switch_figures(manager: PipelineManager, lora: LoraChoice, *, times: int) -> tuple[Figure, ...]:
    """Seconds until a LoRA acts, no longer acts, or acts with another strength."""
    first = _seconds(manager, lambda: manager.loras.use((lora,)))
    weaker = lora.model_copy(update={"strength": 0.5})
    off, on, strength = [], [], []
    for _ in range(times):
        off.append(_seconds(manager, lambda: manager.loras.use(())))
        on.append(_seconds(manager, lambda: manager.loras.use((lora,))))
        strength.append(_seconds(manager, lambda: manager.loras.use((weaker,))))
    manager.loras.use(())
    return tuple(
        plain_figure(f"{name} (real size)", seconds, unit="s", limit=SWITCH_LIMIT_SECONDS)
        for name, seconds in (
            ("LoRA on, first time: read and checked", [first]),
            ("LoRA on", on),
            ("LoRA off", off),
            ("another strength", strength),
        )
    )


def _pair_figure(
    what: str, manager: PipelineManager, picture: GenerationSettings, lora: LoraChoice, *, pairs: int
) -> Figure:
    """Base and LoRA, one after the other, beside the base alone."""
    with_lora = picture.model_copy(update={"loras": (lora,)})

    def both() -> None:
        manager.generate(picture)
        manager.generate(with_lora)

    both()  # warm
    ours, theirs = measure_pairs(
        lambda: _seconds(manager, both), lambda: _seconds(manager, lambda: manager.generate(picture)), pairs=pairs
    )
    return paired_figure(
        f"base and LoRA ({what})", ours, theirs, peer="the base's image alone", unit="s", limit=PAIR_LIMIT
    )


def _text_figure(what: str, manager: PipelineManager, picture: GenerationSettings) -> Figure:
    """Seconds for the prompts of an image whose words were met before, beside those of new words."""
    cached, fresh = [], []
    for number in range(5):
        words = picture.model_copy(update={"prompt": f"{picture.prompt} {number}", "num_inference_steps": 1})
        fresh.append(manager.generate(words).timings.text_seconds)
        cached.append(manager.generate(words).timings.text_seconds)
    return paired_figure(
        f"text of a prompt met before ({what})", cached, fresh, peer="a new prompt", unit="s", limit=CACHED_TEXT_LIMIT
    )


def _memory_figure(
    what: str, model: Path, picture: GenerationSettings, lora: LoraChoice, settings: BenchSettings, user_data: UserData
) -> Figure:
    """The peak of a fresh process that makes an image with the LoRA, beside one without."""
    device_type = pick_device(cpu_only=settings.cpu).type

    def peak(picture: GenerationSettings) -> float:
        measured = measure_peak("studio", model, picture, device_type=device_type, user_data=user_data)
        return (measured.accelerator_bytes or measured.process_bytes) / GIB

    with_lora = picture.model_copy(update={"loras": (lora,)})
    ours, theirs = measure_pairs(lambda: peak(with_lora), lambda: peak(picture), pairs=1)
    return paired_figure(
        f"peak memory with a LoRA ({what})", ours, theirs, peer="without", unit="GiB", limit=MEMORY_LIMIT
    )


def _seconds(manager: PipelineManager, do: Callable[[], object]) -> float:
    start = time.perf_counter()
    do()
    synchronize(manager.device)
    return time.perf_counter() - start
