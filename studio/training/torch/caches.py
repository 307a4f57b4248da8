"""Latents, masks and text embeddings, computed once and kept on the disk by content: another run finds them again.

Each is a small .npy file, read through memory mapping, named by the sha256 of all that it depends on, with the kind of
device and torch's version. Shapes: C latent channels, H and W an eighth of the image's, N tokens, D embedding width.
"""

import hashlib
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import nn

from studio.core.errors import TrainingError
from studio.core.files import assert_regular, read_file, write_atomically
from studio.core.language import _
from studio.core.paths import UserData
from studio.datasets.snapshot import MASK_BACKGROUND, MaskFile, SeenMask, see_mask
from studio.engine.denoise import set_tiling, vae_scale_factor
from studio.engine.memory import bit_sum
from studio.engine.models import Components
from studio.images.decoding import read_bytes, read_picture
from studio.training.folder import ShownVariants
from studio.training.settings import TrainingSettings
from studio.training.torch.data import TrainingItem, TrainingSet, captions_of
from studio.training.torch.processes import Processes, stop_if
from studio.training.variants import Variant, cut, small_jpegs


def read_item(item: TrainingItem) -> Image.Image:
    """The whole image, upright RGB, from the very bytes that the snapshot knows.

    Raises:
        TrainingError: where the file changed since, or cannot be read.
    """
    return _read_verified(item.path, item.sha256, item.key, background=item.background)


def _read_verified(path: Path, sha256: str, name: str, *, background: str) -> Image.Image:
    content, problem = read_bytes(path)
    if problem is not None:
        raise TrainingError(_("{name} can no longer be read: {reason}", name=name, reason=problem.sentence))
    if hashlib.sha256(content).hexdigest() != sha256:
        words = _("{name} is another file than when the run began. Put it back, or start a new run.", name=name)
        raise TrainingError(words)
    read = read_picture(content, path.name, background=background)
    if read.image is None:
        reason = next(problem.sentence for problem in read.problems if problem.severity == "reject")
        raise TrainingError(_("{name} cannot be read: {reason}", name=name, reason=reason))
    return read.image


def to_pixels(image: Image.Image) -> torch.Tensor:
    """(1, 3, height, width) in [-1, 1]."""
    levels_HWC = np.asarray(image, dtype=np.float32) / 127.5 - 1
    return torch.from_numpy(levels_HWC).permute(2, 0, 1)[None]


MAX_SHOWN = 12  # of the variants of an image


def show_variants(items: Sequence[TrainingItem]) -> ShownVariants | None:
    """Of the image that has the most; None where each is seen in one way.

    Raises:
        TrainingError: as `read_item`.
    """
    item = max(items, key=lambda item: (not item.is_prior, len(item.variants)))
    if len(item.variants) == 1:
        return None
    jpegs = small_jpegs(read_item(item), item.variants[:MAX_SHOWN], item.bucket)
    return ShownVariants(key=item.key, num_variants=len(item.variants), jpegs=jpegs)


def read_mask(item: TrainingItem, mask: MaskFile) -> Image.Image:
    """The whole mask, upright and grey, in its own size.

    Raises:
        TrainingError: where the file changed since, or cannot be read.
    """
    name = _("The mask {path} of {key}", path=mask.path, key=item.key)
    return _read_verified(Path(mask.path), mask.sha256, name, background=MASK_BACKGROUND).convert("L")


def mask_share(grey: Image.Image, item: TrainingItem, variant: Variant, *, vae_scale: int) -> torch.Tensor:
    """(1, height / scale, width / scale) in [0, 1]: each latent's share of white, cut as the image is."""
    if grey.size != (item.width, item.height):  # a mask may be of another size, as long as it shows the same
        grey = grey.resize((item.width, item.height), Image.Resampling.BOX)
    size = (item.bucket.width // vae_scale, item.bucket.height // vae_scale)
    kept = grey.crop(variant.crop).resize(size, Image.Resampling.BOX)
    if variant.flip:
        kept = ImageOps.mirror(kept)
    return torch.from_numpy(np.asarray(kept, dtype=np.float32) / 255)[None]


FORMAT = "3"  # raise it when what the files hold changes
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
    parts = [f"{name} {tuple(t.shape)} {t.dtype} {bit_sum(t)}" for name, t in sorted(module.state_dict().items())]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


class LatentCache:
    """The VAE's posterior of each variant: mean and deviation, so that sampling from it stays right."""

    def __init__(self, folder: Path, vae_digest: str, device_type: str) -> None:
        self._folder = folder
        self._made_by = (vae_digest, device_type, torch.__version__)

    def file(self, item: TrainingItem, variant: Variant) -> Path:
        """Where a variant lies, there or not."""
        seen = (item.sha256, item.background, variant.crop, item.bucket, variant.flip)
        brightness = (variant.brightness,) if variant.brightness else ()  # files from before there was any are found
        return cache_file(self._folder, repr((FORMAT, *self._made_by, *seen, *brightness)))

    def missing(self, items: Iterable[TrainingItem]) -> list[TrainingItem]:
        """Items of which at least one variant was not encoded yet, or whose file is damaged."""
        return [item for item in items if not all(is_whole(self.file(item, variant)) for variant in item.variants)]

    def encode(self, item: TrainingItem, components: Components) -> None:
        """Encode every variant of an image, one by one: in a batch the last bits would depend on the neighbours.

        Raises:
            TrainingError: where the file changed, cannot be read, or its latents are not finite.
            OSError: where the cache cannot be written.
        """
        image: Image.Image | None = None
        for variant in item.variants:
            file = self.file(item, variant)
            if is_whole(file):
                continue
            image = image or read_item(item)
            pixels = to_pixels(cut(image, variant, item.bucket))
            vae = components.vae
            set_tiling(vae, width=item.bucket.width, height=item.bucket.height)
            with torch.inference_mode():
                posterior = vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist
                moments_2CHW = torch.stack([posterior.mean[0], posterior.std[0]]).float().cpu()
            if not bool(torch.isfinite(moments_2CHW).all()):
                words = _(
                    "The VAE gives NaN or infinite latents for {key}, so it cannot be trained on. Exclude it; if it is "
                    "so for every image, the model's VAE is damaged or not in float32.",
                    key=item.key,
                )
                raise TrainingError(words)
            write_array(file, moments_2CHW.numpy())

    def moments(self, item: TrainingItem, variant: Variant) -> torch.Tensor:
        """(2, C, H, W) mean and deviation, unscaled, float32.

        Raises:
            TrainingError: where the file is gone or damaged.
        """
        return read_array(self.file(item, variant), _("the latents of {key}", key=item.key))


class MaskCache:
    """How white a mask is at each latent of each variant, and what was seen of the whole mask."""

    def __init__(self, folder: Path, vae_scale: int) -> None:
        self._folder = folder
        self._vae_scale = vae_scale

    def fill(self, item: TrainingItem) -> None:
        """Decode an image's mask, where it has one that is not in the cache.

        Raises:
            TrainingError: where the mask changed or cannot be read.
            OSError: where the cache cannot be written.
        """
        if item.mask is None or all(is_whole(self._file(item, variant)) for variant in (None, *item.variants)):
            return
        grey = read_mask(item, item.mask)
        for variant in item.variants:
            write_array(self._file(item, variant), mask_share(grey, item, variant, vae_scale=self._vae_scale).numpy())
        seen = see_mask(item.key, (item.width, item.height), grey)
        write_array(self._file(item, None), np.array([*seen.size, seen.brightest], dtype=np.int64))

    def share(self, item: TrainingItem, variant: Variant) -> torch.Tensor:
        """(1, H, W) in [0, 1]: each latent's share of white; 1 without a mask.

        Raises:
            TrainingError: where the file is gone or damaged.
        """
        if item.mask is None:
            return torch.ones(1, item.bucket.height // self._vae_scale, item.bucket.width // self._vae_scale)
        return read_array(self._file(item, variant), _("the mask of {key}", key=item.key))

    def seen(self, items: Iterable[TrainingItem]) -> list[SeenMask]:
        """Size and brightest level of every item's mask that has one."""
        masked = [item for item in items if item.mask is not None]
        rows = [read_array(self._file(item, None), _("the mask of {key}", key=item.key)).tolist() for item in masked]
        return [SeenMask(i.key, (i.width, i.height), (w, h), top) for i, (w, h, top) in zip(masked, rows, strict=True)]

    def _file(self, item: TrainingItem, variant: Variant | None) -> Path:
        assert item.mask is not None
        cut = (variant.crop, item.bucket, variant.flip) if variant else ()  # none: of the whole mask
        return cache_file(
            self._folder, repr((FORMAT, self._vae_scale, item.mask.sha256, item.width, item.height, *cut))
        )


class TextCache:
    """Embeddings of captions by one text encoder, which does not learn."""

    def __init__(self, folder: Path, text_digest: str, device_type: str) -> None:
        self._folder = folder
        self.made_by = (text_digest, device_type, torch.__version__)

    def file(self, caption: str) -> Path:
        """Where a caption's embedding lies, there or not."""
        return cache_file(self._folder, repr((FORMAT, *self.made_by, caption)))

    def missing(self, captions: Iterable[str]) -> list[str]:
        """Captions that were not encoded yet."""
        return [caption for caption in dict.fromkeys(captions) if not is_whole(self.file(caption))]

    def encode(self, caption: str, components: Components) -> None:
        """Encode one caption.

        Raises:
            TrainingError: where its embedding is not finite.
            OSError: where the cache cannot be written.
        """
        with torch.inference_mode():
            embedding_ND = encode_captions(components, [caption])[0].float().cpu()
        if not bool(torch.isfinite(embedding_ND).all()):
            words = _("The text encoder gives NaN for the caption {caption!r}. The model is damaged.", caption=caption)
            raise TrainingError(words)
        write_array(self.file(caption), embedding_ND.numpy())

    def embedding(self, caption: str) -> torch.Tensor:
        """(N, D) float32.

        Raises:
            TrainingError: where the file is gone or damaged.
        """
        return read_array(self.file(caption), _("the embedding of {caption!r}", caption=caption))


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


def cache_file(folder: Path, parts: str) -> Path:
    """Where an array lies that depends on these parts alone."""
    name = hashlib.sha256(parts.encode()).hexdigest()
    return folder / name[:2] / f"{name}.npy"


def write_array(file: Path, array: np.ndarray) -> None:
    """Write an array as .npy, and after it the sha256 of all that, which memory mapping passes over."""
    buffer = io.BytesIO()
    np.save(buffer, array)
    content = buffer.getvalue()
    write_atomically(file, content + hashlib.sha256(content).digest())


def is_whole(file: Path) -> bool:
    """Whether a file is there as it was written; a damaged one counts as missing and is made again."""
    try:  # its header is not parsed before: of a damaged one numpy raises whatever its tokenizer or zip reader does
        content = memoryview(read_file(file, max_bytes=None))
    except OSError:
        return False
    return hashlib.sha256(content[:-_DIGEST_BYTES]).digest() == content[-_DIGEST_BYTES:]


def read_array(file: Path, what: str) -> torch.Tensor:
    """What `write_array` wrote, or a `TrainingError` that says what is lost."""
    try:
        if not is_whole(file):
            raise FileNotFoundError(file)
        assert_regular(file)
        mapped = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:  # it is not there, is damaged, or went just now
        words = _("The cache lost {what} ({file}). Resume the run: it is computed again.", what=what, file=file)
        raise TrainingError(words) from error
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
) -> tuple[LatentCache, TextCache, MaskCache]:
    """Encode what no run before has encoded, masks first, which are quick; every process its share."""
    latents = LatentCache(user_data.cache / "latents", digests["vae"], processes.device.type)
    tokenizer = hashlib.sha256(components.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    texts = TextCache(user_data.cache / "embeddings", f"{digests['text_encoder']} {tokenizer}", processes.device.type)
    masks = MaskCache(user_data.cache / "masks", vae_scale_factor(components))
    captions = ["", *captions_of((*data.items, *data.held_out))]
    items = () if settings.makes_speed_lora else (*data.items, *data.held_out)  # its images are the teacher's
    for item in items[processes.index :: processes.count]:
        masks.fill(item)
        stop_if(cancelled)
    missing = latents.missing(items)
    for index, item in enumerate(missing):
        if index % processes.count == processes.index:
            latents.encode(item, components)
            report(_("Encoding images: {done:,} of {all:,}.", done=index + 1, all=len(missing)))
        stop_if(cancelled)
    if not (settings.train_text_encoder or settings.shuffle_caption):
        unknown = texts.missing(captions)
        for index, caption in enumerate(unknown):
            if index % processes.count == processes.index:
                texts.encode(caption, components)
                report(_("Encoding captions: {done:,} of {all:,}.", done=index + 1, all=len(unknown)))
            stop_if(cancelled)
    processes.wait()
    return latents, texts, masks
