"""LoRAs merged into a whole model, also in the original layout of single files.

The names of Stable Diffusion 1.x's weights in the original layout, which single-file checkpoints have.

What CompVis' code (https://github.com/CompVis/stable-diffusion) calls input_blocks, middle_block and output_blocks are
diffusers' down_blocks, mid_block and up_blocks, counted through: `models.py` reads the same names back.

A whole model with LoRAs merged into its weights: a folder in diffusers' layout, or one file in the original's.

Nothing at the target is overwritten, and nothing lies there before it is complete: it is written in a hidden folder
beside it and renamed. The loaded model is only read.
"""

import copy
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from studio.core.errors import LoraError, ModelError
from studio.core.files import read_text
from studio.core.language import _
from studio.engine.lora_file import LoraWeights
from studio.engine.lora_layers import Stack, changed_bias, changed_weight, stacks_by_layer
from studio.engine.model_files import TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX, configuration_folder
from studio.engine.model_folder import forget_own_path
from studio.engine.models import Components

Names = Mapping[str, str]

_RESNET: Names = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS: Names = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "mid_block.attentions.0": "middle_block.1",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION: Names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def text_name(name: str) -> str:
    """A text encoder's weight with the `text_model.` that every program but transformers 5 itself expects."""
    return f"text_model.{name.removeprefix('text_model.')}"


class OriginalLayout:
    """The original names and shapes of a model whose blocks are built as Stable Diffusion 1.x's.

    Args:
        num_blocks: of the U-Net on its way down, and as many up.
        layers_per_block: the U-Net's resnets in each block on its way down; one more on its way up.
        num_vae_blocks: of the VAE's encoder, and as many in its decoder.
        vae_layers_per_block: the same for the VAE.
        up_attention: for each of the U-Net's blocks on its way up, whether it has attention.
    """

    def __init__(
        self,
        *,
        num_blocks: int,
        layers_per_block: int,
        num_vae_blocks: int,
        vae_layers_per_block: int,
        up_attention: tuple[bool, ...],
    ) -> None:
        self._unet = {**_UNET_ENDS, **_unet_blocks(num_blocks, layers_per_block, up_attention)}
        self._vae = _vae_blocks(num_vae_blocks, vae_layers_per_block)

    def unet(self, name: str) -> str:
        """`down_blocks.0.resnets.0.conv1.weight` -> `model.diffusion_model.input_blocks.1.0.in_layers.2.weight`."""
        return UNET_PREFIX + _renamed(name, self._unet)

    def vae(self, name: str, tensor: Tensor) -> tuple[str, Tensor]:
        """Name and tensor: the original's attention is made of 1 × 1 convolutions."""
        renamed = _renamed(name, self._vae)
        as_convolution = ".attn_1." in renamed and tensor.ndim == 2
        return VAE_PREFIX + renamed, tensor[:, :, None, None] if as_convolution else tensor

    def text_encoder(self, name: str) -> str:
        """`encoder.layers.0.mlp.fc1.weight` -> `cond_stage_model.transformer.text_model.encoder.layers.0…`."""
        return TEXT_PREFIX + text_name(name)


def _renamed(name: str, names: Names) -> str:
    """With its longest known beginning exchanged; names without one are the same in both."""
    pieces = name.split(".")
    for length in range(len(pieces) - 1, 0, -1):
        beginning = ".".join(pieces[:length])
        if beginning in names:
            return ".".join([names[beginning], *pieces[length:]])
    return name


def _unet_blocks(num_blocks: int, layers: int, up_attention: tuple[bool, ...]) -> dict[str, str]:
    names = {**_resnet("mid_block.resnets.0", "middle_block.0"), **_resnet("mid_block.resnets.1", "middle_block.2")}
    for block in range(num_blocks):
        first = block * (layers + 1)
        for layer in range(layers + 1):
            down, up = f"input_blocks.{first + layer + 1}", f"output_blocks.{first + layer}"
            names |= _resnet(f"down_blocks.{block}.resnets.{layer}", f"{down}.0")
            names |= _resnet(f"up_blocks.{block}.resnets.{layer}", f"{up}.0")
            names[f"down_blocks.{block}.attentions.{layer}"] = f"{down}.1"
            names[f"up_blocks.{block}.attentions.{layer}"] = f"{up}.1"
        names[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{first + layers + 1}.0.op"
        # after the resnet and, where there is one, the attention
        place = 2 if up_attention[block] else 1
        names[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{first + layers}.{place}.conv"
    return names


def _resnet(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{piece}": f"{theirs}.{original}" for piece, original in _RESNET.items()}


def _vae_blocks(num_blocks: int, layers: int) -> dict[str, str]:
    """The original counts the decoder's blocks from the image, diffusers from the latents."""
    names: dict[str, str] = {}
    for side in ("encoder", "decoder"):
        names[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        for index in (0, 1):
            names[f"{side}.mid_block.resnets.{index}"] = f"{side}.mid.block_{index + 1}"
        for piece, original in _VAE_ATTENTION.items():
            names[f"{side}.mid_block.attentions.0.{piece}"] = f"{side}.mid.attn_1.{original}"
    for block in range(num_blocks):
        down, up = f"encoder.down.{block}", f"decoder.up.{num_blocks - 1 - block}"
        for layer in range(layers + 1):
            for ours, theirs in ((f"encoder.down_blocks.{block}", down), (f"decoder.up_blocks.{block}", up)):
                names[f"{ours}.resnets.{layer}"] = f"{theirs}.block.{layer}"
                names[f"{ours}.resnets.{layer}.conv_shortcut"] = f"{theirs}.block.{layer}.nin_shortcut"
        names[f"encoder.down_blocks.{block}.downsamplers.0"] = f"{down}.downsample"
        names[f"decoder.up_blocks.{block}.upsamplers.0"] = f"{up}.upsample"
    return names


Loras = Sequence[tuple[LoraWeights, float]]  # with their strengths
ModelPart = Literal["unet", "vae", "text_encoder"]
_WEIGHTS_NAMES: dict[ModelPart, str] = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
# What makes a model of another size: a checkpoint has no configuration, so its readers take Stable Diffusion 1.5's.
_SIZES: dict[ModelPart, tuple[str, ...]] = {
    "unet": ("block_out_channels", "layers_per_block", "cross_attention_dim", "in_channels", "down_block_types"),
    "vae": ("block_out_channels", "layers_per_block", "latent_channels"),
    "text_encoder": ("hidden_size", "num_hidden_layers", "vocab_size"),
}


@dataclass(frozen=True)
class MergedTensor:
    """One weight of the merged model, by its name in diffusers' and transformers' modules; float32 where it changed."""

    part: ModelPart
    name: str
    tensor: Tensor


def merged_tensors(components: Components, loras: Loras) -> Iterator[MergedTensor]:
    """Every weight after the LoRAs, one at a time: there is no second copy of the model.

    Args:
        components: the base; no LoRA may be attached to it, or it would be merged twice.
        loras: applied to each layer one after the other, as the studio attaches them.
    """
    stacks: dict[ModelPart, dict[str, Stack]] = {
        "unet": stacks_by_layer([(lora.unet, strength) for lora, strength in loras]),
        "text_encoder": stacks_by_layer([(lora.text_encoder, strength) for lora, strength in loras]),
        "vae": {},
    }
    for part in _WEIGHTS_NAMES:
        for name, tensor in components.modules()[part].state_dict().items():
            path, __, parameter = name.rpartition(".")
            stack = stacks[part].get(path)
            if stack and parameter == "weight":
                tensor = changed_weight(tensor, stack)
            elif stack and parameter == "bias":
                tensor = changed_bias(tensor, stack)
            yield MergedTensor(part, name, tensor)


def merge_loras(components: Components, loras: Loras, folder: Path, *, dtype: torch.dtype) -> None:
    """Write a model folder in diffusers' layout, which every program that reads such folders loads.

    The text encoder's names have `text_model.`, which transformers 5 no longer writes and others need.

    Args:
        components: the base, without LoRAs attached.
        dtype: of every weight.

    Raises:
        LoraError: where there is something at `folder`, or a weight does not fit into `dtype`.
        OSError: where it cannot be written.
    """
    states = _states(components, loras, dtype)
    with written_aside(folder) as aside:
        components.pipeline.save_config(aside)
        components.pipeline.scheduler.save_pretrained(aside / "scheduler")
        components.tokenizer.save_pretrained(aside / "tokenizer")
        # transformers 5 writes tokenizer.json alone; versions before it and other programs read vocab.json, merges.txt
        components.tokenizer.backend_tokenizer.model.save(str(aside / "tokenizer"))
        for part in _WEIGHTS_NAMES:
            _save_configuration(components, part, aside / part, dtype)
            state = states.pop(part)
            named = {text_name(name): tensor for name, tensor in state.items()} if part == "text_encoder" else state
            save_file(named, aside / part / _WEIGHTS_NAMES[part], metadata={"format": "pt"})
        forget_own_path(aside)


def write_checkpoint(components: Components, loras: Loras, file: Path, *, dtype: torch.dtype) -> None:
    """Write one file in the original layout, which A1111, Forge, ComfyUI and others load.

    Args:
        components: the base, without LoRAs attached.
        dtype: of every weight.

    Raises:
        ModelError: where the model is of another size than Stable Diffusion 1.5: no program could load the file.
        LoraError: where there is something at `file`, or a weight does not fit into `dtype`.
        OSError: where it cannot be written.
    """
    assert_size_of_sd15(components)
    layout = _layout(components)
    states = _states(components, loras, dtype)
    original = {layout.unet(name): tensor for name, tensor in states["unet"].items()}
    original |= {layout.text_encoder(name): tensor for name, tensor in states["text_encoder"].items()}
    original |= dict(layout.vae(name, tensor.contiguous()) for name, tensor in states["vae"].items())
    num_positions = components.text_encoder.config.max_position_embeddings
    original[f"{TEXT_PREFIX}text_model.embeddings.position_ids"] = torch.arange(num_positions)[None]
    prediction = components.pipeline.scheduler.config.get("prediction_type", "epsilon")
    metadata = {
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1",
        "modelspec.title": file.stem,
        "modelspec.prediction_type": "v" if prediction == "v_prediction" else "epsilon",
    }
    with written_aside(file) as aside:
        save_file(original, aside, metadata=metadata)


def assert_size_of_sd15(components: Components) -> None:
    """Make sure that a checkpoint without configurations would be understood.

    Raises:
        ModelError: naming what differs.
    """
    for part, names in _SIZES.items():
        config = json.loads(read_text(configuration_folder() / part / "config.json"))
        for name in names:
            wanted, found = config[name], getattr(getattr(components, part).config, name)
            if wanted != (list(found) if isinstance(found, tuple) else found):
                raise ModelError(
                    _(
                        "This model cannot be a single file: its {part} has {name} {found}, where Stable "
                        "Diffusion 1.5 has {wanted}. Such files hold no configuration, so no program could "
                        "load it. Export a model folder instead (--to merged).",
                        part=part,
                        name=name,
                        found=found,
                        wanted=wanted,
                    )
                )


def _layout(components: Components) -> OriginalLayout:
    unet, vae = components.unet.config, components.vae.config
    return OriginalLayout(
        num_blocks=len(unet.block_out_channels),
        layers_per_block=unet.layers_per_block,
        num_vae_blocks=len(vae.block_out_channels),
        vae_layers_per_block=vae.layers_per_block,
        up_attention=tuple("CrossAttn" in kind for kind in unet.up_block_types),
    )


def _states(components: Components, loras: Loras, dtype: torch.dtype) -> dict[ModelPart, dict[str, Tensor]]:
    """The merged weights by part, on the CPU, in the precision of the file."""
    states: dict[ModelPart, dict[str, Tensor]] = {"unet": {}, "vae": {}, "text_encoder": {}}
    for merged in merged_tensors(components, loras):
        tensor = merged.tensor.to("cpu", dtype if merged.tensor.is_floating_point() else merged.tensor.dtype)
        if not bool(torch.isfinite(tensor).all()):
            raise LoraError(
                _(
                    "The merged model was not written: {part} {weight} holds NaN or infinite values. Use a "
                    "smaller strength, or float32.",
                    part=merged.part,
                    weight=merged.name,
                )
            )
        states[merged.part][merged.name] = tensor.contiguous()
    return states


def _save_configuration(components: Components, part: ModelPart, folder: Path, dtype: torch.dtype) -> None:
    if part != "text_encoder":
        getattr(components, part).save_config(folder)
        return
    config = copy.deepcopy(components.text_encoder.config)
    config.dtype = dtype
    folder.mkdir()
    config.save_pretrained(folder)


@contextmanager
def written_aside(target: Path) -> Iterator[Path]:
    """A place in a hidden folder beside the target, which becomes the target when all is written.

    Raises:
        LoraError: where something lies at the target.
    """
    assert_free(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".merging-") as folder:
        aside = Path(folder) / target.name
        yield aside
        assert_free(target)  # a rename would put a file in the place of another
        aside.rename(target)


def assert_free(target: Path) -> None:
    """Make sure that nothing lies where something is to be written.

    Raises:
        LoraError: where something does.
    """
    if target.exists() or target.is_symlink():
        raise LoraError(
            _(
                "{target} is there already, and nothing is overwritten. Choose another name, or move it away.",
                target=target,
            )
        )
