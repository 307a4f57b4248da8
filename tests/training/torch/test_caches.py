"""What was encoded once is found again, whole or not at all, and never for anything else."""

import copy
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import nn

from studio.core.errors import TrainingError
from studio.core.paths import UserData
from studio.datasets.snapshot import Snapshot
from studio.engine.models import Components
from studio.engine.pipeline import PipelineManager
from studio.training.torch.caches import (
    LatentCache,
    TextCache,
    digest_of,
    fill_caches,
    fingerprint_of,
)
from studio.training.torch.data import TrainingItem, make_training_set
from studio.training.torch.processes import Processes
from studio.training.variants import Variant
from tests.training.torch.parts import items_of, save_picture, settings_of, snapshot_of


@pytest.fixture(scope="session")
def parts(training_manager: PipelineManager) -> Components:
    """The shipped model's parts. They are only read: take `components` to change them."""
    return training_manager.components


@pytest.fixture
def latents(tmp_path: Path) -> LatentCache:
    return LatentCache(tmp_path / "latents", "a VAE", "cpu")


@pytest.fixture
def item(tmp_path: Path) -> TrainingItem:
    """An image of its own, of which training sees the middle."""
    save_picture(tmp_path / "own" / "shoe.png", size=(100, 70))
    (made,) = items_of(snapshot_of(tmp_path / "own"), use_buckets=False)
    return made


def encode(cache: LatentCache, item: TrainingItem, components: Components) -> Path:
    """Encode an item and give the file of its first variant."""
    cache.encode(item, components)
    return cache.file(item, item.variants[0])


def with_mirror(item: TrainingItem) -> TrainingItem:
    """As with mirroring switched on."""
    return replace(item, variants=(*item.variants, *(replace(variant, flip=True) for variant in item.variants)))


def moments_by_hand(image: Image.Image, components: Components, size: tuple[int, int]) -> torch.Tensor:
    """(2, C, H, W) of an image that is cut already."""
    scaled = np.asarray(image.resize(size, Image.Resampling.LANCZOS)).astype(np.float64)
    pixels = torch.from_numpy(scaled / 255 * 2 - 1).float().movedim(2, 0).unsqueeze(0)
    with torch.no_grad():
        posterior = components.vae.encode(pixels).latent_dist
    return torch.cat([posterior.mean, posterior.std])


def test_the_cache_holds_what_the_vae_makes_of_the_crop(
    latents: LatentCache, item: TrainingItem, parts: Components
) -> None:
    encode(latents, item, parts)
    with Image.open(item.path) as image:
        wanted = moments_by_hand(image.convert("RGB").crop((15, 0, 85, 70)), parts, (64, 64))
    found = latents.moments(item, item.variants[0])
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_mirrored_variant_is_the_mirrored_picture_encoded(
    latents: LatentCache, item: TrainingItem, parts: Components
) -> None:
    encode(latents, with_mirror(item), parts)
    with Image.open(item.path) as image:
        mirrored = ImageOps.mirror(image.convert("RGB").crop((15, 0, 85, 70)))
    found = latents.moments(item, replace(item.variants[0], flip=True))
    torch.testing.assert_close(found, moments_by_hand(mirrored, parts, (64, 64)), atol=1e-5, rtol=1e-5)
    plain = latents.moments(item, item.variants[0])
    assert (found - plain.flip(-1)).abs().max() > 1e-3, "the VAE is not symmetrical: turning latents round is not it"


def test_each_random_crop_is_that_window_encoded(latents: LatentCache, tmp_path: Path, parts: Components) -> None:
    save_picture(tmp_path / "own" / "shoe.png", size=(180, 70))
    (item,) = items_of(snapshot_of(tmp_path / "own"), use_buckets=False, crop="random")
    assert len(item.variants) > 1
    encode(latents, item, parts)
    with Image.open(item.path) as image:
        for variant in item.variants:
            wanted = moments_by_hand(image.convert("RGB").crop(variant.crop), parts, (64, 64))
            torch.testing.assert_close(latents.moments(item, variant), wanted, atol=1e-5, rtol=1e-5)


def test_a_second_run_touches_nothing(tmp_path: Path, snapshot: Snapshot, parts: Components) -> None:
    items = items_of(snapshot, horizontal_flip=True)

    def run() -> None:
        latents, texts = LatentCache(tmp_path / "l", "v", "cpu"), TextCache(tmp_path / "t", "e", "cpu")
        for item in latents.missing(items):
            latents.encode(item, parts)
        for caption in texts.missing(["", *(item.caption for item in items)]):
            texts.encode(caption, parts)

    def states() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}

    run()
    first = states()
    assert len(first) == 2 * len(items) + len({item.caption for item in items}) + 1
    run()
    assert states() == first


def test_every_caption_of_an_image_is_encoded_before_the_first_step(
    tmp_path: Path, snapshot: Snapshot, parts: Components
) -> None:
    several = {"caption": "a red shoe || red sneakers"}
    entries = tuple(entry.model_copy(update=several) for entry in snapshot.entries)
    settings = settings_of(trigger_word="sks", held_out_percent=50)
    data = make_training_set(Snapshot(snapshot.header, entries), settings, resolution=64)
    processes = Processes(cpu_only=True, mixed_precision="no")
    place, digests = UserData(tmp_path), {"vae": "v", "text_encoder": "t"}
    __, texts, __ = fill_caches(
        settings,
        data,
        parts,
        digests,
        user_data=place,
        processes=processes,
        report=lambda words: None,
        cancelled=lambda: False,
    )
    for caption in ("", "sks, a red shoe", "sks, red sneakers"):
        expected, _ = parts.pipeline.encode_prompt(caption, torch.device("cpu"), 1, False)
        torch.testing.assert_close(texts.embedding(caption), expected[0], atol=1e-5, rtol=1e-5)


def test_encoding_again_what_is_there_touches_nothing(
    latents: LatentCache, item: TrainingItem, parts: Components
) -> None:
    before = encode(latents, item, parts).stat()
    assert encode(latents, item, parts).stat().st_mtime_ns == before.st_mtime_ns


def test_mirroring_that_is_switched_on_later_encodes_only_the_mirrored(
    latents: LatentCache, item: TrainingItem, parts: Components
) -> None:
    file = encode(latents, item, parts)
    before = file.stat().st_mtime_ns
    assert latents.missing([item]) == []
    assert latents.missing([with_mirror(item)]) == [with_mirror(item)]
    encode(latents, with_mirror(item), parts)
    assert file.stat().st_mtime_ns == before
    assert latents.missing([with_mirror(item)]) == []


def test_more_variants_encode_what_is_new_alone(latents: LatentCache, tmp_path: Path, parts: Components) -> None:
    save_picture(tmp_path / "own" / "shoe.png", size=(180, 130))
    changes = {"brightness_jitter_percent": 20, "scale_jitter_percent": 30}
    few, more, other = (
        items_of(snapshot_of(tmp_path / "own"), **values)
        for values in (
            {**changes, "num_variants": 3},
            {**changes, "num_variants": 5},
            {**changes, "num_variants": 3, "brightness_jitter_percent": 10},
        )
    )
    latents.encode(few[0], parts)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npy")}
    assert len(before) == 3
    assert latents.missing(few) == []
    assert latents.missing(more) == list(more)
    assert latents.missing(other) == list(other)
    latents.encode(more[0], parts)
    assert len(list(tmp_path.rglob("*.npy"))) == 5
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())
    found = [latents.moments(more[0], variant) for variant in more[0].variants]
    assert len({moments.numpy().tobytes() for moments in found}) == 5


def test_without_brightness_the_files_are_those_of_before_there_was_any(
    latents: LatentCache, item: TrainingItem
) -> None:
    """What is encoded already need not be encoded again."""
    parts = ("3", "a VAE", "cpu", torch.__version__, item.sha256, item.background)
    name = hashlib.sha256(repr((*parts, item.variants[0].crop, item.bucket, False)).encode()).hexdigest()
    assert latents.file(item, item.variants[0]).stem == name


def test_a_picture_that_changed_is_named(latents: LatentCache, item: TrainingItem, parts: Components) -> None:
    save_picture(item.path, size=(100, 70), seed=1)
    with pytest.raises(TrainingError, match=r"shoe\.png is another file than when the run began"):
        latents.encode(item, parts)


def test_a_picture_that_is_gone_is_named(latents: LatentCache, item: TrainingItem, parts: Components) -> None:
    item.path.unlink()
    with pytest.raises(TrainingError, match=r"shoe\.png can no longer be read"):
        latents.encode(item, parts)


def test_what_is_cached_needs_its_picture_no_more(latents: LatentCache, item: TrainingItem, parts: Components) -> None:
    encode(latents, item, parts)
    item.path.unlink()
    latents.encode(item, parts)
    assert latents.moments(item, item.variants[0]).shape == (2, 4, 8, 8)


# Damage


def zeroed(content: bytes) -> bytes:
    return bytes(len(content))


def zeroed_at_the_end(content: bytes) -> bytes:
    return content[:-1000] + bytes(1000)


def flipped_in_the_middle(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda content: b"",
    lambda content: content[:40],
    lambda content: content[: len(content) // 2],
    lambda content: content[:-1],
    lambda content: content + b"x",
    lambda content: b"PK\x03\x04" + content[4:],
    zeroed,
    zeroed_at_the_end,
    flipped_in_the_middle,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_made_again(
    damage: Callable[[bytes], bytes], latents: LatentCache, item: TrainingItem, parts: Components
) -> None:
    file = encode(latents, item, parts)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.raises(TrainingError, match="The cache lost the latents"):
        latents.moments(item, item.variants[0])
    assert latents.missing([item]) == [item]
    encode(latents, item, parts)
    assert file.read_bytes() == whole


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_embedding_is_made_again(damage: Callable[[bytes], bytes], tmp_path: Path, parts: Components) -> None:
    texts = TextCache(tmp_path / "t", "e", "cpu")
    texts.encode("a shoe", parts)
    file = texts.file("a shoe")
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert texts.missing(["a shoe"]) == ["a shoe"]
    texts.encode("a shoe", parts)
    assert file.read_bytes() == whole


def test_no_flipped_bit_goes_unnoticed(latents: LatentCache, item: TrainingItem, parts: Components) -> None:
    """Every bit of the header, and one of every byte after it."""
    file = encode(latents, item, parts)
    whole = file.read_bytes()
    header = 128
    bits = [(i, bit) for i in range(header) for bit in range(8)] + [(i, i % 8) for i in range(header, len(whole))]
    assert whole[header - 1 : header] == b"\n"
    for index, bit in bits:
        file.write_bytes(whole[:index] + bytes([whole[index] ^ (1 << bit)]) + whole[index + 1 :])
        assert latents.missing([item]) == [item], (index, bit)


def test_a_file_that_vanishes_during_training_is_told(
    latents: LatentCache, item: TrainingItem, parts: Components, tmp_path: Path
) -> None:
    encode(latents, item, parts).unlink()
    with pytest.raises(TrainingError, match=r"The cache lost the latents of shoe\.png .*Resume the run"):
        latents.moments(item, item.variants[0])
    with pytest.raises(TrainingError, match="The cache lost the embedding of 'a shoe'"):
        TextCache(tmp_path / "t", "e", "cpu").embedding("a shoe")


def test_a_folder_of_the_file_that_is_gone_is_made_again(
    latents: LatentCache, item: TrainingItem, parts: Components
) -> None:
    file = encode(latents, item, parts)
    shutil.rmtree(file.parent)
    assert encode(latents, item, parts) == file
    assert file.is_file()


# NaN


def test_latents_with_nan_in_one_channel_are_refused_by_name(
    latents: LatentCache, item: TrainingItem, components: Components
) -> None:
    bias = components.vae.quant_conv.bias
    bias.data[2] = torch.nan
    with pytest.raises(TrainingError, match=r"The VAE gives NaN or infinite latents for shoe\.png"):
        latents.encode(item, components)
    assert latents.missing([item]) == [item]


def test_an_embedding_with_nan_is_refused(tmp_path: Path, components: Components) -> None:
    next(components.text_encoder.parameters()).data[:] = torch.nan
    texts = TextCache(tmp_path, "e", "cpu")
    with pytest.raises(TrainingError, match="The text encoder gives NaN for the caption 'a shoe'"):
        texts.encode("a shoe", components)
    assert texts.missing(["a shoe"]) == ["a shoe"]


# What it depends on


def test_the_same_bytes_under_another_name_are_found(
    latents: LatentCache, item: TrainingItem, parts: Components
) -> None:
    encode(latents, item, parts)
    other = replace(item, key="copy/of.png", path=Path("/nowhere"), caption="another", weight=0.5, repeats=3)
    assert latents.missing([other]) == []


def test_anything_that_changes_the_latents_is_encoded_anew(
    latents: LatentCache, item: TrainingItem, parts: Components, tmp_path: Path
) -> None:
    encode(latents, item, parts)
    square = item.bucket
    others = [
        replace(item, background="#000000"),
        replace(item, variants=(Variant((0, 0, 70, 70)),)),
        replace(item, variants=(Variant(item.variants[0].crop, brightness=0.1),)),
        replace(item, bucket=replace(square, width=square.width + 16)),
        replace(item, sha256="0" * 64),
    ]
    assert latents.missing(others) == others
    of_another_vae = LatentCache(tmp_path / "latents", "another VAE", "cpu")
    assert of_another_vae.missing([item]) == [item]


def test_transparency_is_laid_on_the_items_background(latents: LatentCache, tmp_path: Path, parts: Components) -> None:
    (tmp_path / "own").mkdir()
    Image.new("RGBA", (64, 64), (0, 0, 0, 0)).save(tmp_path / "own" / "a.png")
    for background, grey in (("#ffffff", 255), ("#404040", 64)):
        (item,) = items_of(snapshot_of(tmp_path / "own", background=background))
        encode(latents, item, parts)
        wanted = moments_by_hand(Image.new("RGB", (64, 64), (grey,) * 3), parts, (64, 64))
        found = latents.moments(item, item.variants[0])
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_another_text_encoder_has_other_embeddings(tmp_path: Path, parts: Components) -> None:
    TextCache(tmp_path, "one", "cpu").encode("a shoe", parts)
    assert TextCache(tmp_path, "one", "cpu").missing(["a shoe", "a shoe "]) == ["a shoe "]
    assert TextCache(tmp_path, "two", "cpu").missing(["a shoe"]) == ["a shoe"]


def test_another_kind_of_device_and_another_torch_have_their_own(
    latents: LatentCache, tmp_path: Path, parts: Components, item: TrainingItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode(latents, item, parts)
    TextCache(tmp_path, "one", "cpu").encode("a shoe", parts)

    def missing(device_type: str) -> tuple[bool, bool]:
        pictures = LatentCache(tmp_path / "latents", "a VAE", device_type)
        texts = TextCache(tmp_path, "one", device_type)
        return bool(pictures.missing([item])), bool(texts.missing(["a shoe"]))

    assert missing("cpu") == (False, False)
    assert missing("mps") == (True, True)
    monkeypatch.setattr(torch, "__version__", "9.0")
    assert missing("cpu") == (True, True)


@pytest.mark.parametrize("digest", [digest_of, fingerprint_of])
def test_a_digest_is_of_the_weights(digest: Callable[[nn.Module], str]) -> None:
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 3))
    same = copy.deepcopy(module)
    assert digest(same) == digest(module)
    same[1].bias.data[2] += 1e-6
    assert digest(same) != digest(module)
    assert digest(copy.deepcopy(module).half()) != digest(module)
    turned = nn.Sequential(module[0], nn.Linear(3, 4), nn.Identity())
    assert digest(turned) != digest(module)


# What is read


def test_what_is_read_is_a_copy_of_the_file(latents: LatentCache, item: TrainingItem, parts: Components) -> None:
    encode(latents, item, parts)
    moments = latents.moments(item, item.variants[0])
    before = moments.clone()
    moments += 1
    assert torch.equal(latents.moments(item, item.variants[0]), before)


def test_embeddings_are_those_of_diffusers_own_pipeline(tmp_path: Path, parts: Components) -> None:
    texts = TextCache(tmp_path, "e", "cpu")
    for caption in ("", "a red shoe, white ground", "word " * 200):
        texts.encode(caption, parts)
        wanted, _ = parts.pipeline.encode_prompt(caption, torch.device("cpu"), 1, False)
        torch.testing.assert_close(texts.embedding(caption), wanted[0], atol=1e-5, rtol=1e-5)


def test_a_captions_brackets_are_words_and_no_weights(tmp_path: Path, parts: Components) -> None:
    """As diffusers' own pipeline has it: what is trained on is not a prompt."""
    texts = TextCache(tmp_path, "e", "cpu")
    texts.encode("a (red:1.5) shoe", parts)
    wanted, _ = parts.pipeline.encode_prompt("a (red:1.5) shoe", torch.device("cpu"), 1, False)
    torch.testing.assert_close(texts.embedding("a (red:1.5) shoe"), wanted[0], atol=1e-5, rtol=1e-5)
