"""Reading a checkpoint of Stable Diffusion 1.x from one `.safetensors` file in the original layout, without network."""

from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import FromOriginalModelMixin
from safetensors import safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from studio.core.errors import ModelError
from studio.core.settings import PredictionType
from studio.engine.model_files import TEXT_PREFIX, configuration_folder
from studio.loras.weights_file import WeightsHeader


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
