"""Finding a model, and checking all of it that is cheap to check, before anything is loaded. No torch."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from studio.core.errors import ModelError, WeightsFileError
from studio.core.files import assert_regular, open_file, read_text
from studio.core.language import N_, _
from studio.core.paths import assets_folder, typed_path
from studio.core.settings import SHIPPED_MODEL
from studio.engine.hub import (
    PARTS,
    PICKLE_STEMS,
    DownloadWatcher,
    find_hub_model,
    half_precision_parts,
    looks_like_hub_name,
)
from studio.loras.weights_file import PICKLE_ENDINGS, WeightsHeader, read_header

SAFETENSORS = ".safetensors"
# Far above those of any Stable Diffusion 1.x, far below what fills a memory: no model needs more.
CONFIGURATIONS = ("config.json", "scheduler_config.json", "tokenizer_config.json")
MAX_NUMBERS = {"num_train_timesteps": 10_000, "model_max_length": 1000, "max_position_embeddings": 1000}
MAX_LAYERS = 100
MAX_NUMBER = 1_000_000
MIN_TOKENS = 3  # a beginning, a word and an end
TILED_ABOVE_PIXELS = 1024 * 1024  # the VAE works on a larger image in tiles
TILE_PIXELS = 512  # a side
UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."
TEXT_PREFIX = "cond_stage_model.transformer."
_PARTS = {UNET_PREFIX: "U-Net", VAE_PREFIX: "VAE", TEXT_PREFIX: N_("text encoder")}
# What else comes as one .safetensors file, by a piece of a tensor's name that only it has; the first that fits counts.
_OTHER_KINDS = (
    ("lora_", N_("a LoRA, not a whole model: put it into the library of LoRAs and choose the model it was made for")),
    ("conditioner.embedders.", N_("a checkpoint of Stable Diffusion XL")),
    (f"{UNET_PREFIX}label_emb.", N_("a checkpoint of Stable Diffusion XL")),
    ("cond_stage_model.model.", N_("a checkpoint of Stable Diffusion 2.x")),
    ("joint_blocks.", N_("a checkpoint of Stable Diffusion 3")),
    ("double_blocks.", N_("a checkpoint of Flux")),
    ("control_model.", N_("a ControlNet, not a whole model")),
    ("emb_params", N_("a textual inversion embedding, not a whole model")),
    ("down_blocks.", N_("one part of a model in diffusers' layout: choose the folder that holds model_index.json")),
)
_INPUT_CHANNELS = {
    9: N_("a checkpoint for inpainting (its U-Net takes 9 channels, not 4)"),
    8: N_("a checkpoint for editing by instructions (its U-Net takes 8 channels, not 4)"),
}
_WIDTH_KINDS = {1024: N_("a checkpoint of Stable Diffusion 2.x"), 2048: N_("a checkpoint of Stable Diffusion XL")}


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
class ModelShape:
    """What of a model's configuration tells how much an image takes.

    Attributes:
        width, height: the model's own size in pixels.
        unet_channels, vae_channels: of the U-Net at full resolution, and of the VAE's decoder before it.
    """

    width: int = 512
    height: int = 512
    unet_channels: int = 320
    vae_channels: int = 256

    def image_bytes(self, *, width: int, height: int) -> int:
        """About what an image takes at most beside the weights, in float32, where no scores of attention are stored.

        Both grow with the pixels: a guided step of the U-Net holds the equal of 52 tensors of its first layers at a
        time, the decoder of the VAE three of its largest. `memory_forecast` counts every tensor, which takes seconds.
        """
        step = 52 * self.unet_channels * (width * height // 64)
        tiled = width * height > TILED_ABOVE_PIXELS
        decoding = 3 * self.vae_channels * (TILE_PIXELS**2 if tiled else width * height)
        return 4 * max(step, decoding)


def read_shape(name: str) -> ModelShape:
    """The shape of a model, named as in `ModelSettings.model`; that of Stable Diffusion 1.5 where no folder tells.

    Raises:
        ModelError: where a folder's configuration is none.
    """
    folder = assets_folder() / SHIPPED_MODEL if name == SHIPPED_MODEL else typed_path(name)
    files = [folder / part / "config.json" for part in ("unet", "vae")]
    if not all(file.is_file() for file in files):
        return ModelShape()
    try:
        unet, vae = (json.loads(read_text(file)) for file in files)
        channels: list[int] = vae["block_out_channels"]
        scale, sample = 2 ** (len(channels) - 1), unet["sample_size"]
        rows, columns = (sample, sample) if isinstance(sample, int) else sample
        shape = columns * scale, rows * scale, unet["block_out_channels"][0], channels[min(1, len(channels) - 1)]
        return ModelShape(*map(int, shape))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            _("{folder} has no configuration of a model ({error}). Choose another folder.", folder=folder, error=error)
        ) from error


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
            _(
                "There is no model folder or file {name}. Give the folder that holds "
                "model_index.json, a .safetensors file, a Hugging Face id such as "
                "stable-diffusion-v1-5/stable-diffusion-v1-5, or {shipped_model}.",
                name=name,
                shipped_model=SHIPPED_MODEL,
            )
        )
    found = find_hub_model(name, progress=progress)
    notes = (*found.notes, *_variant_notes(found.folder))
    return FoundModel(found.repository, found.folder, revision=found.revision, notes=notes)


def _variant_notes(folder: Path) -> tuple[str, ...]:
    parts = half_precision_parts(folder)
    if not parts:
        return ()
    return (
        _(
            "{name} has its {names} in float16 files only (.fp16.safetensors); they are used.",
            name=folder.name,
            names=" and ".join(parts),
        ),
    )


def check_model(model: FoundModel) -> None:
    """All that tells without loading it that a model cannot be loaded: every file's kind, head and length.

    Raises:
        ModelError: where files are missing, damaged, pickles, or of another kind of model.
    """
    if model.file:
        check_checkpoint(model.file)
        return
    _assert_stable_diffusion(model.folder)
    _assert_configurations(model.folder)
    _assert_safetensors(model.folder)


def assert_model_there(name: str) -> None:
    """A model that a job is to use can be found and passes `check_model`; one of the Hub is looked for when it runs.

    Raises:
        ModelError: where it is not there, or cannot be loaded.
    """
    if name == SHIPPED_MODEL or typed_path(name).exists() or not looks_like_hub_name(name):
        check_model(find_model(name))


def _assert_safetensors(folder: Path) -> None:
    """Say of what only looks like a weights file what it is; a download that failed often leaves one."""
    for part, stem in PICKLE_STEMS.items():
        pickles = [path for ending in PICKLE_ENDINGS for path in (folder / part).glob(f"{stem}*{ending}")]
        if pickles and not any((folder / part).glob("*.safetensors")):
            raise ModelError(
                _(
                    "{pickles} is a pickle: opening one can run any program that is hidden in it, so the "
                    "studio never does. It needs the {part} as .safetensors; get that file from where "
                    "the model comes from.",
                    pickles=pickles[0],
                    part=part,
                )
            )
    for path in sorted(folder.glob("*/*.safetensors")):
        with open_file(path) as file:
            head = file.read(64)
        if head.startswith(b"version https://git-lfs"):
            raise ModelError(
                _("{path} is a Git LFS pointer, not the weights themselves: fetch them with `git lfs pull`.", path=path)
            )
        if head.lstrip()[:1] == b"<":
            raise ModelError(
                _("{path} is a web page saved under this name, not weights. Download the model again.", path=path)
            )
        try:
            read_header(path)
        except WeightsFileError as error:
            raise ModelError(_("The model in {folder} cannot be read: {error}", folder=folder, error=error)) from error


def _assert_stable_diffusion(folder: Path) -> None:
    index = folder / "model_index.json"
    try:
        kind = json.loads(read_text(index))["_class_name"]
    except FileNotFoundError as error:
        raise ModelError(
            _(
                "{folder} has no model_index.json, so it is not a model in diffusers' layout. Choose "
                "the folder that holds model_index.json, unet, vae, text_encoder, tokenizer and "
                "scheduler, or a single .safetensors file.",
                folder=folder,
            )
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            _("{index} cannot be read ({error}). Copy or download the model again.", index=index, error=error)
        ) from error
    if kind != "StableDiffusionPipeline":
        raise ModelError(
            _(
                "{folder} holds a {kind}; the studio works with StableDiffusionPipeline (Stable Diffusion 1.x).",
                folder=folder,
                kind=kind,
            )
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
            raise ModelError(
                _("{path} cannot be read ({error}). Copy or download the model again.", path=path, error=error)
            ) from error


def _assert_bounds(path: Path, values: object) -> None:
    if path.name not in CONFIGURATIONS or not isinstance(values, dict):
        return
    for name, value in values.items():
        most = MAX_NUMBERS.get(name, MAX_LAYERS if "layers" in name else MAX_NUMBER)
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > MAX_NUMBERS["num_train_timesteps"]:  # betas, one for each of the timesteps
            raise ModelError(
                _(
                    "{name} in {path} must be a list of at most 10,000 numbers, got {num_numbers:,}.",
                    name=name,
                    path=path,
                    num_numbers=len(numbers),
                )
            )
        least = 1 if name in MAX_NUMBERS else -most
        for number in numbers:
            is_size = isinstance(number, int) or (isinstance(number, float) and name in MAX_NUMBERS)
            if is_size and not least <= number <= most:  # NaN neither
                raise ModelError(
                    _(
                        "{name} in {path} must be between {least:,} and {most:,}, got {number}. Copy or "
                        "download the model again.",
                        name=name,
                        path=path,
                        least=least,
                        most=most,
                        number=str(number)[:20],
                    )
                )


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
        raise ModelError(
            _(
                "{name} is {kind}. The studio works with whole models of Stable Diffusion 1.x.",
                name=path.name,
                kind=kind,
            )
        )
    lacking = [part for prefix, part in _PARTS.items() if not _has(header.tensors, prefix)]
    if len(lacking) == len(_PARTS):
        raise ModelError(
            _(
                "{name} holds no Stable Diffusion checkpoint in the original layout: its tensors "
                "have names such as {tensors}. Choose another file, or a folder in diffusers' layout.",
                name=path.name,
                tensors=min(header.tensors, default="(none)"),
            )
        )
    if lacking:
        raise ModelError(
            _(
                "{name} has no {names}, so it is not a whole model. Choose a file that has all of "
                "U-Net, VAE and text encoder.",
                name=path.name,
                names=_(" and no ").join(lacking),
            )
        )
    return header


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
