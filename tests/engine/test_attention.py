"""Attention: every plan gives torch's own numbers; on a device that needs it, contiguous, in chunks, in every pass."""

import copy
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from studio.engine.attention import (
    MPS_MAX_SCORES,
    MPS_SCORES,
    SLICED_MAX_SCORES,
    AttentionPlan,
    attention,
    attention_plan,
    rows_of_chunk,
    set_attention,
)
from studio.engine.denoise import encode_prompts, first_latents
from studio.engine.pipeline import PipelineManager

Tensors = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def by_hand(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The formula itself, in float64."""
    q, k, v = query.double(), key.double(), value.double()
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    return ((scores if mask is None else scores + mask.double()).softmax(-1) @ v).float()


def drawn(rng: random.Random) -> tuple[Tensors, torch.Tensor | None, AttentionPlan]:
    """A case: transposed views, as diffusers hands them over, a mask of some shape or none, and a plan."""
    batch, heads, queries, keys = rng.randint(1, 3), rng.randint(1, 4), rng.randint(1, 70), rng.randint(1, 70)
    width = rng.choice((8, 40, 80))
    query, key, value = (torch.randn(batch, n, heads, width).transpose(1, 2) for n in (queries, keys, keys))
    mask = rng.choice((None, torch.randn(batch, 1, 1, keys), torch.randn(1, heads, queries, keys)))
    largest = batch * heads * queries * keys
    plan = AttentionPlan(
        max_scores=rng.choice((None, 1, rng.randint(1, largest), largest)),
        contiguous=rng.random() < 0.5,
        head_width=rng.choice((None, 64, 96)),
    )
    return (query, key, value), mask, plan


@pytest.mark.parametrize("seed", range(40))
def test_every_plan_gives_the_numbers_and_the_gradients_of_torchs_own(seed: int) -> None:
    torch.manual_seed(seed)
    tensors, mask, plan = drawn(random.Random(seed))
    outputs, gradients = [], []
    for compute in (
        lambda q, k, v: attention(q, k, v, plan=plan, mask=mask),
        lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, mask),
    ):
        leaves = tuple(tensor.detach().clone().requires_grad_() for tensor in tensors)
        attended = compute(*leaves)
        (attended * torch.arange(attended.numel()).reshape(attended.shape).sin()).sum().backward()
        outputs.append(attended.detach())
        gradients.append([leaf.grad for leaf in leaves])
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
    assert torch.allclose(outputs[0], by_hand(*tensors, mask), atol=2e-6)
    for own, reference in zip(*gradients, strict=True):
        assert own is not None
        assert torch.allclose(own, reference, atol=1e-5)


class Watch(TorchDispatchMode):
    """Notes, for each attention that torch computes in whatever pass, the scores and whether all was contiguous.

    A dispatch mode, because modes of functions are off while backward computes passes again.
    """

    def __init__(self) -> None:
        super().__init__()
        self.scores: list[int] = []
        self.contiguous: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        if "attention" in func.name() and "backward" not in func.name():
            query, key, value = args[:3]
            self.scores.append(query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2])
            mask = [m for m in (kwargs or {}).values() if isinstance(m, torch.Tensor)]
            self.contiguous.append(all(t.is_contiguous() for t in (query, key, value, *mask)))
        return func(*args, **(kwargs or {}))


MAC = AttentionPlan(max_scores=2_048, contiguous=True)


def train_pass(manager: PipelineManager, *, checkpointing: bool) -> None:
    unet = copy.deepcopy(manager.components.unet).train()
    unet.conv_in.weight.requires_grad_()
    if checkpointing:
        unet.enable_gradient_checkpointing()
    embeddings = encode_prompts(manager.components, ["brown boots"])
    noise = first_latents(manager.components, torch.Generator().manual_seed(0), width=64, height=64)
    unet(noise, 500, encoder_hidden_states=embeddings, return_dict=False)[0].sum().backward()


def encode(manager: PipelineManager) -> None:
    with torch.inference_mode():
        manager.components.vae.encode(torch.randn(1, 3, 64, 64))


def decode(manager: PipelineManager) -> None:
    with torch.inference_mode():
        manager.components.vae.decode(torch.randn(1, 4, 8, 8))


@pytest.mark.parametrize(
    "work",
    [
        lambda manager: train_pass(manager, checkpointing=False),
        lambda manager: train_pass(manager, checkpointing=True),
        encode,
        decode,
    ],
    ids=["training", "recomputation", "encoding", "decoding"],
)
def test_in_every_pass_attention_is_contiguous_and_in_chunks(
    work: Callable[[PipelineManager], None], manager: PipelineManager
) -> None:
    seen = {}
    for plan in (AttentionPlan(), MAC):
        set_attention(manager.components, plan)
        with Watch() as watch:
            work(manager)
        seen[plan] = watch
    set_attention(manager.components, AttentionPlan())
    guarded, plain = seen[MAC], seen[AttentionPlan()]
    text = {8 * 77 * 77, 77 * 77 * manager.components.text_encoder.config.num_attention_heads}  # not in chunks
    assert guarded.scores
    assert all(scores <= 2_048 for scores in guarded.scores if scores not in text)
    assert max(plain.scores) > 2_048, "without chunks there are more, so the line before proves something"
    one_head = work in (encode, decode)  # contiguous by itself
    assert one_head or not all(plain.contiguous), "and some are not contiguous"
    assert all(c for c, scores in zip(guarded.contiguous, guarded.scores, strict=True) if scores not in text)


def test_the_processor_computes_what_diffusers_own_does(manager: PipelineManager) -> None:
    components = manager.components
    embeddings = encode_prompts(components, ["brown boots"])
    noise = first_latents(components, torch.Generator().manual_seed(0), width=64, height=64)

    def outputs() -> list[torch.Tensor]:
        with torch.inference_mode():
            predicted = components.unet(noise, 500, encoder_hidden_states=embeddings, return_dict=False)[0]
            decoded = components.vae.decode(predicted, return_dict=False)[0]
            return [predicted, decoded, components.vae.encode(decoded).latent_dist.mean]

    own = outputs()
    components.unet.set_attn_processor(AttnProcessor2_0())
    components.vae.set_attn_processor(AttnProcessor2_0())
    theirs = outputs()
    set_attention(components, AttentionPlan())
    for ours, reference in zip(own, theirs, strict=True):
        assert torch.allclose(ours, reference, atol=1e-5)


def test_the_text_encoder_computes_what_transformers_own_does(manager: PipelineManager) -> None:
    encoder = copy.deepcopy(manager.components.text_encoder)
    texts = ["brown boots on white", "red"]
    ids = manager.components.tokenizer(texts, padding="max_length", return_tensors="pt").input_ids
    for mask in (None, torch.ones(2, 77, dtype=torch.long).tril(40)):
        own = encoder(ids, attention_mask=mask)[0]
        encoder.set_attn_implementation("sdpa")
        theirs = encoder(ids, attention_mask=mask)[0]
        encoder.set_attn_implementation("studio")
        assert torch.allclose(own, theirs, atol=1e-6)


@pytest.mark.parametrize("max_scores", [2_048, 2**28])
def test_no_scores_are_kept_for_backward(max_scores: int) -> None:
    query, key, value = (torch.randn(1, 2, 256, 8, requires_grad=True) for _ in range(3))
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attended = attention(query, key, value, plan=AttentionPlan(max_scores=max_scores))
    assert sum(kept) == query.numel() + key.numel() + value.numel()
    attended.sum().backward()


def test_chunks_inside_of_checkpointing_give_the_same_gradients() -> None:
    tensors = [torch.randn(1, 2, 64, 8) for _ in range(3)]
    gradients = []
    for checkpointing in (False, True):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]

        def work(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return attention(q * 2, k, v, plan=MAC)

        out = checkpoint(work, *leaves, use_reentrant=False) if checkpointing else work(*leaves)
        out.square().sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for plain, again in zip(*gradients, strict=True):
        assert torch.equal(plain, again)


@pytest.mark.parametrize("latents", [64, 96, 128, 256])
@pytest.mark.parametrize("batch", [1, 2, 8])
def test_a_chunk_has_no_more_scores_than_it_may(latents: int, batch: int) -> None:
    tokens = latents * latents
    query = torch.empty(batch, 8, tokens, 40, device="meta")
    rows = rows_of_chunk(query, query, MPS_MAX_SCORES)
    assert batch * 8 * rows * tokens <= MPS_MAX_SCORES < batch * 8 * (rows + 1) * tokens


def test_a_mac_always_computes_in_contiguous_chunks_and_slicing_makes_them_smaller_everywhere() -> None:
    cpu, mps = torch.device("cpu"), torch.device("mps")
    tuned = AttentionPlan(max_scores=2**20, contiguous=True)
    assert attention_plan(cpu) == AttentionPlan()
    assert attention_plan(mps) == AttentionPlan(max_scores=MPS_SCORES, contiguous=True)
    assert MPS_SCORES <= MPS_MAX_SCORES
    assert attention_plan(mps, tuned=tuned) == tuned
    assert attention_plan(cpu, slicing=True) == AttentionPlan(max_scores=SLICED_MAX_SCORES)
    assert attention_plan(mps, slicing=True) == AttentionPlan(max_scores=SLICED_MAX_SCORES, contiguous=True)
