"""What a Mac needs, shown on the CPU: the logic is the same, the device is not."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own name for it
from torch.overrides import TorchFunctionMode

from studio.engine.denoise import first_latents
from studio.engine.mps import ContiguousAttention, attention_context
from studio.engine.pipeline import PipelineManager
from studio.engine.text import encode_prompts


class Spy(TorchFunctionMode):
    """Notes for each attention whether query, key and value were contiguous."""

    def __init__(self) -> None:
        super().__init__()
        self.contiguous: list[bool] = []

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:  # noqa: ANN401 - torch's own signature
        if func is F.scaled_dot_product_attention:
            tensors = [*args[:3], *(v for k, v in (kwargs or {}).items() if k in ("query", "key", "value"))]
            self.contiguous.append(all(t.is_contiguous() for t in tensors))
        return func(*args, **(kwargs or {}))


def predict(manager: PipelineManager) -> torch.Tensor:
    """One forward pass through text encoder, UNet and VAE."""
    components = manager.components
    embeddings = encode_prompts(components, ["brown boots"])
    noise = first_latents(components, torch.Generator().manual_seed(0), width=128, height=128)
    prediction = components.unet(noise, 500, encoder_hidden_states=embeddings, return_dict=False)[0]
    return components.vae.decode(prediction, return_dict=False)[0]


def test_every_attention_gets_contiguous_tensors_inside_the_context(manager: PipelineManager) -> None:
    with torch.inference_mode():
        plain, guarded = Spy(), Spy()
        with plain:
            expected = predict(manager)
        with guarded, ContiguousAttention():
            result = predict(manager)
    assert plain.contiguous, "attention was seen at all"
    assert not all(plain.contiguous), "without the context some are not contiguous, so the next line proves something"
    assert len(guarded.contiguous) == len(plain.contiguous)
    assert all(guarded.contiguous)
    assert torch.allclose(result, expected, atol=1e-5)


def test_the_context_is_only_entered_on_mps() -> None:
    assert isinstance(attention_context(torch.device("mps")), ContiguousAttention)
    assert not isinstance(attention_context(torch.device("cpu")), ContiguousAttention)
