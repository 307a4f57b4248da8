"""Finding a model, and checking all of it that is cheap to check, before anything is loaded. No torch."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from studio.core.errors import ModelError, WeightsFileError
from studio.core.files import read_text
from studio.core.language import N_, _
from studio.core.paths import assets_folder, typed_path
from studio.core.settings import SHIPPED_MODEL
from studio.engine.hub import DownloadWatcher, find_hub_model, looks_like_hub_name
from studio.engine.model_folder import check_folder, half_precision_parts
from studio.loras.weights_file import PICKLE_ENDINGS, WeightsHeader, read_header

SAFETENSORS = ".safetensors"
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
                "stable-diffusion-v1-5/stable-diffusion-v1-5, or {shipped}.",
                name=name,
                shipped=SHIPPED_MODEL,
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
            "{name} has its {parts} in float16 files only (.fp16.safetensors); they are used.",
            name=folder.name,
            parts=_(" and ").join(parts),
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
    check_folder(model.folder)


def assert_model_there(name: str) -> None:
    """A model that a job is to use can be found and passes `check_model`; one of the Hub is looked for when it runs.

    Raises:
        ModelError: where it is not there, or cannot be loaded.
    """
    if name == SHIPPED_MODEL or typed_path(name).exists() or not looks_like_hub_name(name):
        check_model(find_model(name))


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
    lacking = [_(part) for prefix, part in _PARTS.items() if not _has(header.tensors, prefix)]
    if len(lacking) == len(_PARTS):
        raise ModelError(
            _(
                "{name} holds no Stable Diffusion checkpoint in the original layout: its tensors "
                "have names such as {tensor}. Choose another file, or a folder in diffusers' layout.",
                name=path.name,
                tensor=min(header.tensors, default=_("(none)")),
            )
        )
    if lacking:
        raise ModelError(
            _(
                "{name} has no {parts}, so it is not a whole model. Choose a file that has all of "
                "U-Net, VAE and text encoder.",
                name=path.name,
                parts=_(" and no ").join(lacking),
            )
        )
    return header


def _other_kind(header: WeightsHeader, configuration: Path) -> str:
    for piece, kind in _OTHER_KINDS:
        if any(piece in name for name in header.tensors):
            return _(kind)
    first = header.tensors.get(f"{UNET_PREFIX}input_blocks.0.0.weight")
    channels = first.shape[1] if first and len(first.shape) == 4 else 4
    if channels in _INPUT_CHANNELS:
        return _(_INPUT_CHANNELS[channels])
    if channels != 4:
        return _("a model whose U-Net takes {channels} channels, not 4", channels=channels)
    return _wrong_width(header, configuration)


def _wrong_width(header: WeightsHeader, configuration: Path) -> str:
    """How wide the text is that the U-Net listens to: it tells the families apart where a text encoder is missing."""
    wanted = json.loads(read_text(configuration / "unet" / "config.json"))["cross_attention_dim"]
    for name, info in header.tensors.items():
        if name.startswith(UNET_PREFIX) and name.endswith("attn2.to_k.weight"):
            width = info.shape[-1]
            if width == wanted:
                return ""
            if width in _WIDTH_KINDS:
                return _(_WIDTH_KINDS[width])
            return _("a model of another size ({width}, not {wanted})", width=width, wanted=wanted)
    return ""


def _has(names: Collection[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
