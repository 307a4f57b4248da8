"""The layers that learn, and their pass in one.

A linear layer with its LoRA in one pass: the same numbers as peft's three, with fewer trips through memory.

peft computes base(x) + (x · Aᵀ · Bᵀ) · s: on a CPU the product by s and the sum are two more walks over an output that
may have ten million numbers, forward and backward. Here s meets the rank-wide middle, and both products are added into
the output, or into x's gradient, where it lies.

The layers that learn: peft's LoRA layers in the U-Net and, where wanted, in the text encoder.

DoRA: arXiv 2402.09353. rsLoRA: arXiv 2312.03732.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora import LoraLayer
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from studio.core.errors import TrainingError
from studio.core.language import N_, _
from studio.engine.lora_file import LayerWeights, LoraWeights
from studio.engine.lora_layers import SeededDropout
from studio.engine.models import Components
from studio.loras.keys import Part
from studio.loras.library import ends_note
from studio.training.settings import TargetName, TrainingSettings

# Shapes: N = rows (batch × tokens), I = in, O = out, R = rank.


class _FusedLinear(torch.autograd.Function):
    """x · Wᵀ + b + s · x · Aᵀ · Bᵀ in the precision of x; W and b are frozen, A and B may be more precise than x."""

    @staticmethod
    def forward(
        context: Any,  # noqa: ANN401 - torch's own
        x_NI: torch.Tensor,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        down_RI: torch.Tensor,
        up_OR: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        middle_NR = functional.linear(x_NI, down_RI.to(x_NI.dtype)).mul_(scale)
        context.save_for_backward(x_NI, weight_OI, down_RI, up_OR, middle_NR)
        context.scale = scale
        return functional.linear(x_NI, weight_OI, bias_O).addmm_(middle_NR, up_OR.to(x_NI.dtype).T)

    @staticmethod
    @once_differentiable
    def backward(context: Any, grad_NO: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # noqa: ANN401
        x_NI, weight_OI, down_RI, up_OR, middle_NR = context.saved_tensors
        down, up = down_RI.to(x_NI.dtype), up_OR.to(x_NI.dtype)
        middle_grad_NR = (grad_NO @ up).mul_(context.scale)
        x_grad = (grad_NO @ weight_OI).addmm_(middle_grad_NR, down) if context.needs_input_grad[0] else None
        down_grad, up_grad = (middle_grad_NR.T @ x_NI).to(down_RI.dtype), (grad_NO.T @ middle_NR).to(up_OR.dtype)
        return x_grad, None, None, down_grad, up_grad, None


def fuse(layer: nn.Module, *, adapter: str) -> bool:
    """Give a layer the fused pass where it is a plain linear one; whether it was.

    Layers with dropout, DoRA and convolutions keep peft's passes, and so do all under autocast or where the input has
    not the precision of the frozen weights.
    """
    if not isinstance(layer, LoraLinear) or adapter in layer.lora_variant:
        return False
    base = layer.get_base_layer()
    if type(base) is not nn.Linear or not isinstance(layer.lora_dropout[adapter], nn.Identity):
        return False
    peft_forward = layer.forward

    def forward(self: LoraLinear, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:  # noqa: ANN401
        down, up = self.lora_A[adapter].weight, self.lora_B[adapter].weight
        if args or kwargs or torch.is_autocast_enabled(x.device.type) or x.dtype != base.weight.dtype:
            result: torch.Tensor = peft_forward(x, *args, **kwargs)
            return result
        rows = x.reshape(-1, x.shape[-1])
        scale = float(self.scaling[adapter])
        fused: torch.Tensor = _FusedLinear.apply(rows, base.weight, base.bias, down, up, scale)  # type: ignore[no-untyped-call]
        return fused.view(*x.shape[:-1], -1)

    layer.forward = MethodType(forward, layer)  # type: ignore[method-assign]
    return True


ADAPTER = "default"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")
RESNETS = ("conv1", "conv2")
ENDS = ("conv_in", "conv_out")
# Of latent-consistency/lcm-lora-sdv1-5 (arXiv 2311.05556), which A1111, Forge and ComfyUI read.
OF_LCM_LORA = ("conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj")
TARGET_MODULES: Mapping[TargetName, tuple[str, ...]] = {
    "attention": ATTENTION,
    "attention + feed-forward": ATTENTION + FEED_FORWARD,
    "attention + feed-forward + resnets": ATTENTION + FEED_FORWARD + RESNETS,
    "attention + feed-forward + convolutions": ATTENTION + FEED_FORWARD + RESNETS + ENDS,
    "as LCM-LoRA": ATTENTION + FEED_FORWARD + RESNETS + OF_LCM_LORA,
}
# As the programs' own code has it: docs/lora-files.md
DORA_READERS = N_(
    "DoRA is computed otherwise by A1111 (a very different image), a little by Forge and ComfyUI before 0.3.77; "
    "sd-scripts drops its magnitudes. In diffusers, pytorch_lora_weights.safetensors is exact at strength 1. For other "
    "programs write a whole model: “Export checkpoint” or “Export model folder” below the run, or python -m studio "
    "export NAME --to checkpoint (or merged)."
)


def reader_notes(settings: TrainingSettings) -> tuple[str, ...]:
    """Which programs will not make of the finished file what the studio does, in sentences."""
    trains_ends = set(ENDS) <= set(TARGET_MODULES[settings.targets])
    return (*([_(DORA_READERS)] if settings.use_dora else []), *([ends_note(ENDS)] if trains_ends else []))


TEXT_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")


@dataclass(frozen=True, eq=False)
class _Place:
    """Where a LoRA layer stands, and what stood there before; `module` and `layer` are one object by its two types."""

    part: Part
    path: str
    parent: nn.Module
    name: str
    module: nn.Module
    layer: LoraLayer

    @property
    def base(self) -> nn.Module:
        base: nn.Module = self.layer.get_base_layer()
        return base


class Adapters:
    """The LoRA layers of a model: their parameters, their weights, and the bare model without them.

    Up weights start at zero, so that the model is the base's before the first step.
    """

    def __init__(self, components: Components, settings: TrainingSettings) -> None:
        """Put the layers in. Drawn from torch's global generator: seed it first.

        Raises:
            TrainingError: where the model has none of the chosen layers.
        """
        self._settings = settings
        parts: list[tuple[Part, nn.Module, tuple[str, ...]]] = [
            ("unet", components.unet, TARGET_MODULES[settings.targets])
        ]
        if settings.train_text_encoder:
            parts.append(("text_encoder", components.text_encoder, TEXT_TARGETS))
        self._places: list[_Place] = []
        for part, module, targets in parts:
            self._places += _inject(part, module, targets, settings)

    @property
    def num_layers(self) -> int:
        return len(self._places)

    @property
    def num_parameters(self) -> int:
        return sum(parameter.numel() for __, parameter in self.named_parameters())

    def named_parameters(self, part: Part | None = None) -> list[tuple[str, nn.Parameter]]:
        """What learns, by a name that is the same in every run of the same settings."""
        return [
            (f"{place.part}.{place.path}.{name}", parameter)
            for place in self._places
            if part in (None, place.part)
            for name, parameter in place.module.named_parameters()
            if parameter.requires_grad
        ]

    def parameters(self, part: Part | None = None) -> list[nn.Parameter]:
        """What learns, in the same order."""
        return [parameter for __, parameter in self.named_parameters(part)]

    def weights(self, means: Sequence[torch.Tensor] = ()) -> LoraWeights:
        """A copy of the weights as they are now, float32 on the CPU; of their means, where they are given.

        Args:
            means: one for each of `parameters()`.
        """
        values = dict(zip(map(id, self.parameters()), means, strict=True)) if means else {}
        layers: dict[Part, dict[str, LayerWeights]] = {"unet": {}, "text_encoder": {}}
        for place in self._places:
            layers[place.part][place.path] = self._layer_weights(place.layer, values)
        return LoraWeights(layers["unet"], layers["text_encoder"])

    def put(self, weights: LoraWeights) -> None:
        """Set the weights to those of a checkpoint, to the bit.

        Raises:
            TrainingError: where layers or shapes are others than these.
        """
        given: dict[Part, Mapping[str, LayerWeights]] = {"unet": weights.unet, "text_encoder": weights.text_encoder}
        with torch.no_grad():
            for place in self._places:
                layer = given[place.part].get(place.path)
                if layer is None:
                    raise TrainingError(
                        _("The checkpoint has no layer {path}: it is of a run with other settings.", path=place.path)
                    )
                down, up, magnitude = _sides(place.layer)
                pairs = [(down, layer.down), (up, layer.up)]
                if magnitude is not None and layer.magnitude is not None:
                    pairs.append((magnitude, layer.magnitude))
                for parameter, value in pairs:
                    if value.numel() != parameter.numel():
                        raise TrainingError(
                            _("The checkpoint's {path} has another shape: other settings made it.", path=place.path)
                        )
                    parameter.copy_(value.reshape(parameter.shape))

    def _layer_weights(self, layer: LoraLayer, values: Mapping[int, torch.Tensor]) -> LayerWeights:
        """`values`: what stands for a parameter, by its id."""
        down, up, magnitude = (None if side is None else values.get(id(side), side) for side in _sides(layer))
        assert down is not None
        assert up is not None
        rank, alpha = self._settings.rank, self._settings.lora_alpha
        return LayerWeights(
            down=_copied(down),
            up=_copied(up),
            # Files know the rule alpha / rank alone: rsLoRA's √rank is in their alpha.
            alpha=alpha * math.sqrt(rank) if self._settings.use_rslora else alpha,
            magnitude=None if magnitude is None else _copied(magnitude).reshape(-1),
        )

    @contextmanager
    def taken_out(self) -> Iterator[None]:
        """The model as it was before, during the `with` block: PipelineManager makes images with it."""
        for place in self._places:
            setattr(place.parent, place.name, place.base)
        try:
            yield
        finally:
            for place in self._places:
                setattr(place.parent, place.name, place.module)

    def effects(self) -> dict[str, float]:
        """‖ΔW‖ / ‖W‖ (Frobenius) of each group of layers: what kind they are, and in which part of the model."""
        changes: dict[str, float] = {}
        bases: dict[str, float] = {}
        with torch.no_grad():
            for place in self._places:
                group = _group_of(place)
                weight = place.base.weight
                assert isinstance(weight, torch.Tensor)
                changes[group] = changes.get(group, 0.0) + self._squared_change(place)
                bases[group] = bases.get(group, 0.0) + float(weight.float().square().sum())
        return {group: math.sqrt(changes[group] / max(bases[group], 1e-30)) for group in sorted(changes)}

    def _squared_change(self, place: _Place) -> float:
        """‖scale · up · down‖² from two small products: trace((upᵀ up)(down downᵀ)). DoRA's lengths are left out."""
        down, up, __ = _sides(place.layer)
        scale = float(place.layer.scaling[ADAPTER])
        left, right = up.flatten(1).float(), down.flatten(1).float()
        return scale**2 * max(0.0, float(((left.T @ left) * (right @ right.T).T).sum()))


def _inject(part: Part, module: nn.Module, targets: tuple[str, ...], settings: TrainingSettings) -> list[_Place]:
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.lora_alpha,  # type: ignore[arg-type]  # any number will do
        lora_dropout=settings.lora_dropout,
        target_modules=list(targets),
        init_lora_weights=True,
        use_dora=settings.use_dora,
        use_rslora=settings.use_rslora,
    )
    try:
        inject_adapter_in_model(config, module, adapter_name=ADAPTER)
    except ValueError as error:  # peft found none of the names
        raise TrainingError(
            _("This model has none of the layers {targets!r}. Choose other layers.", targets=settings.targets)
        ) from error
    places = []
    for path, layer in module.named_modules():
        lora: object = layer
        if isinstance(lora, LoraLayer):
            parent, __, name = path.rpartition(".")
            places.append(_Place(part, path, module.get_submodule(parent), name, layer, lora))
    for place in places:
        for name, parameter in place.module.named_parameters():
            parameter.requires_grad_("lora_" in name)
            if "lora_" in name:
                parameter.data = parameter.data.float()  # what learns is float32, whatever the base is
        _seed_dropout(place.layer)
        fuse(place.module, adapter=ADAPTER)
    return places


def _seed_dropout(layer: LoraLayer) -> None:
    dropout = layer.lora_dropout[ADAPTER]
    if isinstance(dropout, nn.Dropout):
        layer.lora_dropout[ADAPTER] = SeededDropout(dropout.p)


def _sides(layer: LoraLayer) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """down, up and DoRA's magnitude, as they are in peft."""
    has_magnitude = ADAPTER in layer.lora_magnitude_vector
    down, up = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
    magnitude = layer.lora_magnitude_vector[ADAPTER].weight if has_magnitude else None
    assert isinstance(down, torch.Tensor)
    assert isinstance(up, torch.Tensor)
    assert magnitude is None or isinstance(magnitude, torch.Tensor)
    return down, up, magnitude


def _copied(parameter: torch.Tensor) -> torch.Tensor:
    return parameter.detach().to("cpu", torch.float32, copy=True).contiguous()


_BLOCK = re.compile(r"(down_blocks|mid_block|up_blocks|conv_in|conv_out)")


def _group_of(place: _Place) -> str:
    """One of `LAYER_GROUPS`: few enough to be read at a glance."""
    if place.part == "text_encoder":
        return "text encoder"
    if ".attn1." in place.path:
        kind = "self-attention"
    elif ".attn2." in place.path:
        kind = "cross-attention"
    elif place.path.endswith(FEED_FORWARD):
        kind = "feed-forward"
    else:
        kind = "convolutions"
    found = _BLOCK.match(place.path)
    block = {"down_blocks": "down", "mid_block": "middle", "up_blocks": "up"}.get(
        found.group(1) if found else "", "ends"
    )
    return f"{kind}, {block}"
