"""The fused pass computes what peft's passes do, forward and backward, and is taken only where it may be."""

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from studio.training.torch.adapters import fuse


class Model(nn.Module):
    """One linear layer, so that peft has something to put its layer around."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(24, 40, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layer(x)
        return result


def with_lora(*, bias: bool = True, **config: object) -> Model:
    """The same weights each time; B is not zero, so that every gradient counts."""
    torch.manual_seed(3)
    model = Model(bias=bias)
    model.requires_grad_(False)
    inject_adapter_in_model(LoraConfig(r=4, lora_alpha=12, target_modules=["layer"], **config), model)
    nn.init.normal_(model.layer.lora_B["default"].weight)
    return model


def passes(model: Model, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, and gradients of x, A and B."""
    x = x.clone().requires_grad_()
    output = model(x)
    output.backward(torch.linspace(-1, 1, output.numel()).reshape(output.shape))
    grads = [model.layer.lora_A["default"].weight.grad, model.layer.lora_B["default"].weight.grad]
    return [output.detach(), *(grad for grad in (x.grad, *grads) if grad is not None)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7, 24), (2, 5, 24), (2, 3, 4, 24)])
def test_output_and_gradients_are_pefts(shape: tuple[int, ...], bias: bool) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected = passes(with_lora(bias=bias).double(), x)
    fused = with_lora(bias=bias).double()
    assert fuse(fused.layer, adapter="default")
    for found, wanted in zip(passes(fused, x), expected, strict=True):
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_an_input_without_gradient_and_a_view_that_is_not_contiguous_are_fine() -> None:
    fused = with_lora()
    fuse(fused.layer, adapter="default")
    x = torch.randn(24, 6, generator=torch.Generator().manual_seed(1)).T
    torch.testing.assert_close(fused(x), with_lora()(x), rtol=2e-6, atol=2e-6)
    fused(x).sum().backward()
    assert fused.layer.lora_A["default"].weight.grad is not None


@pytest.mark.parametrize("config", [{"use_dora": True}, {"lora_dropout": 0.5}])
def test_dora_and_dropout_keep_pefts_passes(config: dict[str, object]) -> None:
    assert not fuse(with_lora(**config).layer, adapter="default")


def test_under_autocast_pefts_passes_are_taken() -> None:
    fused = with_lora()
    fuse(fused.layer, adapter="default")
    x = torch.randn(3, 24)
    with torch.autocast("cpu", torch.bfloat16):
        found = fused(x)
        assert found.dtype == torch.bfloat16
        assert torch.equal(found, with_lora()(x))
