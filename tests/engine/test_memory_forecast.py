"""Memory by shapes: what is counted is what a real pass takes, and no tensor is larger than a Mac can compute."""

from collections.abc import Callable
from types import SimpleNamespace

import psutil
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel

from bench.real_size_model import make_unet, make_vae
from studio.core.errors import NotEnoughMemoryError
from studio.core.settings import SHIPPED_MODEL, GenerationSettings
from studio.engine.attention import MPS_MAX_SCORES, MPS_SCORES, AttentionPlan
from studio.engine.denoise import native_size
from studio.engine.memory_forecast import (
    FUSED,
    ImageRoom,
    MemoryCount,
    count_decoding,
    count_training_step,
    count_unet,
    counted_plan,
    generation_bytes,
)
from studio.engine.model_files import ModelShape, read_shape
from studio.engine.pipeline import PipelineManager
from studio.engine.progress import Watcher

GIB = 2**30
LARGEST = AttentionPlan(max_scores=MPS_MAX_SCORES, contiguous=True)


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    """Stable Diffusion 1.5's, without weights."""
    with torch.device("meta"):
        return make_unet()


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    with torch.device("meta"):
        return make_vae()


def test_at_real_size_no_tensor_is_larger_than_metal_can_compute(
    unet: UNet2DConditionModel, vae: AutoencoderKL
) -> None:
    """A guided image of 1024² and a step of three of 768², with the largest chunks that are ever used."""
    counts = [
        count_unet(unet, width=1024, height=1024, batch=2, plan=LARGEST),
        count_decoding(vae, width=1024, height=1024, plan=LARGEST),
        count_training_step(unet, width=768, height=768, batch=3, plan=LARGEST, checkpointing=True),
        count_training_step(unet, width=768, height=768, batch=3, plan=LARGEST, checkpointing=False),
    ]
    for count in counts:
        assert count.largest_numel <= 2**30
        assert count.largest_bytes <= 4 * GIB
    whole = count_unet(unet, width=1024, height=1024, batch=2, plan=AttentionPlan())
    assert whole.largest_numel == 2 * 8 * (128 * 128) ** 2, "without chunks: the line before proves something"


def test_chunks_take_less_than_half_of_what_whole_scores_take(unet: UNet2DConditionModel) -> None:
    whole, chunked = (
        count_unet(unet, width=1024, height=1024, batch=2, plan=plan).peak_bytes
        for plan in (AttentionPlan(), AttentionPlan(max_scores=MPS_SCORES))
    )
    assert chunked <= 0.5 * whole


def test_an_image_of_2048_is_decoded_in_tiles_that_take_no_more_than_one_of_1024(vae: AutoencoderKL) -> None:
    large, small = (count_decoding(vae, width=side, height=side, plan=LARGEST).peak_bytes for side in (2048, 1024))
    assert large <= small


def test_what_is_counted_is_what_the_same_pass_makes_on_the_cpu(manager: PipelineManager) -> None:
    components, plan = manager.components, AttentionPlan(max_scores=2**30)
    counted = count_unet(components.unet, width=128, height=128, batch=2, plan=plan)
    counted_fused = count_unet(components.unet, width=128, height=128, batch=2, plan=FUSED)  # as the CPU's kernels
    real = MemoryCount()
    width = components.unet.config.cross_attention_dim
    inputs = (torch.randn(2, 4, 16, 16), torch.tensor(500), torch.randn(2, 77, width))
    with torch.no_grad(), real:
        components.unet(*inputs)
    assert counted_fused.peak_bytes == pytest.approx(real.peak_bytes, rel=0.15)
    assert counted.peak_bytes > real.peak_bytes
    assert real.now_bytes == counted.now_bytes == 0, "all of it was given back"


def test_half_precision_takes_half(manager: PipelineManager) -> None:
    """On a CUDA device that was set to it; what would fit there is not refused."""

    def counted(dtype: torch.dtype) -> tuple[int, int, int]:
        with torch.device("meta"):
            unet: UNet2DConditionModel = UNet2DConditionModel.from_config(manager.components.unet.config).to(dtype)
            vae: AutoencoderKL = AutoencoderKL.from_config(manager.components.vae.config).to(dtype)
        step = count_training_step(unet, width=64, height=64, batch=1, plan=FUSED, checkpointing=False, dtype=dtype)
        generated = count_unet(unet, width=64, height=64, batch=2, plan=FUSED)
        return step.peak_bytes, generated.peak_bytes, count_decoding(vae, width=64, height=64, plan=FUSED).peak_bytes

    for half, whole in zip(counted(torch.float16), counted(torch.float32), strict=True):
        assert half == pytest.approx(whole / 2, rel=0.02)


def test_a_count_is_of_what_lives_at_one_moment() -> None:
    count = MemoryCount()
    with count:
        for _ in range(3):
            x = torch.empty(1000)
            y = x + 1  # two live
            del x, y
        view = torch.empty(500).view(5, 100)
        view.add_(1)
    assert (count.peak_bytes, count.now_bytes, count.largest_numel) == (8000, 2000, 1000)


def test_only_apples_gpus_store_scores_where_attention_is_whole() -> None:
    whole, chunks = AttentionPlan(), AttentionPlan(max_scores=2**20)
    assert counted_plan(torch.device("cpu"), whole) == counted_plan(torch.device("cuda"), whole) == FUSED
    assert counted_plan(torch.device("mps"), whole) == whole
    assert counted_plan(torch.device("cpu"), chunks) == chunks


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets how much memory the system has."""

    def has(*, free: int, total: int) -> None:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free, total=total))

    return has


def test_a_large_image_says_what_it_takes_before_it_starts(
    manager: PipelineManager, machine: Callable[..., None]
) -> None:
    room = ImageRoom(manager.components, torch.device("cpu"), AttentionPlan())
    needed = generation_bytes(manager.components, width=2048, height=2048, guided=True, plan=FUSED)
    machine(free=20 * GIB, total=24 * GIB)
    assert room.check(width=512, height=512, guided=True) == ""
    words = room.check(width=2048, height=2048, guided=True)
    assert words == f"An image of 2048 × 2048 takes about {needed / GIB:.1f} GB beside the model; 20.0 GB are free."
    machine(free=needed // 2, total=24 * GIB)
    assert "it may become very slow" in room.check(width=2048, height=2048, guided=True)
    machine(free=needed // 2, total=needed)
    with pytest.raises(NotEnoughMemoryError, match="Choose a smaller width and height"):
        room.check(width=2048, height=2048, guided=True)


def test_an_image_that_cannot_fit_is_refused_before_its_first_step(
    manager: PipelineManager, machine: Callable[..., None]
) -> None:
    machine(free=GIB, total=GIB // 8)
    steps: list[object] = []
    settings = GenerationSettings(prompt="shoes", width=2048, height=2048)
    with pytest.raises(NotEnoughMemoryError, match="2048 × 2048 takes about"):
        manager.generate(settings, watcher=Watcher(steps.append))
    assert steps == []


def test_an_image_above_the_models_own_size_tells_its_watcher(manager: PipelineManager) -> None:
    notes: list[str] = []
    settings = GenerationSettings(prompt="shoes", width=520, height=512, num_inference_steps=1, guidance_scale=1)
    manager.generate(settings, watcher=Watcher(on_note=notes.append))
    assert [note[:24] for note in notes] == ["An image of 520 × 512 ta"]


@pytest.mark.parametrize("side", [1024, 2048])
def test_the_short_form_for_the_page_agrees_with_the_count_of_every_tensor(
    unet: UNet2DConditionModel, vae: AutoencoderKL, side: int
) -> None:
    """Stable Diffusion 1.5 at 4 and 16 times its own area; at the larger the decoder works in tiles."""
    step = count_unet(unet, width=side, height=side, batch=2, plan=FUSED).peak_bytes
    counted = max(step, count_decoding(vae, width=side, height=side, plan=FUSED).peak_bytes)
    assert ModelShape().image_bytes(width=side, height=side) == pytest.approx(counted, rel=0.1)


def test_it_agrees_for_a_model_whose_shape_is_read_from_its_folder(manager: PipelineManager) -> None:
    components, shape = manager.components, read_shape(SHIPPED_MODEL)
    assert (shape.width, shape.height) == native_size(components)
    counted = generation_bytes(components, width=256, height=192, guided=True, plan=FUSED)
    assert shape.image_bytes(width=256, height=192) == pytest.approx(counted, rel=0.1)
