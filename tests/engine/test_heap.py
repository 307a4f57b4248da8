"""Memory is given back between blocks, and nothing that is computed changes by it."""

import sys

import pytest
import torch

from studio.engine import device as heap
from studio.engine.pipeline import PipelineManager


def test_passes_and_gradients_stay_the_same_and_memory_is_given_back_both_ways(
    fresh_manager: PipelineManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    unet = fresh_manager.components.unet
    given_back: list[bool] = []
    monkeypatch.setattr(heap, "give_back_free_memory", lambda: given_back.append(True))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    text = torch.zeros(1, 77, unet.config.cross_attention_dim)

    def gradient() -> torch.Tensor:
        (found,) = torch.autograd.grad(unet(noise, torch.tensor([500]), text).sample.square().sum(), noise)
        return found

    before = gradient()
    heap.give_back_between_blocks(unet)
    assert torch.equal(gradient(), before)
    num_blocks = len(unet.down_blocks) + 1 + len(unet.up_blocks)
    assert len(given_back) == 2 * num_blocks


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot be asked")
def test_glibc_is_asked() -> None:
    assert heap._c_library() is not None
    heap.give_back_free_memory()
