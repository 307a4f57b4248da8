"""Attention, the one way in which U-Net, VAE and text encoder compute it.

A device computes it by its `AttentionPlan`. On CPU and CUDA torch's fused kernels do it whole. Apple's GPUs have none
for Stable Diffusion's head widths (40, 80, 160): they build the whole matrix of scores, 16 GiB at 1024², and from 4 GiB
on they abort or compute wrong numbers (pytorch #149261, #179352, #197636). There the queries go in chunks, which is
exact: the softmax of a row needs that row alone. Nor are they right for tensors that are not contiguous (pytorch
#163597, #181133), as diffusers' and transformers' attention hand over.

It stands in the attention processors and not in a torch mode: modes are off while backward computes passes again.

Shapes: B images, H heads, N queries, M keys, D width of a head.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers import AttentionInterface, CLIPTextModel
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from studio.engine.models import Components

# The most scores (B · H · n · M) that a chunk may have on Apple's GPUs: 1 GiB of float32. Their cap is 2³⁰
# (ComfyUI #14837), and backward holds a chunk three times.
MPS_MAX_SCORES = 2**28
MPS_SCORES = 2**26  # where the device check has not measured what is fastest
# What "attention slicing" chooses: chunks of 64 MiB.
SLICED_MAX_SCORES = 2**24
TEXT_ATTENTION = "studio"
Compute = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class AttentionPlan:
    """How a device computes attention. Every plan gives the same numbers, up to rounding.

    Attributes:
        max_scores: the most scores of one chunk of queries; None where the device does it whole.
        contiguous: whether the device needs contiguous tensors.
        head_width: a width to which narrower heads are filled up with zeros, where that reaches a faster kernel.
    """

    max_scores: int | None = None
    contiguous: bool = False
    head_width: int | None = None


def attention_plan(device: torch.device, *, tuned: AttentionPlan | None = None, slicing: bool = False) -> AttentionPlan:
    """The plan of a device.

    Args:
        tuned: what the device check found to be the fastest that is right on this machine.
        slicing: the user's wish to save memory: small chunks, on every device.
    """
    plan = AttentionPlan()
    if device.type == "mps":
        plan = tuned or AttentionPlan(max_scores=MPS_SCORES, contiguous=True)
    return replace(plan, max_scores=SLICED_MAX_SCORES) if slicing else plan


def set_attention(components: Components, plan: AttentionPlan) -> None:
    """Compute all attention of a model by the plan: in every thread, under checkpointing, in backward."""
    processor = PlannedAttention(plan)
    components.unet.set_attn_processor(processor)
    components.vae.set_attn_processor(processor)
    set_text_attention(components.text_encoder)


def attention_of_model(unet: UNet2DConditionModel) -> AttentionPlan:
    """The plan by which a model computes attention."""
    processor = next(iter(unet.attn_processors.values()))
    assert isinstance(processor, PlannedAttention), "set_attention comes first"
    return processor.plan


def set_text_attention(text_encoder: CLIPTextModel) -> None:
    """Compute a text encoder's attention by the plan of whatever device it is on: 77 tokens need no chunks."""
    AttentionInterface.register(TEXT_ATTENTION, _text_attention)
    AttentionMaskInterface.register(TEXT_ATTENTION, sdpa_mask)
    text_encoder.set_attn_implementation(TEXT_ATTENTION)


class PlannedAttention:
    """diffusers' attention processor for U-Net and VAE of Stable Diffusion 1.x: self and cross attention.

    Args:
        compute: in place of `attention`, for whoever only counts what it takes.
    """

    def __init__(self, plan: AttentionPlan, compute: Compute | None = None) -> None:
        self.plan = plan
        self._compute = compute or attention

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, N, C), or (B, C, height, width), of the same shape as `hidden_states`."""
        residual, shape = hidden_states, hidden_states.shape
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        if len(shape) == 4:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attn.norm_cross:
            source = attn.norm_encoder_hidden_states(encoder_hidden_states)
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, source.shape[1], len(source))
            attention_mask = attention_mask.unflatten(0, (len(source), attn.heads))
        query, key, value = (
            projected.unflatten(2, (attn.heads, -1)).transpose(1, 2)
            for projected in (attn.to_q(hidden_states), attn.to_k(source), attn.to_v(source))
        )
        if attn.norm_q is not None:
            query = attn.norm_q(query)
        if attn.norm_k is not None:
            key = attn.norm_k(key)
        attended = self._compute(query, key, value, plan=self.plan, mask=attention_mask)
        result: torch.Tensor = attn.to_out[1](attn.to_out[0](attended.transpose(1, 2).flatten(2)))
        if len(shape) == 4:
            result = result.transpose(1, 2).reshape(shape)
        if attn.residual_connection:
            result = result + residual
        return result / attn.rescale_output_factor if attn.rescale_output_factor != 1 else result


def _text_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    is_causal: bool = False,
    **options: Any,  # noqa: ANN401 - transformers' own: dropout, which CLIP does not have, and what other models need
) -> tuple[torch.Tensor, None]:
    """transformers' attention function, (B, N, H, D); a mask, where there is one, has the causal one in it."""
    attended = attention(
        query,
        key,
        value,
        plan=attention_plan(query.device),
        mask=attention_mask,
        is_causal=is_causal and attention_mask is None,
        scale=scaling,
    )
    return attended.transpose(1, 2).contiguous(), None


def attention(
    query_BHND: torch.Tensor,
    key_BHMD: torch.Tensor,
    value_BHMD: torch.Tensor,
    *,
    plan: AttentionPlan,
    mask: torch.Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    """(B, H, N, D): softmax(q · kᵀ · scale + mask) · v (Vaswani et al., arXiv 1706.03762), as the plan says.

    Args:
        mask: of two dimensions or more, broadcasts to (B, H, N, M): added where it is of floats; a boolean one is True
            where a query sees a key.
        is_causal: each query sees the keys up to its own place; whole, and not with a mask.
        scale: 1 / √D where None.
    """
    scale = 1 / math.sqrt(query_BHND.shape[-1]) if scale is None else scale
    width = query_BHND.shape[-1]
    mask = mask.contiguous() if mask is not None and plan.contiguous else mask
    rows = query_BHND.shape[2]
    if plan.max_scores is not None:
        rows = rows_of_chunk(query_BHND, key_BHMD, plan.max_scores)
    # Of a single chunk too the scores would be kept for backward. Causal attention is the text encoder's: 77 × 77.
    if is_causal or plan.max_scores is None or (rows >= query_BHND.shape[2] and not torch.is_grad_enabled()):
        query, key, value = (_as_planned(tensor, plan) for tensor in (query_BHND, key_BHMD, value_BHMD))
        attended = functional.scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal, scale=scale)
    else:
        inputs = query_BHND, key_BHMD, value_BHMD, mask
        attended = _ChunkedAttention.apply(*inputs, plan, rows, scale)  # type: ignore[no-untyped-call]
    return attended if attended.shape[-1] == width else attended[..., :width]


def _as_planned(tensor_BHND: torch.Tensor, plan: AttentionPlan) -> torch.Tensor:
    missing = 0 if plan.head_width is None else plan.head_width - tensor_BHND.shape[-1]
    if missing > 0:
        tensor_BHND = functional.pad(tensor_BHND, (0, missing))
    return tensor_BHND.contiguous() if plan.contiguous else tensor_BHND


def rows_of_chunk(query_BHND: torch.Tensor, key_BHMD: torch.Tensor, max_scores: int) -> int:
    """How many queries a chunk has, so that its scores are `max_scores` at most; one at least."""
    batch, heads, _, _ = query_BHND.shape
    return max(1, max_scores // (batch * heads * key_BHMD.shape[2]))


class _ChunkedAttention(torch.autograd.Function):
    """Attention of some queries after the other. Keeps query, key and value, and no scores, for backward.

    They are kept as they came, not as the plan wants them: what they are views of may be made again (`engine/lean.py`).
    """

    @staticmethod
    def forward(
        context: Any,  # noqa: ANN401 - torch's own
        query_BHND: torch.Tensor,
        key_BHMD: torch.Tensor,
        value_BHMD: torch.Tensor,
        mask: torch.Tensor | None,
        plan: AttentionPlan,
        rows: int,
        scale: float,
    ) -> torch.Tensor:
        context.save_for_backward(query_BHND, key_BHMD, value_BHMD, mask)
        context.plan, context.rows, context.scale = plan, rows, scale
        query, key, value = (_as_planned(tensor, plan) for tensor in (query_BHND, key_BHMD, value_BHMD))
        attended = torch.empty_like(query)
        for start in range(0, query.shape[2], rows):
            part = slice(start, start + rows)
            attended[:, :, part] = functional.scaled_dot_product_attention(
                query[:, :, part].contiguous(), key, value, _rows_of(mask, part), scale=scale
            )
        return attended

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad_BHND: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        *given, mask = context.saved_tensors
        query, key, value = (_as_planned(tensor, context.plan) for tensor in given)
        query_grad, key_grad, value_grad = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        key, value = key.detach().requires_grad_(), value.detach().requires_grad_()
        for start in range(0, query.shape[2], context.rows):
            part = slice(start, start + context.rows)
            with torch.enable_grad():
                queries = query[:, :, part].detach().contiguous().requires_grad_()
                attended = functional.scaled_dot_product_attention(
                    queries, key, value, _rows_of(mask, part), scale=context.scale
                )
            own = torch.autograd.grad(attended, (queries, key, value), grad_BHND[:, :, part].contiguous())
            query_grad[:, :, part] = own[0]
            key_grad += own[1]
            value_grad += own[2]
        width = given[0].shape[-1]
        return query_grad[..., :width], key_grad[..., :width], value_grad[..., :width], None, None, None, None


def _rows_of(mask: torch.Tensor | None, part: slice) -> torch.Tensor | None:
    """The mask of some queries; one that is the same for all stays."""
    if mask is None or mask.shape[-2] == 1:
        return mask
    return mask[..., part, :].contiguous()
