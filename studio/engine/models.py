"""Finding a model and reading it from disk: always safetensors, always on the CPU first."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors import SafetensorError
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from studio.core.errors import ModelError
from studio.core.files import assert_regular, open_file, read_text
from studio.core.paths import assets_folder, typed_path
from studio.core.settings import SHIPPED_MODEL, PrecisionName, PredictionType
from studio.engine.device import DTYPES
from studio.engine.hub import (
    PARTS,
    PICKLE_STEMS,
    DownloadWatcher,
    find_hub_model,
    half_precision_parts,
    looks_like_hub_name,
)
from studio.engine.single_file import check_checkpoint, load_checkpoint, said_prediction_type
from studio.loras.weights_file import PICKLE_ENDINGS

SAFETENSORS = ".safetensors"

# Far above those of any Stable Diffusion 1.x, far below what fills a memory: no model needs more.
CONFIGURATIONS = ("config.json", "scheduler_config.json", "tokenizer_config.json")
MAX_NUMBERS = {"num_train_timesteps": 10_000, "model_max_length": 1000, "max_position_embeddings": 1000}
MAX_LAYERS = 100
MAX_NUMBER = 1_000_000
MIN_TOKENS = 3  # a beginning, a word and an end


@dataclass(frozen=True)
class FoundModel:
    """A model folder in diffusers' layout, and what the user should know about how it was found.

    Where `file` is given, the model is that one file, and `folder` only the one it lies in. `revision` is the commit
    of a model from Hugging Face, else empty.
    """

    name: str
    folder: Path
    file: Path | None = None
    revision: str = ""
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


def find_model(name: str, *, progress: DownloadWatcher | None = None) -> FoundModel:
    """The shipped model, a folder, a single file, or a Hugging Face id (downloaded when it is not there).

    Args:
        name: as in `ModelSettings.model`.
        progress: told how far a download is, asked whether to stop.

    Raises:
        ModelError: where there is no such model, it cannot be reached, or a file is not what it should be.
        DownloadCancelledError: where `progress` asked to stop.
    """
    if name == SHIPPED_MODEL:
        return FoundModel(name, assets_folder() / SHIPPED_MODEL)
    path = typed_path(name)
    if path.is_dir():
        folder = path.resolve()
        return FoundModel(folder.name, folder, notes=_variant_notes(folder))
    if path.is_file():
        file = path.resolve()
        check_checkpoint(file)
        return FoundModel(file.stem, file.parent, file=file)
    if not looks_like_hub_name(name) or path.suffix.lower() in (SAFETENSORS, *PICKLE_ENDINGS):
        raise ModelError(
            f"There is no model folder or file {name}. Give the folder that holds model_index.json, a .safetensors "
            "file, a Hugging Face id such as stable-diffusion-v1-5/stable-diffusion-v1-5, or "
            f"{SHIPPED_MODEL}."
        )
    found = find_hub_model(name, progress=progress)
    notes = (*found.notes, *_variant_notes(found.folder))
    return FoundModel(found.repository, found.folder, revision=found.revision, notes=notes)


def _variant_notes(folder: Path) -> tuple[str, ...]:
    parts = half_precision_parts(folder)
    if not parts:
        return ()
    return (f"{folder.name} has its {' and '.join(parts)} in float16 files only (.fp16.safetensors); they are used.",)


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
    if model.file:
        header = check_checkpoint(model.file)
        prediction_type = said_prediction_type(header) if prediction_type == "auto" else prediction_type
    else:
        _assert_stable_diffusion(model.folder)
        _assert_configurations(model.folder)
        _assert_safetensors(model.folder)
    _quiet_libraries()
    try:
        read = load_checkpoint if model.file else _load_folder
        pipeline, missing = read(place, DTYPES[precision])
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"The model in {place} cannot be read: {reason} "
            "It needs unet, vae and text_encoder as .safetensors, a tokenizer and a scheduler; "
            "copy or download it again."
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


def _assert_whole(pipeline: StableDiffusionPipeline, missing: Sequence[str], place: Path) -> None:
    """Every weight came from the file: none is a random number, none is without memory."""
    lacking = {
        "text encoder": [*missing],
        "U-Net": _unread_weights(pipeline.unet),
        "VAE": _unread_weights(pipeline.vae),
    }
    for part, names in lacking.items():
        if names:
            raise ModelError(
                f"The {part} in {place} lacks {len(names)} of its weights ({names[0]}, …). "
                "Copy or download the model again."
            )


def _unread_weights(module: nn.Module) -> list[str]:
    """Parameters that no file gave: diffusers leaves them without memory."""
    return [name for name, parameter in module.named_parameters() if parameter.is_meta]


def _assert_safetensors(folder: Path) -> None:
    """Say of what only looks like a weights file what it is; a download that failed often leaves one."""
    for part, stem in PICKLE_STEMS.items():
        pickles = [path for ending in PICKLE_ENDINGS for path in (folder / part).glob(f"{stem}*{ending}")]
        if pickles and not any((folder / part).glob("*.safetensors")):
            raise ModelError(
                f"{pickles[0]} is a pickle: opening one can run any program that is hidden in it, so the studio never "
                f"does. It needs the {part} as .safetensors; get that file from where the model comes from."
            )
    for path in sorted(folder.glob("*/*.safetensors")):
        with open_file(path) as file:
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
        kind = json.loads(read_text(index))["_class_name"]
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} has no model_index.json, so it is not a model in diffusers' layout. Choose the folder that "
            "holds model_index.json, unet, vae, text_encoder, tokenizer and scheduler, or a single .safetensors file."
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{index} cannot be read ({error}). Copy or download the model again.") from error
    if kind != "StableDiffusionPipeline":
        raise ModelError(
            f"{folder} holds a {kind}; the studio works with StableDiffusionPipeline (Stable Diffusion 1.x)."
        )


def _assert_configurations(folder: Path) -> None:
    """Every file is one, and every configuration JSON: libraries answer a damaged one with anything, down to a bare
    Exception, and numbers out of bounds with all the memory there is.
    """
    for path in sorted(path for part in PARTS for path in (folder / part).glob("*")):
        try:
            if path.suffix == ".json":
                _assert_bounds(path, json.loads(read_text(path)))
            elif not path.is_dir():
                assert_regular(path)
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(f"{path} cannot be read ({error}). Copy or download the model again.") from error


def _assert_bounds(path: Path, values: object) -> None:
    if path.name not in CONFIGURATIONS or not isinstance(values, dict):
        return
    for name, value in values.items():
        most = MAX_NUMBERS.get(name, MAX_LAYERS if "layers" in name else MAX_NUMBER)
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > MAX_NUMBERS["num_train_timesteps"]:  # betas, one for each of the timesteps
            raise ModelError(f"{name} in {path} must be a list of at most 10,000 numbers, got {len(numbers):,}.")
        least = 1 if name in MAX_NUMBERS else -most
        for number in numbers:
            is_size = isinstance(number, int) or (isinstance(number, float) and name in MAX_NUMBERS)
            if is_size and not least <= number <= most:  # NaN neither
                raise ModelError(
                    f"{name} in {path} must be between {least:,} and {most:,}, got {str(number)[:20]}. "
                    "Copy or download the model again."
                )


def _assert_tokens_fit(pipeline: StableDiffusionPipeline, place: Path) -> None:
    """A prompt is filled up to the length that the tokenizer says, and the text encoder has no more places."""
    said, places = pipeline.tokenizer.model_max_length, pipeline.text_encoder.config.max_position_embeddings
    if not MIN_TOKENS <= said <= places:
        raise ModelError(
            f"model_max_length of the tokenizer in {place} must be between {MIN_TOKENS} and {places}, which is what "
            f"its text encoder reads, got {said:g}. Copy or download the model again."
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
