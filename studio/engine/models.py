"""Finding a model and reading it from disk: always safetensors, always on the CPU first."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from studio.engine.precision import DTYPES
from studio.errors import ModelError
from studio.paths import assets_folder
from studio.settings import SHIPPED_MODEL, PrecisionName

logger = logging.getLogger(__name__)

# The seed report's model has left the Hub; its copy lives here.
MOVED_MODELS = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}

# Only what StableDiffusionPipeline reads: no pickles, no safety checker, no second copies in other precisions.
HUB_FILES = [
    "model_index.json",
    "scheduler/*.json",
    "tokenizer/*",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]


@dataclass(frozen=True)
class FoundModel:
    """A model folder in diffusers' layout, and what the user should know about how it was found."""

    name: str
    folder: Path
    notes: tuple[str, ...] = ()


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


def find_model(name: str) -> FoundModel:
    """The folder of the shipped model, of a path, or of a Hugging Face id (downloaded when it is not there).

    Raises:
        ModelError: where there is no such model, or it cannot be reached.
    """
    if name == SHIPPED_MODEL:
        return FoundModel(name, assets_folder() / SHIPPED_MODEL)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return FoundModel(folder.resolve().name, folder.resolve())
    if folder.is_file() or folder.is_absolute() or name.count("/") != 1:
        raise ModelError(
            f"There is no model folder {name}. Give the folder that holds model_index.json, a Hugging Face id "
            f"such as stable-diffusion-v1-5/stable-diffusion-v1-5, or {SHIPPED_MODEL}."
        )
    return _find_hub_model(name)


def _find_hub_model(name: str) -> FoundModel:
    """A Hub model: the local copy under this name or its new one, else a download of the files we need."""
    current = MOVED_MODELS.get(name, name)
    moved = f"{name} is no longer on Hugging Face; {current} is the same model and was used."
    for repository in dict.fromkeys((name, current)):
        try:
            folder = snapshot_download(repository, allow_patterns=HUB_FILES, local_files_only=True)
            return FoundModel(repository, Path(folder), (moved,) if repository != name else ())
        except (LocalEntryNotFoundError, HFValidationError):
            logger.info("%s has not been downloaded yet", repository)
    try:
        folder = snapshot_download(current, allow_patterns=HUB_FILES)
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError, OSError) as error:
        raise ModelError(
            f"The model {current} is not on this machine, and could not be downloaded from Hugging Face "
            f"({type(error).__name__}). Check its name and your connection, or give the folder of a copy."
        ) from error
    return FoundModel(current, Path(folder), (moved,) if current != name else ())


def load_components(model: FoundModel, precision: PrecisionName) -> Components:
    """Read a model folder into memory, on the CPU.

    Never `device_map`: its unsynchronised copies corrupt weights on MPS (diffusers PR #13308).

    Raises:
        ModelError: where files are missing, damaged, pickles, or of another kind of model.
    """
    _assert_stable_diffusion(model.folder)
    _assert_json(model.folder)
    _assert_safetensors(model.folder)
    _quiet_libraries()
    dtype = DTYPES[precision]
    try:
        # transformers fills what a file lacks with random numbers, so we ask it what was missing.
        text_encoder, loading = CLIPTextModel.from_pretrained(
            model.folder / "text_encoder",
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        pipeline = StableDiffusionPipeline.from_pretrained(
            model.folder,
            text_encoder=text_encoder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The model in {model.folder} cannot be read: {reason} "
            "It needs unet, vae and text_encoder as .safetensors, a tokenizer and a scheduler; "
            "copy or download it again."
        ) from error
    missing = sorted(loading["missing_keys"])
    if missing:
        raise ModelError(
            f"The text encoder in {model.folder} lacks {len(missing)} of its weights ({missing[0]}, …). "
            "Copy or download the model again."
        )
    for module in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        module.eval().requires_grad_(False)
    return Components(
        pipeline=pipeline,
        unet=pipeline.unet,
        vae=pipeline.vae,
        text_encoder=pipeline.text_encoder,
        tokenizer=pipeline.tokenizer,
    )


def _assert_safetensors(folder: Path) -> None:
    """Say of what only looks like a weights file what it is; a download that failed often leaves one."""
    for path in sorted(folder.glob("*/*.safetensors")):
        with path.open("rb") as file:
            head = file.read(64)
        if head.startswith(b"version https://git-lfs"):
            raise ModelError(
                f"{path} is a Git LFS pointer, not the weights themselves: fetch them with `git lfs pull`."
            )
        if head.lstrip()[:1] == b"<":
            raise ModelError(f"{path} is a web page saved under this name, not weights. Download the model again.")


def _assert_stable_diffusion(folder: Path) -> None:
    index = folder / "model_index.json"
    try:
        kind = json.loads(index.read_text(encoding="utf-8"))["_class_name"]
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} has no model_index.json, so it is not a model in diffusers' layout. "
            "Choose the folder that holds model_index.json, unet, vae, text_encoder, tokenizer and scheduler."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{index} cannot be read ({error}). Copy or download the model again.") from error
    if kind != "StableDiffusionPipeline":
        raise ModelError(
            f"{folder} holds a {kind}; the studio works with StableDiffusionPipeline (Stable Diffusion 1.x)."
        )


def _assert_json(folder: Path) -> None:
    """Every configuration is JSON: libraries answer a damaged one with anything, down to a bare Exception."""
    for path in sorted(folder.glob("*/*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError(f"{path} cannot be read ({error}). Copy or download the model again.") from error


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
