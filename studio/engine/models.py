"""Reading a model from disk, a folder or one file, without network: always safetensors, always on the CPU first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.loaders import FromOriginalModelMixin
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from studio.core.errors import ModelError
from studio.core.language import _
from studio.core.settings import PrecisionName, PredictionType
from studio.engine.device import DTYPES
from studio.engine.model_files import MIN_TOKENS, TEXT_PREFIX, FoundModel, check_model, configuration_folder
from studio.engine.model_folder import half_precision_parts
from studio.loras.weights_file import WeightsHeader, read_header


@dataclass(frozen=True)
class Components:
    """The parts of Stable Diffusion. `pipeline` holds the same parts, for what diffusers does with a whole."""

    pipeline: StableDiffusionPipeline
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer

    def modules(self) -> dict[str, nn.Module]:
        """The parts that have parameters, by diffusers' names."""
        return {"unet": self.unet, "vae": self.vae, "text_encoder": self.text_encoder}

    def num_parameters(self) -> int:
        return sum(p.numel() for module in self.modules().values() for p in module.parameters())


def load_components(
    model: FoundModel, precision: PrecisionName, *, prediction_type: PredictionType = "auto"
) -> Components:
    """Read a model into memory, on the CPU.

    Never `device_map`: its unsynchronised copies corrupt weights on MPS (diffusers PR #13308).

    Args:
        model: what `find_model` found.
        precision: what every weight is brought to.
        prediction_type: what the U-Net predicts; `auto` is what the model's scheduler or its file says.

    Raises:
        ModelError: where files are missing, damaged, pickles, or of another kind of model.
    """
    place = model.file or model.folder
    check_model(model)
    if model.file and prediction_type == "auto":
        prediction_type = said_prediction_type(read_header(model.file))
    _quiet_libraries()
    try:
        read = _load_checkpoint if model.file else _load_folder
        pipeline, missing = read(place, DTYPES[precision])
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            _(
                "The model in {place} cannot be read: {reason} It needs unet, vae and text_encoder "
                "as .safetensors, a tokenizer and a scheduler; copy or download it again.",
                place=place,
                reason=reason,
            )
        ) from error
    _assert_whole(pipeline, missing, place)
    _assert_tokens_fit(pipeline, place)
    if prediction_type != "auto":
        scheduler = pipeline.scheduler
        pipeline.scheduler = type(scheduler).from_config(scheduler.config, prediction_type=prediction_type)
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.eval().requires_grad_(False)
    return Components(
        pipeline=pipeline,
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
    )


def _load_folder(folder: Path, dtype: torch.dtype) -> tuple[StableDiffusionPipeline, tuple[str, ...]]:
    """Read a folder, and name the weights that its text encoder lacks: transformers would fill them with noise."""
    half = half_precision_parts(folder)
    text_encoder, loading = CLIPTextModel.from_pretrained(
        folder / "text_encoder",
        dtype=dtype,
        variant="fp16" if "text_encoder" in half else None,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    pipeline = StableDiffusionPipeline.from_pretrained(
        folder,
        text_encoder=text_encoder,
        dtype=dtype,
        variant="fp16" if half else None,
        use_safetensors=True,
        local_files_only=True,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    return pipeline, tuple(sorted(loading["missing_keys"]))


def _load_checkpoint(path: Path, dtype: torch.dtype) -> tuple[StableDiffusionPipeline, tuple[str, ...]]:
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
            _("The {part} in {path} lacks some of its weights. Copy or download the model again.", part=part, path=path)
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


def _assert_whole(pipeline: StableDiffusionPipeline, missing: Sequence[str], place: Path) -> None:
    """Every weight came from the file: none is a random number, none is without memory."""
    lacking = {
        _("text encoder"): [*missing],
        "U-Net": _unread_weights(pipeline.unet),
        "VAE": _unread_weights(pipeline.vae),
    }
    for part, names in lacking.items():
        if names:
            raise ModelError(
                _(
                    "The {part} in {place} lacks {num_missing} of its weights ({weight}, …). Copy or "
                    "download the model again.",
                    part=part,
                    place=place,
                    num_missing=len(names),
                    weight=names[0],
                )
            )


def _unread_weights(module: nn.Module) -> list[str]:
    """Parameters that no file gave: diffusers leaves them without memory."""
    return [name for name, parameter in module.named_parameters() if parameter.is_meta]


def _assert_tokens_fit(pipeline: StableDiffusionPipeline, place: Path) -> None:
    """A prompt is filled up to the length that the tokenizer says, and the text encoder has no more places."""
    said, places = pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.max_position_embeddings
    if not MIN_TOKENS <= said <= places:
        raise ModelError(
            _(
                "model_max_length of the tokenizer in {place} must be between {min_tokens} and "
                "{places}, which is what its text encoder reads, got {said:g}. Copy or download the "
                "model again.",
                place=place,
                min_tokens=MIN_TOKENS,
                places=places,
                said=said,
            )
        )


def _quiet_libraries() -> None:
    """Keep progress bars and advice of the libraries out of our log; errors still come through."""
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def move_components(components: Components, device: torch.device) -> None:
    """Move every part to the device, one after the other."""
    for module in components.modules().values():
        module.to(device)
