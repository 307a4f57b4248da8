"""A LoRA's weights as they are in memory: what training makes, what files hold, what is merged."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from studio.loras.keys import Part


@dataclass(frozen=True, eq=False)
class LayerWeights:
    """One layer's update: up @ down · alpha / rank, and with DoRA the length of each output's weights.

    Attributes:
        down: (rank, in, …) as the layer's weight has it: (rank, in) or (rank, in, height, width).
        up: (out, rank) or (out, rank, 1, 1).
        alpha: of this file's rule alpha / rank. rsLoRA's alpha / sqrt(rank) is alpha · sqrt(rank) here.
        magnitude: (out,) for DoRA (arXiv 2402.09353), else None.
    """

    down: torch.Tensor
    up: torch.Tensor
    alpha: float
    magnitude: torch.Tensor | None = None

    @property
    def rank(self) -> int:
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        return self.alpha / self.rank


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """Layers by their path in diffusers' and transformers' modules (`mid_block.attentions.0…`, without a prefix).

    Text encoder paths start with `encoder.` or `text_model.encoder.`, as the module at hand has them.
    """

    unet: Mapping[str, LayerWeights]
    text_encoder: Mapping[str, LayerWeights]

    def layers(self) -> Iterator[tuple[Part, str, LayerWeights]]:
        """Every layer, the U-Net's first."""
        for path, layer in self.unet.items():
            yield "unet", path, layer
        for path, layer in self.text_encoder.items():
            yield "text_encoder", path, layer
