"""Attaching LoRAs to a loaded model: one hook on each layer adds the sum of all that act.

The base weights are never touched, so taking a LoRA off gives the base back to the bit, at once, and there is no
second copy of anything. Several LoRAs are stacked along their rank: one pass, whatever their number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from studio.engine.lora_file import Lora, LoraPair, read_lora
from studio.engine.models import Components
from studio.errors import LoraError
from studio.loras.library import LoraLibrary
from studio.results import LoraUsed
from studio.settings import LoraChoice

KEPT_FILES = 8  # read LoRAs that stay in memory: about 6 MB each at rank 8


class LinearUpdate:
    """Adds x · downᵀ · upᵀ to a linear layer's output, in place: there is no copy of the output."""

    def __init__(self, down: torch.Tensor, up: torch.Tensor) -> None:
        self._down, self._up_transposed = down, up.T.contiguous()

    def __call__(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        hidden = functional.linear(args[0], self._down)
        if not output.is_contiguous():
            return output + hidden @ self._up_transposed
        flat = output.view(-1, output.shape[-1])
        flat.addmm_(hidden.reshape(-1, hidden.shape[-1]), self._up_transposed)
        return output


class ConvUpdate:
    """The same for a convolution: its own window for down, 1 × 1 for up."""

    def __init__(self, down: torch.Tensor, up: torch.Tensor, module: nn.Conv2d) -> None:
        self._down, self._up = down, up
        self._module = module

    def __call__(self, module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        own = self._module
        hidden = functional.conv2d(args[0], self._down, None, own.stride, own.padding, own.dilation)
        return output.add_(functional.conv2d(hidden, self._up))


@dataclass
class LoraLayers:
    """The LoRAs of one loaded model."""

    components: Components
    library: LoraLibrary
    _kept: dict[tuple[str, int, int], Lora] = field(default_factory=dict)
    _active: tuple[tuple[Lora, float], ...] = ()
    _handles: list[RemovableHandle] = field(default_factory=list)

    def use(self, choices: Sequence[LoraChoice]) -> tuple[LoraUsed, ...]:
        """Let exactly these act. Strength 0 is left out: it is the base, to the bit.

        Raises:
            LoraError, WeightsFileError: where one cannot be used; those that acted before still do.
        """
        wanted = tuple((self.read(name), strength) for name, strength in _summed(choices).items() if strength != 0)
        if wanted != self._active:
            handles = self._attach(wanted)
            for handle in self._handles:
                handle.remove()
            self._handles, self._active = handles, wanted
        return tuple(LoraUsed(name=lora.name, strength=s, sha256=lora.sha256) for lora, s in self._active)

    def read(self, name: str) -> Lora:
        """A LoRA of the library, checked against the model; read once, and again when its file has changed."""
        path = self.library.find(name)
        state = path.stat()
        key = (str(path), state.st_mtime_ns, state.st_size)
        if key not in self._kept:
            while len(self._kept) >= KEPT_FILES:
                del self._kept[next(iter(self._kept))]
            self._kept[key] = read_lora(name, path, self.components)
        return self._kept[key]

    @property
    def text_state(self) -> tuple[tuple[str, float], ...]:
        """What changes the text encoder now; embeddings that were made in another state do not hold."""
        return tuple((lora.sha256, strength) for lora, strength in self._active if lora.text_encoder)

    def _attach(self, wanted: Sequence[tuple[Lora, float]]) -> list[RemovableHandle]:
        handles: list[RemovableHandle] = []
        try:
            handles += _hook(self.components.unet, [(lora.unet, s) for lora, s in wanted])
            handles += _hook(self.components.text_encoder, [(lora.text_encoder, s) for lora, s in wanted])
        except RuntimeError as error:  # most often: no memory
            for handle in handles:
                handle.remove()
            raise LoraError(f"The LoRAs could not be attached: {error}") from error
        return handles


def _summed(choices: Sequence[LoraChoice]) -> dict[str, float]:
    """A LoRA that is chosen twice acts with the sum of its strengths."""
    strengths: dict[str, float] = {}
    for choice in choices:
        strengths[choice.name] = strengths.get(choice.name, 0.0) + choice.strength
    return strengths


def _hook(part: nn.Module, loras: Sequence[tuple[Mapping[str, LoraPair], float]]) -> list[RemovableHandle]:
    """One hook for each layer that any of them changes."""
    paths = dict.fromkeys(path for pairs, _ in loras for path in pairs)
    handles = []
    for path in paths:
        module = part.get_submodule(path)
        stack = [(pairs[path], strength) for pairs, strength in loras if path in pairs]
        down = torch.cat([pair.down for pair, _ in stack])
        up = torch.cat([pair.up * (pair.scale * strength) for pair, strength in stack], dim=1)
        update = ConvUpdate(down, up, module) if isinstance(module, nn.Conv2d) else LinearUpdate(down, up)
        handles.append(module.register_forward_hook(update))
    return handles
