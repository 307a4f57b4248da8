"""LoRA dropout draws the same mask where a pass is computed again, whatever the device's own random state does."""

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from studio.engine.lora_layers import SeededDropout


def gradient(module: nn.Module, x: torch.Tensor, *, checkpointing: bool) -> torch.Tensor:
    torch.manual_seed(3)
    leaf = x.clone().requires_grad_()
    out = checkpoint(module, leaf, use_reentrant=False) if checkpointing else module(leaf)
    out.square().sum().backward()
    assert leaf.grad is not None
    return leaf.grad


def test_the_recomputed_mask_is_the_first_ones() -> None:
    module, x = nn.Sequential(nn.Linear(8, 64), SeededDropout(0.5), nn.Linear(64, 8)).train(), torch.randn(4, 8)
    assert torch.equal(gradient(module, x, checkpointing=True), gradient(module, x, checkpointing=False))


def test_it_depends_on_the_cpus_random_state_alone() -> None:
    """A device's own state, which checkpointing does not keep on Apple's GPUs, is not even touched."""
    dropout, x = SeededDropout(0.5).train(), torch.ones(1000)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = dropout(x)
    assert not torch.equal(dropout(x), first), "every call drops others"
    torch.set_rng_state(state)
    assert torch.equal(dropout(x), first)
    drawn = torch.get_rng_state()
    torch.set_rng_state(state)
    torch.randint(2**62, ())
    assert torch.equal(torch.get_rng_state(), drawn), "one number is drawn for a whole mask"


def test_a_share_is_dropped_and_the_rest_is_raised() -> None:
    dropout, x = SeededDropout(0.25), torch.ones(100_000)
    torch.manual_seed(0)
    dropped = dropout.train()(x)
    assert set(dropped.unique().tolist()) == {0.0, float(torch.tensor(1 / 0.75))}
    assert abs(float(dropped.mean()) - 1) < 0.01
    assert dropout.eval()(x) is x
    assert SeededDropout(0.0).train()(x) is x
    assert dropped.dtype == x.dtype and dropout.train()(x.bfloat16()).dtype == torch.bfloat16
