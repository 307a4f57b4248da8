"""Updates of known effect for tests: layers of all kinds, alphas and ranks that differ, with magnitudes or without."""

from collections.abc import Mapping

import torch
from torch import nn

from studio.engine.lora_file import LayerWeights, LoraWeights
from studio.engine.models import Components

UNET_LAYERS = ("to_q", "to_out.0", "ff.net.2", "proj_in", "conv1", "conv_in")
TEXT_LAYERS = ("q_proj", "out_proj", "fc1")


def random_update(
    components: Components,
    *,
    dora: bool = False,
    alphas: tuple[float, ...] = (6.0, 2.5),
    ranks: tuple[int, ...] = (4, 2),
) -> LoraWeights:
    """Large enough to see, of both parts; alphas and ranks take turns, so that no layer has alpha = rank."""
    generator = torch.Generator().manual_seed(11)

    def layers(module: nn.Module, endings: tuple[str, ...]) -> dict[str, LayerWeights]:
        chosen = {
            path: layer.weight
            for path, layer in module.named_modules()
            if isinstance(layer, nn.Linear | nn.Conv2d) and path.endswith(endings)
        }
        update = {}
        for index, (path, weight) in enumerate(chosen.items()):
            rank, shape = ranks[index % len(ranks)], weight.shape
            down = torch.randn(rank, *shape[1:], generator=generator) * 0.1
            up = torch.randn(shape[0], rank, *(1 for _ in shape[2:]), generator=generator) * 0.1
            lengths = weight.detach().float().flatten(1).norm(dim=1)
            stretched = lengths * (1 + 0.3 * torch.randn(shape[0], generator=generator))
            alpha = alphas[index % len(alphas)]
            update[path] = LayerWeights(down, up, alpha, stretched if dora else None)
        return update

    return LoraWeights(layers(components.unet, UNET_LAYERS), layers(components.text_encoder, TEXT_LAYERS))


def expected_weight(weight: torch.Tensor, layer: LayerWeights) -> torch.Tensor:
    """W + alpha / rank · up · down, and with a magnitude each output's row brought to its length, written out."""
    rows = weight.detach().double().flatten(1).clone()
    up, down = layer.up.double().flatten(1), layer.down.double().flatten(1)
    for output in range(len(rows)):
        for rank in range(len(down)):
            rows[output] += layer.alpha / len(down) * up[output, rank] * down[rank]
        if layer.magnitude is not None:
            rows[output] *= float(layer.magnitude[output]) / float((rows[output] ** 2).sum() ** 0.5)
    return rows.reshape(weight.shape).float()


def merge_expected(components: Mapping[str, nn.Module], weights: LoraWeights) -> None:
    """Change the weights of parts themselves."""
    for part, path, layer in weights.layers():
        module = components[part].get_submodule(path)
        module.weight.data = expected_weight(module.weight, layer)


def noise_prediction(unet: nn.Module, text_encoder: nn.Module) -> torch.Tensor:
    """What the model makes of fixed words and fixed noise: depends on every layer of both parts."""
    tokens = torch.arange(77)[None] % 600
    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        prediction: torch.Tensor = unet(latents, torch.tensor([400]), text_encoder(tokens)[0]).sample
    return prediction
