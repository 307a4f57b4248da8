"""A whole model with LoRAs merged into its weights: a folder in diffusers' layout, or one file in the original's.

Nothing at the target is overwritten, and nothing lies there before it is complete: it is written in a hidden folder
beside it and renamed. The loaded model is only read.
"""

import copy
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from studio.engine.lora_layers import Stack, changed_weight, stacks_by_layer
from studio.engine.lora_weights import LoraWeights
from studio.engine.models import Components
from studio.engine.original_layout import OriginalLayout, text_name
from studio.engine.single_file import TEXT_PREFIX, configuration_folder
from studio.errors import LoraError, ModelError

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
    for part, module in _modules(components).items():
        for name, tensor in module.state_dict().items():
            stack = stacks[part].get(name.removesuffix(".weight")) if name.endswith(".weight") else None
            yield MergedTensor(part, name, changed_weight(tensor, stack) if stack else tensor)


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
        _forget_own_path(aside)


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
        config = json.loads((configuration_folder() / part / "config.json").read_text(encoding="utf-8"))
        for name in names:
            wanted, found = config[name], getattr(getattr(components, part).config, name)
            if wanted != (list(found) if isinstance(found, tuple) else found):
                raise ModelError(
                    f"This model cannot be a single file: its {part} has {name} {found}, where Stable Diffusion 1.5 "
                    f"has {wanted}. Such files hold no configuration, so no program could load it. Write a folder "
                    "instead (--to merged)."
                )


def _modules(components: Components) -> dict[ModelPart, nn.Module]:
    return {"unet": components.unet, "vae": components.vae, "text_encoder": components.text_encoder}


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
                f"The merged model was not written: {merged.part} {merged.name} holds NaN or infinite values. "
                "Use a smaller strength, or float32."
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


def _forget_own_path(folder: Path) -> None:
    """diffusers notes where a model was loaded from: nothing that belongs into a model that is passed on."""
    for path in [folder / "model_index.json", *folder.glob("*/*config.json")]:
        entries = json.loads(path.read_text(encoding="utf-8"))
        if entries.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


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
        raise LoraError(f"{target} is there already, and nothing is overwritten. Choose another name, or move it away.")
