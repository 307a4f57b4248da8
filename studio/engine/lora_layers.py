"""LoRA layers attached to a loaded model and taken off again, when the base comes back to the bit; LoRA dropout.

The base's weights are never changed. On a large model one hook on each layer adds the sum of all LoRAs that act, so
there is no second copy of anything. On a small one each layer gets a sum of its own in place of its weights, which
lie aside meanwhile: a few megabytes, and no hook to wait for; taken off, small sums are kept for the next time, so
that base and LoRA in turn cost nothing beside the images. Several LoRAs are stacked along their rank: one pass,
whatever their number. A layer that a DoRA changes always gets a sum: its weights change in length, not by an addition.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from studio.core.errors import LoraError
from studio.core.language import _
from studio.core.results import LoraUsed
from studio.core.settings import LoraChoice
from studio.engine.lora_file import LayerWeights, LoraWeights, modules_of, read_weights
from studio.engine.memory import SUM_LIMIT_BYTES, sum_limit
from studio.engine.models import Components
from studio.loras.keys import Part, layer_name
from studio.loras.library import LoraLibrary, file_notes
from studio.loras.weights_file import file_state, read_header, sha256_of, weights_hash

_SEEDS = 2**62


class SeededDropout(nn.Module):
    """Dropout (Srivastava et al., 2014) with a mask that is a function of a seed, drawn from the CPU's random state.

    `torch.utils.checkpoint` brings the CPU's random state back for the recomputation, on every device; that of Apple's
    GPUs it does not (pytorch #127676): there the recomputed pass would drop other numbers than the pass did. So no
    device's own random state is used, and none has to be saved.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The same shape; in training a share of the numbers is 0, the others are larger by as much."""
        if not self.training or self.probability == 0:
            return x
        generator = torch.Generator(x.device).manual_seed(int(torch.randint(_SEEDS, ())))
        kept = torch.empty_like(x, requires_grad=False).bernoulli_(1 - self.probability, generator=generator)
        return x * kept.div_(1 - self.probability)


Changeable = nn.Linear | nn.Conv2d | nn.GroupNorm | nn.LayerNorm
Stack = Sequence[tuple[LayerWeights, float]]  # with their strengths
KEPT_FILES = 8  # read LoRAs that stay in memory: about 6 MB each at rank 8
KEPT_BYTES = 2**30  # of them together: a LyCORIS file may be a gigabyte in memory


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


class WeightSum:
    """Puts the changed weight and bias in the place of a layer's own until it is removed; what lies aside is held."""

    def __init__(self, module: Changeable, stack: Stack) -> None:
        self._module, weight, bias = module, module.weight.data, module.bias
        self._aside: dict[str, torch.Tensor] = {}
        with torch.inference_mode(False):
            self._aside["weight"] = changed_weight(weight, stack).to(weight.dtype)
            if bias is not None and any(layer.bias is not None for layer, __ in stack):
                self._aside["bias"] = changed_bias(bias.data, stack).to(bias.dtype)
        self.put()

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._aside.values())

    def fits(self) -> bool:
        """Whether the layer is still where it was, in the same precision."""
        own, aside = self._module.weight, self._aside["weight"]
        return (own.device, own.dtype) == (aside.device, aside.dtype)

    def put(self) -> None:
        """Change the layer; the base's weight and bias lie aside from now on."""
        for name, tensor in self._aside.items():
            parameter = self._module.get_parameter(name)
            parameter.data, self._aside[name] = tensor, parameter.data

    remove = put  # what lies aside is the base's then


@torch.no_grad()
def changed_bias(bias: torch.Tensor, stack: Stack) -> torch.Tensor:
    """A layer's bias after all updates: float32."""
    current = bias.float()
    for layer, strength in stack:
        if layer.bias is not None:
            current = current + strength * layer.bias.to(bias.device).float()
    return current


@torch.no_grad()
def changed_weight(weight: torch.Tensor, stack: Stack) -> torch.Tensor:
    """A layer's weight after all updates, one after the other, each on what the one before it left: float32.

    A LoRA adds strength · scale · up @ down, (IA)³ strength · factor · the weight itself. A DoRA (arXiv 2402.09353)
    sets the length of each output's weights after the addition to its magnitude, and acts by `strength` of the way
    there.
    """
    current = weight.float()
    for layer, strength in stack:
        change = layer.scale * (layer.up.flatten(1).float() @ layer.down.flatten(1).float())
        change = change.to(weight.device).reshape(weight.shape)
        if layer.factor is not None:
            change = change + current * layer.factor.to(weight.device).float()
        if layer.magnitude is None:
            current = current + strength * change
            continue
        directions = functional.normalize((current + change).flatten(1), dim=1)
        lengthened = layer.magnitude.to(weight.device).float()[:, None] * directions
        current = current + strength * (lengthened.reshape(weight.shape) - current)
    return current


@dataclass(frozen=True, eq=False)
class Lora:
    """A file that fits the model, read whole: for each layer's module path its weights, in the model's precision.

    `changes` says how much of the model it is about, `notes` what not to expect of it.
    """

    name: str
    path: Path
    sha256: str
    weights_hash: str
    unet: Mapping[str, LayerWeights]
    text_encoder: Mapping[str, LayerWeights]
    changes: str = ""
    notes: tuple[str, ...] = ()

    @property
    def num_parameters(self) -> int:
        return sum(tensor.numel() for tensor in self._tensors())

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self._tensors())

    def _tensors(self) -> list[torch.Tensor]:
        layers = [*self.unet.values(), *self.text_encoder.values()]
        every = [t for layer in layers for t in (layer.down, layer.up, layer.magnitude, layer.factor, layer.bias)]
        return [tensor for tensor in every if tensor is not None]


def read_lora(name: str, path: Path, components: Components) -> Lora:
    """Read a LoRA, check all of it, and bring it to the model's device and precision; the model is not touched.

    Raises:
        LoraError: where it is of another kind, is not complete, does not fit the model, or is not finite.
        WeightsFileError: where the file is damaged or no safetensors file.
    """
    weights = read_weights(name, path, components)
    found: dict[Part, dict[str, LayerWeights]] = {"unet": {}, "text_encoder": {}}
    modules = modules_of(components)
    for part, module_path, layer in weights.layers():
        __, module = modules[part][layer_name(module_path)]
        found[part][module_path] = _like(layer, module.weight)
    num_unet_layers = sum(isinstance(module, nn.Linear | nn.Conv2d) for __, module in modules["unet"].values())
    header = read_header(path)
    changes = _changes(name, weights, num_unet_layers=num_unet_layers)
    notes = file_notes(header)
    if not any(layer.acts for *__, layer in weights.layers()):
        idle = _("{name} changes nothing: its weights are all zero, as before the first training step.", name=name)
        notes = (idle, *notes)
    return Lora(name, path, sha256_of(path), weights_hash(header), found["unet"], found["text_encoder"], changes, notes)


def _like(layer: LayerWeights, weight: torch.Tensor) -> LayerWeights:
    """On the device and in the precision of the weight that it changes."""
    place = (weight.device, weight.dtype)
    moved: dict[str, Any] = {name: t.to(*place) for name, t in vars(layer).items() if isinstance(t, torch.Tensor)}
    return replace(layer, **moved)


def _changes(name: str, weights: LoraWeights, *, num_unet_layers: int) -> str:
    """How much of the model it is about."""
    unet = _(
        "{num_changed} of the U-Net's {num_layers} layers ({share:.0f}%)",
        num_changed=len(weights.unet),
        num_layers=num_unet_layers,
        share=100 * len(weights.unet) / num_unet_layers,
    )
    if num_text := len(weights.text_encoder):
        return _("{name} changes {unet} and {num_text} of the text encoder's.", name=name, unet=unet, num_text=num_text)
    return _("{name} changes {unet}; the text encoder stays as it is.", name=name, unet=unet)


Acting = tuple[tuple[Lora, float], ...]  # with their strengths
Attached = WeightSum | RemovableHandle  # to one layer


@dataclass
class LoraLayers:
    """The LoRAs of one loaded model."""

    components: Components
    library: LoraLibrary
    sum_limit_bytes: int | None = None
    held: dict[str, Lora] = field(default_factory=dict)  # what these names mean, whatever becomes of their files
    _kept: dict[tuple[str, tuple[int, ...]], Lora] = field(default_factory=dict)
    _active: Acting = ()
    _attached: list[Attached] = field(default_factory=list)
    _sums: dict[Acting, list[WeightSum]] = field(default_factory=dict)  # of LoRAs that do not act now

    def use(self, choices: Sequence[LoraChoice]) -> tuple[LoraUsed, ...]:
        """Let exactly these act. Strength 0 is left out: it is the base, to the bit.

        Raises:
            LoraError, WeightsFileError: where one cannot be used; those that acted before still do.
        """
        wanted = tuple(
            (self.read(name), strength) for name, strength in _summed(choices, self.library).items() if strength != 0
        )
        if wanted != self._active:
            before = self._active
            self._take_off()
            try:
                self._attach(wanted)
            except RuntimeError as error:  # most often: no memory
                self._take_off()
                self._attach(before)
                raise LoraError(_("The LoRAs could not be attached: {error}", error=error)) from error
        return tuple(
            LoraUsed(name=lora.name, strength=s, sha256=lora.sha256, weights_hash=lora.weights_hash)
            for lora, s in self._active
        )

    def read(self, name: str) -> Lora:
        """A LoRA of the library, checked against the model; read once, and again when its file has changed."""
        if name in self.held:
            return self.held[name]
        path = self.library.find(name)
        key = (str(path), file_state(path))
        if key not in self._kept:
            lora = read_lora(name, path, self.components)
            while self._kept and not self._has_room(lora):
                del self._kept[next(iter(self._kept))]
            self._kept[key] = lora
        return self._kept[key]

    def _has_room(self, lora: Lora) -> bool:
        kept_bytes = sum(kept.num_bytes for kept in self._kept.values())
        return len(self._kept) < KEPT_FILES and kept_bytes + lora.num_bytes <= KEPT_BYTES

    @property
    def text_state(self) -> tuple[tuple[str, float], ...]:
        """What changes the text encoder now; embeddings that were made in another state do not hold."""
        return tuple((lora.sha256, strength) for lora, strength in self._active if lora.text_encoder)

    def _attach(self, wanted: Acting) -> None:
        unet = stacks_by_layer([(lora.unet, strength) for lora, strength in wanted])
        text = stacks_by_layer([(lora.text_encoder, strength) for lora, strength in wanted])
        layers = [
            *((self.components.unet.get_submodule(path), stack) for path, stack in unet.items()),
            *((self.components.text_encoder.get_submodule(path), stack) for path, stack in text.items()),
        ]
        own, model = self.sum_limit_bytes, self.components.unet
        limit = sum_limit(model.device, model.dtype) if own is None else own
        small = sum(layer.weight.nbytes for layer, __ in layers) <= limit
        kept = self._sums.pop(wanted, [])
        if kept and small and all(one.fits() for one in kept):
            for one in kept:
                one.put()
            self._attached += kept
        else:
            for layer, stack in layers:
                self._attached.append(_attach(layer, stack, small=small))
        self._active = wanted

    def _take_off(self) -> None:
        """Bring the base back, and keep the sums of what acted, the oldest only as long as there is room."""
        sums = [one for one in self._attached if isinstance(one, WeightSum)]
        if self._active and len(sums) == len(self._attached):
            self._sums[self._active] = sums
        while self._attached:
            self._attached.pop().remove()
        while sum(one.num_bytes for kept in self._sums.values() for one in kept) > SUM_LIMIT_BYTES:
            del self._sums[next(iter(self._sums))]
        self._active = ()


def _summed(choices: Sequence[LoraChoice], library: LoraLibrary) -> dict[str, float]:
    """A LoRA that is chosen twice acts with the sum of its strengths."""
    strengths: dict[str, float] = {}
    for choice in choices:
        name = library.name_of(choice.name)
        strengths[name] = strengths.get(name, 0.0) + choice.strength
    return strengths


def stacks_by_layer(loras: Sequence[tuple[Mapping[str, LayerWeights], float]]) -> dict[str, Stack]:
    """For each layer that any of them changes, the updates that do, with their strengths."""
    stacks: dict[str, list[tuple[LayerWeights, float]]] = {}
    for layers, strength in loras:
        for path, layer in layers.items():
            stacks.setdefault(path, []).append((layer, strength))
    return {**stacks}


def _stacked(stack: Stack) -> tuple[torch.Tensor, torch.Tensor]:
    """One pair that does what all of them do: (sum of ranks, in, …) and (out, sum of ranks, …)."""
    down = torch.cat([layer.down for layer, __ in stack])
    up = torch.cat([layer.up * (layer.scale * strength) for layer, strength in stack], dim=1)
    return down, up


def _attach(layer: Changeable, stack: Stack, *, small: bool) -> Attached:
    if small or isinstance(layer, nn.GroupNorm | nn.LayerNorm) or not all(weights.is_addition for weights, __ in stack):
        return WeightSum(layer, stack)
    down, up = _stacked(stack)
    update = ConvUpdate(down, up, layer) if isinstance(layer, nn.Conv2d) else LinearUpdate(down, up)
    handle: RemovableHandle = layer.register_forward_hook(update)
    return handle
