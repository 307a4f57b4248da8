"""What a pass will take, by its shapes alone: the model's layers run on torch's meta device, where nothing is stored.

Every tensor's storage is counted from the operation that makes it until nobody holds it any longer, so the figure
follows the attention plan, the batch and the size. What libraries take beside tensors (workspaces of convolutions, gaps
of an allocator) is not in it.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from studio.core.errors import NotEnoughMemoryError
from studio.core.language import _
from studio.core.text import gigabytes
from studio.engine.attention import AttentionPlan, PlannedAttention, attention, rows_of_chunk
from studio.engine.denoise import is_tiled, native_size
from studio.engine.lean import LeanPasses
from studio.engine.memory import free_bytes, total_bytes
from studio.engine.model_files import TILE_PIXELS
from studio.engine.models import Components

FUSED = AttentionPlan(max_scores=0)  # no scores are stored at all
TOKENS = 77
UNCOUNTED_PIXELS = 512 * 512
TILED_COPIES = 4  # of the image, while its overlapping tiles are blended and joined


class MemoryCount(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own
    """Counts the bytes of tensors that are made in a `with` block: those now, and the most at one moment.

    Attributes:
        largest_numel: of the largest tensor; `largest_bytes` likewise.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now_bytes = self.peak_bytes = self.largest_numel = self.largest_bytes = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - torch's own signature
        given = {t.untyped_storage()._cdata for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in given:
                self._take(tensor)
        return result

    def _take(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._seen:
            return
        self._seen.add(storage._cdata)
        num_bytes = storage.nbytes()
        self.now_bytes += num_bytes
        self.peak_bytes = max(self.peak_bytes, self.now_bytes)
        self.largest_numel = max(self.largest_numel, tensor.numel())
        self.largest_bytes = max(self.largest_bytes, num_bytes)
        weakref.finalize(storage, self._give_back, storage._cdata, num_bytes)

    def _give_back(self, key: int, num_bytes: int) -> None:
        self._seen.discard(key)
        self.now_bytes -= num_bytes


class ImageRoom:
    """Whether there is memory for an image of the loaded model. Each size is counted once; usual ones not at all."""

    def __init__(self, components: Components, device: torch.device, plan: AttentionPlan) -> None:
        self._components = components
        self._device = device
        self._plan = counted_plan(device, plan)
        self._counted: dict[tuple[int, int, bool], int] = {}

    def check(self, *, width: int, height: int, guided: bool) -> str:
        """What an image above 512² and above the model's own size takes, in a sentence; empty for others.

        Raises:
            NotEnoughMemoryError: where the device could not give as much, even with nothing else running.
        """
        own_width, own_height = native_size(self._components)
        if width * height <= max(UNCOUNTED_PIXELS, own_width * own_height):
            return ""
        size = (width, height, guided)
        if size not in self._counted:
            self._counted[size] = generation_bytes(
                self._components, width=width, height=height, guided=guided, plan=self._plan
            )
        needed, free, total = self._counted[size], free_bytes(self._device), total_bytes(self._device)
        picture = {"width": width, "height": height, "needed": gigabytes(needed)}
        if needed + self._weights_bytes() > total:
            raise NotEnoughMemoryError(
                _(
                    "An image of {width} × {height} takes about {needed} beside the model and its {weights}, and this "
                    "device has {total} in all. Choose a smaller width and height.",
                    weights=gigabytes(self._weights_bytes()),
                    total=gigabytes(total),
                    **picture,
                )
            )
        if needed > free:
            return _(
                "An image of {width} × {height} takes about {needed} beside the model, and only {free} are free: it "
                "may become very slow. Close other programs, or choose a smaller width and height.",
                free=gigabytes(free),
                **picture,
            )
        return _(
            "An image of {width} × {height} takes about {needed} beside the model; {free} are free.",
            free=gigabytes(free),
            **picture,
        )

    def _weights_bytes(self) -> int:
        return sum(p.nbytes for module in self._components.modules().values() for p in module.parameters())


def _count_attention(
    query_BHND: torch.Tensor,
    key_BHMD: torch.Tensor,
    value_BHMD: torch.Tensor,
    *,
    plan: AttentionPlan,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """In place of `attention`: one chunk of many, because all take the same one after the other."""
    if plan.max_scores is None:
        return attention(query_BHND, key_BHMD, value_BHMD, plan=plan, mask=mask)
    if plan.contiguous:
        query_BHND, key_BHMD, value_BHMD = query_BHND.contiguous(), key_BHMD.contiguous(), value_BHMD.contiguous()
    rows = rows_of_chunk(query_BHND, key_BHMD, plan.max_scores) if plan.max_scores else 0
    result: torch.Tensor = _OneChunk.apply(query_BHND, key_BHMD, value_BHMD, rows)  # type: ignore[no-untyped-call]
    return result


class _OneChunk(torch.autograd.Function):
    """The shapes of attention and of its gradients, and for a moment the tensors of one chunk of queries."""

    @staticmethod
    def forward(
        context: Any,  # noqa: ANN401 - torch's own
        query_BHND: torch.Tensor,
        key_BHMD: torch.Tensor,
        value_BHMD: torch.Tensor,
        rows: int,
    ) -> torch.Tensor:
        context.save_for_backward(query_BHND, key_BHMD, value_BHMD)
        context.rows = rows
        attended = torch.empty_like(query_BHND)
        if rows:
            attention(query_BHND[:, :, :rows].contiguous(), key_BHMD, value_BHMD, plan=AttentionPlan())
        return attended

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad_BHND: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        query, key, value = context.saved_tensors
        gradients = tuple(torch.empty_like(tensor) for tensor in (query, key, value))
        if context.rows:
            with torch.enable_grad():
                leaves = [t.detach().requires_grad_() for t in (query[:, :, : context.rows].contiguous(), key, value)]
                attended = attention(*leaves, plan=AttentionPlan())
            torch.autograd.grad(attended, leaves, grad_BHND[:, :, : context.rows])
        return *gradients, None


def counted_plan(device: torch.device, plan: AttentionPlan) -> AttentionPlan:
    """The plan by which a device's attention is counted: CPU and CUDA store no scores where they compute it whole."""
    return FUSED if plan.max_scores is None and device.type != "mps" else plan


def generation_bytes(components: Components, *, width: int, height: int, guided: bool, plan: AttentionPlan) -> int:
    """The most that an image takes beside the weights: a step of the U-Net, or the decoding."""
    batch = 2 if guided else 1
    step = count_unet(components.unet, width=width, height=height, batch=batch, plan=plan)
    decoding = count_decoding(components.vae, width=width, height=height, plan=plan)
    return max(step.peak_bytes, decoding.peak_bytes)


def count_unet(unet: UNet2DConditionModel, *, width: int, height: int, batch: int, plan: AttentionPlan) -> MemoryCount:
    """A pass without gradients: of a guided step where `batch` is 2. `width` and `height` in pixels."""
    empty = _empty_unet(unet, plan, unet.dtype).eval()
    count = MemoryCount()
    with torch.no_grad(), count:
        empty(*_inputs(empty, width=width, height=height, batch=batch))
    return count


def count_training_step(
    unet: UNet2DConditionModel,
    *,
    width: int,
    height: int,
    batch: int,
    plan: AttentionPlan,
    checkpointing: bool,
    dtype: torch.dtype = torch.float32,
) -> MemoryCount:
    """Forward and backward of a step whose layers that learn are in attention, without their own few megabytes.

    Args:
        dtype: what the passes are computed in.
    """
    empty = _empty_unet(unet, plan, dtype).train()
    for name, parameter in empty.named_parameters():
        parameter.requires_grad_(name.endswith(".to_q.weight"))
    if checkpointing:
        empty.enable_gradient_checkpointing()
    count, lean = MemoryCount(), LeanPasses(empty)
    with count:
        with lean.kept_leanly():
            prediction = empty(*_inputs(empty, width=width, height=height, batch=batch))[0]
        prediction.sum().backward()
    return count


def count_decoding(vae: AutoencoderKL, *, width: int, height: int, plan: AttentionPlan) -> MemoryCount:
    """The VAE's decoding of one image; of one that is decoded in tiles, a tile and what they are put together from."""
    tiled = is_tiled(width=width, height=height)
    tile_width, tile_height = (TILE_PIXELS, TILE_PIXELS) if tiled else (width, height)
    with torch.device("meta"):
        empty: AutoencoderKL = AutoencoderKL.from_config(vae.config).to(vae.dtype).eval()
    empty.set_attn_processor(PlannedAttention(plan, _count_attention))
    scale = 2 ** (len(vae.config.block_out_channels) - 1)
    count = MemoryCount()
    with torch.no_grad(), count, torch.device("meta"):
        tiles = torch.empty(TILED_COPIES if tiled else 0, 3, height, width, dtype=vae.dtype)
        rows, columns = tile_height // scale, tile_width // scale
        empty.decode(torch.empty(1, vae.config.latent_channels, rows, columns, dtype=vae.dtype))
        del tiles
    return count


def _empty_unet(unet: UNet2DConditionModel, plan: AttentionPlan, dtype: torch.dtype) -> UNet2DConditionModel:
    """Of the same configuration, without weights."""
    with torch.device("meta"):
        empty: UNet2DConditionModel = UNet2DConditionModel.from_config(unet.config).to(dtype)
    empty.requires_grad_(False)
    empty.set_attn_processor(PlannedAttention(plan, _count_attention))
    return empty


def _inputs(
    unet: UNet2DConditionModel, *, width: int, height: int, batch: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    with torch.device("meta"):
        sample = torch.empty(batch, unet.config.in_channels, height // 8, width // 8, dtype=unet.dtype)
        embeddings = torch.empty(batch, TOKENS, unet.config.cross_attention_dim, dtype=unet.dtype)
        return sample, torch.empty((), dtype=torch.long), embeddings
