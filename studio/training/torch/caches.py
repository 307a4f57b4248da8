"""From image files to pixels, latents and text embeddings, kept by content.

From an image file to the pixels that the VAE reads: verified, cropped, scaled, mirrored.

Latents and text embeddings, computed once and kept on the disk by content: another run finds them again.

Each is a small .npy file, read through memory mapping, named by the sha256 of everything that it depends on, the kind
of device and torch's version included: each rounds in its own way. Shapes: C latent channels, H and W an eighth of the
image's, N = 77 tokens, D embedding width.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from studio.core.errors import CancelledError, PictureFileError, TrainingError
from studio.core.files import write_atomically
from studio.core.paths import UserData
from studio.datasets.rows import Bucket
from studio.engine.denoise import set_tiling
from studio.engine.memory import bit_sum
from studio.engine.models import Components
from studio.images.decoding import open_rgb, read_bytes, read_picture
from studio.training.settings import TrainingSettings
from studio.training.torch.data import Box, TrainingItem, TrainingSet
from studio.training.torch.processes import Processes


def read_item(item: TrainingItem) -> Image.Image:
    """The whole image, upright RGB, from the very bytes that the snapshot knows.

    Raises:
        TrainingError: where the file changed since, or cannot be read.
    """
    content, problem = read_bytes(item.path)
    if problem is not None:
        raise TrainingError(f"{item.key} can no longer be read: {problem.sentence}")
    if hashlib.sha256(content).hexdigest() != item.sha256:
        raise TrainingError(f"{item.key} is another file than when the run began. Put it back, or start a new run.")
    read = read_picture(content, item.path.name, background=item.background)
    if read.image is None:
        raise TrainingError(f"{item.key} can no longer be read: {read.problems[0].sentence}")
    return read.image


def crop_to_pixels(image: Image.Image, crop: Box, bucket: Bucket, *, flip: bool) -> torch.Tensor:
    """(1, 3, height, width) in [-1, 1]."""
    kept = image.crop(crop).resize((bucket.width, bucket.height), Image.Resampling.LANCZOS)
    if flip:
        kept = ImageOps.mirror(kept)
    levels_HWC = np.asarray(kept, dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(levels_HWC).permute(2, 0, 1)[None]


def mask_weights(
    mask: Path, item: TrainingItem, crop: Box, *, flip: bool, vae_scale: int, unmasked_weight: float
) -> torch.Tensor:
    """(1, height / scale, width / scale) in [unmasked_weight, 1]: each latent's share of white, cut as the image is.

    Raises:
        TrainingError: where the mask cannot be read.
    """
    try:
        # On black: white on transparent marks its white alone, as an eraser or a selection saves it.
        grey = open_rgb(mask, background="#000000").convert("L")
    except PictureFileError as error:
        raise TrainingError(f"The mask {mask} cannot be read: {error}") from error
    if grey.size != (item.width, item.height):  # a mask may be of another size, as long as it shows the same
        grey = grey.resize((item.width, item.height), Image.Resampling.BOX)
    kept = grey.crop(crop)
    kept = kept.resize((item.bucket.width // vae_scale, item.bucket.height // vae_scale), Image.Resampling.BOX)
    if flip:
        kept = ImageOps.mirror(kept)
    share_HW = torch.from_numpy(np.asarray(kept, dtype=np.float32) / 255)
    return (unmasked_weight + (1 - unmasked_weight) * share_HW)[None]


FORMAT = "2"  # raise it when what the files hold changes
_DIGEST_BYTES = 32


def digest_of(module: nn.Module) -> str:
    """sha256 over a module's weights and their names: another one for every other VAE or text encoder."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint_of(module: nn.Module) -> str:
    """sha256 over the sum of each tensor's bits: sees every changed number, at the speed of memory."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} {bit_sum(tensor)}".encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Variant:
    """One way in which an image is seen: which crop, mirrored or not."""

    crop: Box
    flip: bool


def variants_of(item: TrainingItem, *, horizontal_flip: bool) -> tuple[Variant, ...]:
    """Every way in which training may see the image."""
    flips = (False, True) if horizontal_flip else (False,)
    return tuple(Variant(crop, flip) for crop in item.crops for flip in flips)


class LatentCache:
    """The VAE's posterior of each variant: mean and deviation, so that sampling from it stays right."""

    def __init__(self, folder: Path, vae_digest: str, device_type: str) -> None:
        self._folder = folder
        self._made_by = (vae_digest, device_type, torch.__version__)

    def file(self, item: TrainingItem, variant: Variant) -> Path:
        """Where a variant lies, there or not."""
        seen = (item.sha256, item.background, variant.crop, item.bucket, variant.flip)
        return _place(self._folder, repr((FORMAT, *self._made_by, *seen)))

    def missing(self, items: Iterable[TrainingItem], *, horizontal_flip: bool) -> list[TrainingItem]:
        """Items of which at least one variant was not encoded yet, or whose file is damaged."""
        return [
            item
            for item in items
            if not all(_is_whole(self.file(item, v)) for v in variants_of(item, horizontal_flip=horizontal_flip))
        ]

    def encode(self, item: TrainingItem, components: Components, *, horizontal_flip: bool) -> None:
        """Encode every variant of an image, one by one: in a batch the last bits would depend on the neighbours.

        Raises:
            TrainingError: where the file changed, cannot be read, or its latents are not finite.
            OSError: where the cache cannot be written.
        """
        image: Image.Image | None = None
        for variant in variants_of(item, horizontal_flip=horizontal_flip):
            file = self.file(item, variant)
            if _is_whole(file):
                continue
            image = image or read_item(item)
            pixels = crop_to_pixels(image, variant.crop, item.bucket, flip=variant.flip)
            vae = components.vae
            set_tiling(vae, width=item.bucket.width, height=item.bucket.height)
            with torch.inference_mode():
                posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
                moments_2CHW = torch.stack([posterior.mean[0], posterior.std[0]]).float().cpu()
            if not bool(torch.isfinite(moments_2CHW).all()):
                raise TrainingError(
                    f"The VAE gives NaN or infinite latents for {item.key}, so it cannot be trained on. Exclude it; if "
                    "it is so for every image, the model's VAE is damaged or not in float32."
                )
            _write(file, moments_2CHW.numpy())

    def moments(self, item: TrainingItem, variant: Variant) -> torch.Tensor:
        """(2, C, H, W) mean and deviation, unscaled, float32.

        Raises:
            TrainingError: where the file is gone or damaged.
        """
        return _read(self.file(item, variant), f"the latents of {item.key}")


class TextCache:
    """Embeddings of captions by one text encoder, which does not learn."""

    def __init__(self, folder: Path, text_digest: str, device_type: str) -> None:
        self._folder = folder
        self._made_by = (text_digest, device_type, torch.__version__)

    def file(self, caption: str) -> Path:
        """Where a caption's embedding lies, there or not."""
        return _place(self._folder, repr((FORMAT, *self._made_by, caption)))

    def missing(self, captions: Iterable[str]) -> list[str]:
        """Captions that were not encoded yet."""
        return [caption for caption in dict.fromkeys(captions) if not _is_whole(self.file(caption))]

    def encode(self, caption: str, components: Components) -> None:
        """Encode one caption.

        Raises:
            TrainingError: where its embedding is not finite.
            OSError: where the cache cannot be written.
        """
        with torch.inference_mode():
            embedding_ND = encode_captions(components, [caption])[0].float().cpu()
        if not bool(torch.isfinite(embedding_ND).all()):
            raise TrainingError(f"The text encoder gives NaN for the caption {caption!r}. The model is damaged.")
        _write(self.file(caption), embedding_ND.numpy())

    def embedding(self, caption: str) -> torch.Tensor:
        """(N, D) float32.

        Raises:
            TrainingError: where the file is gone or damaged.
        """
        return _read(self.file(caption), f"the embedding of {caption!r}")


def token_ids(components: Components, captions: Sequence[str]) -> torch.Tensor:
    """(len(captions), 77) ids; every character of a caption is a word's: training knows no weights and no tags."""
    encoded = components.tokenizer(
        list(captions), padding="max_length", max_length=77, truncation=True, return_tensors="pt"
    )
    ids: torch.Tensor = encoded.input_ids
    return ids


def encode_captions(components: Components, captions: Sequence[str]) -> torch.Tensor:
    """(len(captions), 77, D): what the U-Net reads."""
    encoder = components.text_encoder
    embeddings: torch.Tensor = encoder(token_ids(components, captions).to(encoder.device))[0]
    return embeddings


def _place(folder: Path, parts: str) -> Path:
    name = hashlib.sha256(parts.encode()).hexdigest()
    return folder / name[:2] / f"{name}.npy"


def _write(file: Path, array: np.ndarray) -> None:
    """The array as .npy, and after it the sha256 of all that, which memory mapping passes over."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = buffer.getvalue()
    write_atomically(file, content + hashlib.sha256(content).digest())


def _is_whole(file: Path) -> bool:
    """Whether a file is there as it was written; a damaged one counts as missing and is made again.

    Its header is not parsed before: of a damaged one numpy raises whatever its tokenizer or zip reader does.
    """
    try:
        content = memoryview(file.read_bytes())
    except OSError:
        return False
    return hashlib.sha256(content[:-_DIGEST_BYTES]).digest() == content[-_DIGEST_BYTES:]


def _read(file: Path, what: str) -> torch.Tensor:
    lost = f"The cache lost {what} ({file}). Resume the run: it is computed again."
    if not _is_whole(file):
        raise TrainingError(lost)
    try:
        mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:  # it went just now
        raise TrainingError(lost) from error
    return torch.from_numpy(np.array(mapped))


def fill_caches(
    settings: TrainingSettings,
    data: TrainingSet,
    components: Components,
    digests: Mapping[str, str],
    *,
    user_data: UserData,
    processes: Processes,
    report: Callable[[str], None],
    cancelled: Callable[[], bool],
) -> tuple[LatentCache, TextCache]:
    """Encode what no run before has encoded; every process its share."""
    latents = LatentCache(user_data.cache / "latents", digests["vae"], processes.device.type)
    tokenizer = hashlib.sha256(components.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    texts = TextCache(user_data.cache / "embeddings", f"{digests['text_encoder']} {tokenizer}", processes.device.type)
    items = (*data.items, *data.held_out)
    missing = latents.missing(items, horizontal_flip=settings.horizontal_flip)
    for index, item in enumerate(missing):
        if index % processes.count == processes.index:
            latents.encode(item, components, horizontal_flip=settings.horizontal_flip)
            report(f"Encoding images: {index + 1:,} of {len(missing):,}.")
        _stop_if(cancelled)
    if not (settings.train_text_encoder or settings.shuffle_caption):
        captions = texts.missing(["", *(item.caption for item in items)])
        for index, caption in enumerate(captions):
            if index % processes.count == processes.index:
                texts.encode(caption, components)
                report(f"Encoding captions: {index + 1:,} of {len(captions):,}.")
            _stop_if(cancelled)
    processes.wait()
    return latents, texts


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise CancelledError("Stopped before the first step. What was encoded is kept; resume to continue.")
