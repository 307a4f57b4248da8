"""Reading a checkpoint of Stable Diffusion 1.x from one `.safetensors` file in the original layout, without network."""

import json
from collections.abc import Collection
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import FromOriginalModelMixin
from safetensors import safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from studio.core.errors import ModelError, WeightsFileError
from studio.core.files import read_text
from studio.core.paths import assets_folder
from studio.core.settings import PredictionType
from studio.loras.weights_file import WeightsHeader, read_header

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."
_PARTS = {UNET_PREFIX: "U-Net", VAE_PREFIX: "VAE", TEXT_PREFIX: "text encoder"}

# What else comes as one .safetensors file, by a piece of a tensor's name that only it has; the first that fits counts.
_OTHER_KINDS = (
    ("lora_", "a LoRA, not a whole model: put it into the library of LoRAs and choose the model it was made for"),
    ("conditioner.embedders.", "a checkpoint of Stable Diffusion XL"),
    (f"{UNET_PREFIX}label_emb.", "a checkpoint of Stable Diffusion XL"),
    ("cond_stage_model.model.", "a checkpoint of Stable Diffusion 2.x"),
    ("joint_blocks.", "a checkpoint of Stable Diffusion 3"),
    ("double_blocks.", "a checkpoint of Flux"),
    ("control_model.", "a ControlNet, not a whole model"),
    ("emb_params", "a textual inversion embedding, not a whole model"),
    ("down_blocks.", "one part of a model in diffusers' layout: choose the folder that holds model_index.json"),
)
_INPUT_CHANNELS = {
    9: "a checkpoint for inpainting (its U-Net takes 9 channels, not 4)",
    8: "a checkpoint for editing by instructions (its U-Net takes 8 channels, not 4)",
}
_WIDTH_KINDS = {1024: "a checkpoint of Stable Diffusion 2.x", 2048: "a checkpoint of Stable Diffusion XL"}


def configuration_folder() -> Path:
    """Stable Diffusion 1.5's configurations and tokenizer, which ship with the studio."""
    return assets_folder() / "sd15"


def check_checkpoint(path: Path) -> WeightsHeader:
    """Read a file's head and make sure, as far as it tells, that it is a whole Stable Diffusion 1.x.

    Raises:
        ModelError: saying what it is instead: a pickle, damaged, another kind of model, a part of one.
    """
    try:
        header = read_header(path)
    except WeightsFileError as error:
        raise ModelError(str(error)) from error
    if kind := _other_kind(header, configuration_folder()):
        raise ModelError(f"{path.name} is {kind}. The studio works with whole models of Stable Diffusion 1.x.")
    lacking = [part for prefix, part in _PARTS.items() if not _has(header.tensors, prefix)]
    if len(lacking) == len(_PARTS):
        raise ModelError(
            f"{path.name} holds no Stable Diffusion checkpoint in the original layout: its tensors have names such as "
            f"{min(header.tensors, default='(none)')}. Choose another file, or a folder in diffusers' layout."
        )
    if lacking:
        raise ModelError(
            f"{path.name} has no {' and no '.join(lacking)}, so it is not a whole model. Choose a file that has all "
            "of U-Net, VAE and text encoder."
        )
    return header


def load_checkpoint(path: Path, dtype: torch.dtype) -> tuple[StableDiffusionPipeline, tuple[str, ...]]:
    """Read a checkpoint, on the CPU, and name the weights that its text encoder lacks.

    Raises:
        ModelError: where U-Net or VAE lack weights.
    """
    folder = configuration_folder()
    text_encoder, missing = _load_text_encoder(path, folder / "text_encoder", dtype)
    pipeline = StableDiffusionPipeline.from_single_file(
        str(path),
        config=str(folder),
        unet=_load_part(UNet2DConditionModel, "unet", path, dtype),
        vae=_load_part(AutoencoderKL, "vae", path, dtype),
        text_encoder=text_encoder,
        local_files_only=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipeline, missing


def _load_part(kind: type[FromOriginalModelMixin], part: str, path: Path, dtype: torch.dtype) -> nn.Module:
    try:
        module: nn.Module = kind.from_single_file(
            str(path), config=str(configuration_folder()), subfolder=part, dtype=dtype, local_files_only=True
        )
    except NotImplementedError as error:  # torch's word for moving a weight that no file gave
        raise ModelError(
            f"The {part} in {path} lacks some of its weights. Copy or download the model again."
        ) from error
    return module


def said_prediction_type(header: WeightsHeader) -> PredictionType:
    """What a file says of its U-Net's prediction (https://github.com/Stability-AI/ModelSpec); `auto` for nothing."""
    said = header.metadata.get("modelspec.prediction_type", "").lower()
    if said in ("v", "v_prediction"):
        return "v_prediction"
    return "epsilon" if said == "epsilon" else "auto"


def _load_text_encoder(path: Path, config: Path, dtype: torch.dtype) -> tuple[CLIPTextModel, tuple[str, ...]]:
    """Read by transformers itself, which knows what its versions call the layers, and tells what is missing."""
    with safe_open(path, framework="pt") as file:
        weights = {
            name.removeprefix(TEXT_PREFIX): file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118  # it has no iterator of its own
            if name.startswith(TEXT_PREFIX)
        }
    text_encoder, loading = CLIPTextModel.from_pretrained(
        None,
        config=CLIPTextConfig.from_pretrained(config, local_files_only=True),
        state_dict=weights,
        dtype=dtype,
        output_loading_info=True,
    )
    return text_encoder, tuple(sorted(loading["missing_keys"]))


def _other_kind(header: WeightsHeader, configuration: Path) -> str:
    for piece, kind in _OTHER_KINDS:
        if any(piece in name for name in header.tensors):
            return kind
    first = header.tensors.get(f"{UNET_PREFIX}input_blocks.0.0.weight")
    channels = first.shape[1] if first and len(first.shape) == 4 else 4
    if channels != 4:
        return _INPUT_CHANNELS.get(channels, f"a model whose U-Net takes {channels} channels, not 4")
    return _wrong_width(header, configuration)


def _wrong_width(header: WeightsHeader, configuration: Path) -> str:
    """How wide the text is that the U-Net listens to: it tells the families apart where a text encoder is missing."""
    wanted = json.loads(read_text(configuration / "unet" / "config.json"))["cross_attention_dim"]
    for name, info in header.tensors.items():
        if name.startswith(UNET_PREFIX) and name.endswith("attn2.to_k.weight"):
            width = info.shape[-1]
            return (
                "" if width == wanted else _WIDTH_KINDS.get(width, f"a model of another size ({width}, not {wanted})")
            )
    return ""


def _has(names: Collection[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
