"""What passes keep and take: attention in chunks beside whole scores, lean passes and a half base beside plain ones."""

import tempfile
from pathlib import Path

import torch

from bench.figures import Figure, paired_figure
from bench.real_size_model import make_unet
from bench.settings import BenchSettings
from studio.core.paths import UserData
from studio.core.settings import SHIPPED_MODEL
from studio.engine.attention import MPS_SCORES, AttentionPlan
from studio.engine.memory import OffloadedModule
from studio.engine.memory_forecast import count_unet
from studio.engine.model_files import find_model
from studio.engine.models import Components, load_components
from studio.training.settings import TrainingSettings
from studio.training.torch.adapters import Adapters
from studio.training.torch.batches import TrainingBatch
from studio.training.torch.loss import Denoiser
from studio.training.torch.memory import kept_bytes_of

SIDE = 1024
GIB, MIB = 2**30, 2**20


def bench_passes(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """Counted, not timed: the same on every machine."""
    with torch.device("meta"):
        unet = make_unet()
    chunked, whole = (
        count_unet(unet, width=SIDE, height=SIDE, batch=2, plan=plan).peak_bytes / GIB
        for plan in (AttentionPlan(max_scores=MPS_SCORES), AttentionPlan())
    )
    lean, whole_passes = _lean_bytes(lean=True) / MIB, _lean_bytes(lean=False) / MIB
    with tempfile.TemporaryDirectory(dir=user_data.cache, prefix="bench-") as folder:
        mixed, plain = _kept_bytes(Path(folder), mixed=True) / MIB, _kept_bytes(Path(folder), mixed=False) / MIB
    return (
        paired_figure(
            f"tensors of a guided U-Net step ({SIDE} × {SIDE}, real size, by shapes)",
            [chunked],
            [whole],
            peer="whole scores",
            unit="GiB",
            limit=0.5,
        ),
        paired_figure(
            "kept for backward, 192 layers (shipped model)",
            [lean],
            [whole_passes],
            peer="plain passes",
            unit="MiB",
            limit=0.67,
        ),
        paired_figure(
            "kept for backward in bf16, layers that learn in float32 (shipped model)",
            [mixed],
            [plain],
            peer="all in bf16",
            unit="MiB",
            limit=1.05,
        ),
    )


def _kept_bytes(folder: Path, *, mixed: bool) -> int:
    components = load_components(find_model(SHIPPED_MODEL), "float32")
    if mixed:
        OffloadedModule(components.unet, folder / "unet", stand_in=torch.bfloat16).offload()
    Adapters(components, TrainingSettings(dataset="none"))
    if not mixed:
        components.unet.to(torch.bfloat16)
    denoiser = Denoiser(components, train_text_encoder=False)
    denoiser.train()
    return kept_bytes_of(denoiser, _batch(components))


def _lean_bytes(*, lean: bool) -> int:
    components = load_components(find_model(SHIPPED_MODEL), "float32")
    Adapters(components, TrainingSettings(dataset="none", targets="attention + feed-forward"))
    denoiser = Denoiser(components, train_text_encoder=False).train()
    if not lean:
        denoiser.lean.remove()
    return kept_bytes_of(denoiser, _batch(components))


def _batch(components: Components) -> TrainingBatch:
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    width = components.unet.config.cross_attention_dim
    return TrainingBatch(
        keys=("none",),
        noisy_BCHW=latents,
        target_BCHW=latents,
        timesteps_B=torch.tensor([500]),
        text_BND=torch.zeros(1, 77, width),
        weights_B=torch.ones(1),
        mask_B1HW=None,
    )
