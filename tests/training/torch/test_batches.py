"""What each option does to the tensors of a batch."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from studio.core.errors import TrainingError
from studio.core.paths import UserData
from studio.datasets.snapshot import Snapshot, mask_notes, with_masks
from studio.engine.models import Components
from studio.engine.pipeline import PipelineManager
from studio.training.torch.batches import Draw, TrainingBatch, draw
from studio.training.torch.caches import MaskCache
from studio.training.torch.data import RunData, make_training_set
from studio.training.torch.preparation import prepare
from studio.training.torch.processes import Processes
from tests.training.torch.parts import Bench, make_bench, save_picture, save_pictures, settings_of, snapshot_of

NUM_BATCHES = 8
ONE_SIZE = ((80, 80),) * 4


@pytest.fixture
def parts(training_manager: PipelineManager) -> Components:
    """The shipped model's parts, without layers: they are only read."""
    return training_manager.components


def draws_of(bench: Bench, number: int) -> list[Draw]:
    """What chance decides for a batch, asked for once more."""
    shape = bench.maker.batch(number).noisy_BCHW.shape
    settings = bench.settings
    return [draw(settings.seed, number, i, shape_CHW=shape[1:], num_train_timesteps=1000) for i in range(shape[0])]


def latents_in(bench: Bench, batch: TrainingBatch, draws: list[Draw]) -> torch.Tensor:
    """(B, C, H, W) what was noised, without its noise: x = (noisy - √(1 - ᾱ) · noise) / √ᾱ, in float64."""
    alphas = bench.noise_scheduler.alphas_cumprod.double()[batch.timesteps_B][:, None, None, None]
    noise = torch.stack([d.noise_CHW for d in draws]).double()
    return (batch.noisy_BCHW.double() - (1 - alphas).sqrt() * noise) / alphas.sqrt()


def encoded(parts: Components, image: Image.Image, size: tuple[int, int], posterior: torch.Tensor) -> torch.Tensor:
    """(C, H, W) one latent of an image that is cut already."""
    levels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.LANCZOS)).astype(np.float64)
    pixels = torch.from_numpy(levels / 255 * 2 - 1).float().movedim(2, 0).unsqueeze(0)
    with torch.no_grad():
        found = parts.vae.encode(pixels).latent_dist
    latent: torch.Tensor = (found.mean[0] + found.std[0] * posterior) * parts.vae.config.scaling_factor
    return latent


def assert_same(a: TrainingBatch, b: TrainingBatch, *, but: tuple[str, ...] = ()) -> None:
    for name in ("noisy_BCHW", "target_BCHW", "timesteps_B", "text_BND", "weights_B"):
        same = torch.equal(getattr(a, name), getattr(b, name))
        assert same != (name in but), name
    assert a.keys == b.keys


# The same number gives the same batch


def test_a_batch_is_the_same_in_another_maker_that_jumps_to_it(
    snapshot: Snapshot, parts: Components, cache: Path
) -> None:
    walking = make_bench(snapshot, settings_of(), parts, cache).maker
    walked = [walking.batch(number) for number in range(30)]
    jumping = make_bench(snapshot, settings_of(), parts, cache).maker
    assert_same(jumping.batch(29), walked[29])
    assert_same(jumping.batch(3), walked[3])


@pytest.mark.parametrize(
    ("changes", "but"),
    [
        ({"rank": 8, "optimizer": "Prodigy", "snr_gamma": 5.0, "use_ema": True}, ()),
        ({"caption_dropout": 1.0}, ("text_BND",)),
        ({"shuffle_caption": True}, ("text_BND",)),
        ({"trigger_word": "sks"}, ("text_BND",)),
        ({"noise_offset": 0.1}, ("noisy_BCHW", "target_BCHW")),
        ({"seed": 43}, ("noisy_BCHW", "target_BCHW", "timesteps_B", "text_BND")),
        ({"horizontal_flip": True}, ("noisy_BCHW",)),
        ({"scale_jitter_percent": 20}, ("noisy_BCHW",)),
        ({"brightness_jitter_percent": 20}, ("noisy_BCHW",)),
    ],
)
def test_an_option_does_not_move_what_others_draw(
    changes: dict[str, object], but: tuple[str, ...], tmp_path: Path, parts: Components, cache: Path
) -> None:
    """Batch 2 of images of one size, in which one is mirrored where that is on."""
    snapshot = snapshot_of(save_pictures(tmp_path, ONE_SIZE))
    plain = make_bench(snapshot, settings_of(), parts, cache)
    assert any(d.flip < 0.5 for d in draws_of(plain, 2))
    changed = make_bench(snapshot, settings_of(**changes), parts, cache).maker.batch(2)
    if "seed" in changes:
        batch = plain.maker.batch(2)
        for name in but:
            assert not torch.equal(getattr(batch, name), getattr(changed, name)), name
    else:
        assert_same(plain.maker.batch(2), changed, but=but)


def test_every_tensor_has_the_shape_of_its_bucket(snapshot: Snapshot, parts: Components, cache: Path) -> None:
    bench = make_bench(snapshot, settings_of(train_batch_size=4), parts, cache)
    shapes = set()
    for number in range(NUM_BATCHES):
        batch = bench.maker.batch(number)
        (bucket,) = {bench.item(key).bucket for key in batch.keys}
        shape = (4, 4, bucket.height // 8, bucket.width // 8)
        assert batch.noisy_BCHW.shape == batch.target_BCHW.shape == shape
        assert batch.text_BND.shape == (4, 77, 16)
        assert batch.timesteps_B.shape == batch.weights_B.shape == (4,)
        assert batch.mask_B1HW is None
        shapes.add(shape)
    assert len(shapes) == 2


# Latents


def test_what_is_noised_is_one_latent_of_the_posterior(snapshot: Snapshot, parts: Components, cache: Path) -> None:
    bench = make_bench(snapshot, settings_of(), parts, cache)
    for number in range(NUM_BATCHES):
        batch, draws = bench.maker.batch(number), draws_of(bench, number)
        for i, found in enumerate(latents_in(bench, batch, draws)):
            if draws[i].timestep < 700:  # beyond, noise leaves too little of a latent to compare
                item = bench.item(batch.keys[i])
                with Image.open(item.path) as image:
                    size = (item.bucket.width, item.bucket.height)
                    wanted = encoded(parts, image.crop(item.variants[0].crop), size, draws[i].posterior_CHW)
                torch.testing.assert_close(found.float(), wanted, atol=2e-4, rtol=2e-4)


def test_many_draws_have_the_mean_and_deviation_of_the_vae(tmp_path: Path, parts: Components, cache: Path) -> None:
    """Against the VAE's own distribution, number by number."""
    snapshot = snapshot_of(save_pictures(tmp_path, [(80, 80)]))
    bench = make_bench(snapshot, settings_of(), parts, cache)
    found = (
        torch.cat([latents_in(bench, bench.maker.batch(n), draws_of(bench, n)) for n in range(300)])
        / parts.vae.config.scaling_factor
    )
    (item,) = bench.data.items
    mean, deviation = bench.latents.moments(item, item.variants[0]).double()
    scores = (found - mean) / deviation
    low = torch.tensor([d.timestep < 800 for n in range(300) for d in draws_of(bench, n)])
    scores = scores[low]
    assert float(scores.mean()) == pytest.approx(0, abs=0.015)
    assert float(scores.std(dim=0).mean()) == pytest.approx(1, abs=0.02)
    with torch.no_grad(), Image.open(item.path) as image:
        levels = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.LANCZOS), dtype=np.float32)
        theirs = parts.vae.encode(torch.from_numpy(levels / 127.5 - 1).movedim(2, 0)[None]).latent_dist
    torch.testing.assert_close(mean.float(), theirs.mean[0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(deviation.float(), theirs.std[0], atol=1e-5, rtol=1e-5)


def test_with_mirroring_half_of_the_pictures_are_mirrored_ones(
    snapshot: Snapshot, parts: Components, cache: Path
) -> None:
    bench = make_bench(snapshot, settings_of(horizontal_flip=True), parts, cache)
    seen = []
    for number in range(2 * NUM_BATCHES):
        batch, draws = bench.maker.batch(number), draws_of(bench, number)
        for i, found in enumerate(latents_in(bench, batch, draws)):
            if draws[i].timestep < 500:
                item = bench.item(batch.keys[i])
                size = (item.bucket.width, item.bucket.height)
                with Image.open(item.path) as image:
                    cut = image.crop(item.variants[0].crop)
                    plain = encoded(parts, cut, size, draws[i].posterior_CHW)
                    mirrored = encoded(parts, ImageOps.mirror(cut), size, draws[i].posterior_CHW)
                errors = [float((found.float() - latent).abs().max()) for latent in (plain, mirrored)]
                assert min(errors) < 2e-4 < 1e-2 < max(errors)
                seen.append(errors[1] < errors[0])
    assert 0.25 < sum(seen) / len(seen) < 0.75


def test_without_mirroring_no_picture_is_mirrored(snapshot: Snapshot, parts: Components, tmp_path: Path) -> None:
    """Its mirrored latents are not even in the cache."""
    bench = make_bench(snapshot, settings_of(), parts, tmp_path)
    assert len(list((tmp_path / "latents").rglob("*.npy"))) == len(bench.data.items)
    for number in range(NUM_BATCHES):
        bench.maker.batch(number)


def test_random_crops_are_all_seen_and_each_is_its_window(tmp_path: Path, parts: Components, cache: Path) -> None:
    snapshot = snapshot_of(save_pictures(tmp_path, [(200, 80)]))
    bench = make_bench(snapshot, settings_of(crop="random", use_buckets=False), parts, cache)
    (item,) = bench.data.items
    seen = set()
    for number in range(20):
        batch, draws = bench.maker.batch(number), draws_of(bench, number)
        for found, chance in zip(latents_in(bench, batch, draws), draws, strict=True):
            if chance.timestep < 500:
                with Image.open(item.path) as image:
                    windows = [
                        encoded(parts, image.crop(variant.crop), (64, 64), chance.posterior_CHW)
                        for variant in item.variants
                    ]
                errors = [float((found.float() - latent).abs().max()) for latent in windows]
                assert min(errors) < 2e-4
                seen.add(errors.index(min(errors)))
    assert seen == set(range(len(item.variants)))


ALL_VARIANTS: dict[str, object] = {
    "crop": "random",
    "horizontal_flip": True,
    "scale_jitter_percent": 40,
    "brightness_jitter_percent": 30,
    "num_variants": 5,
}


def test_every_variant_is_seen_and_is_that_of_the_seed_and_the_number(
    tmp_path: Path, parts: Components, cache: Path
) -> None:
    """Against the image files: cut, scaled and brightened by Pillow and numpy, and encoded."""
    snapshot = snapshot_of(save_pictures(tmp_path, [(200, 130), (220, 120)]))
    bench = make_bench(snapshot, settings_of(use_buckets=False, **ALL_VARIANTS), parts, cache)
    seen: dict[str, set[int]] = {}
    for number in range(40):
        batch, draws = bench.maker.batch(number), draws_of(bench, number)
        for key, found, chance in zip(batch.keys, latents_in(bench, batch, draws), draws, strict=True):
            item = bench.item(key)
            index = int(chance.crop * 5) + (5 if chance.flip < 0.5 else 0)
            variant = item.variants[index]
            assert variant.flip == (chance.flip < 0.5)
            if chance.timestep < 500:
                with Image.open(item.path) as image:
                    window = image.convert("RGB").crop(variant.crop).resize((64, 64), Image.Resampling.LANCZOS)
                levels = np.asarray(window.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if variant.flip else window)
                bright = 255 * (levels / 255.0) ** (np.log(0.5 + variant.brightness / 2) / np.log(0.5))
                as_trained = Image.fromarray(np.round(bright).astype(np.uint8))
                wanted = encoded(parts, as_trained, (64, 64), chance.posterior_CHW)
                torch.testing.assert_close(found.float(), wanted, atol=2e-4, rtol=2e-4)
            seen.setdefault(key, set()).add(index)
    assert all(indices == set(range(10)) for indices in seen.values())


def test_variants_are_the_same_in_another_maker_and_others_with_another_seed(
    tmp_path: Path, parts: Components, cache: Path
) -> None:
    snapshot = snapshot_of(save_pictures(tmp_path, [(200, 130), (220, 120)]))
    one, again = (make_bench(snapshot, settings_of(**ALL_VARIANTS), parts, cache) for __ in range(2))
    walked = [one.maker.batch(number) for number in range(12)]
    for number in (11, 3, 7):
        assert_same(again.maker.batch(number), walked[number])
    other = make_bench(snapshot, settings_of(**ALL_VARIANTS, seed=7), parts, cache)
    assert other.data.items == one.data.items, "what is cached is found again"
    chosen = [[d.crop for n in range(9) for d in draws_of(bench, n)] for bench in (other, one)]
    assert chosen[0] != chosen[1]


def test_repeats_and_regularisation_pictures_are_seen_in_proportion(
    tmp_path: Path, parts: Components, cache: Path
) -> None:
    ours = snapshot_of(save_pictures(tmp_path / "ours", ONE_SIZE[:3]), repeats={"001.png": 4})
    prior = snapshot_of(save_pictures(tmp_path / "prior", ONE_SIZE[:2], first_seed=50))
    bench = make_bench(ours, settings_of(prior_loss_weight=0.25), parts, cache, prior=prior)
    seen: dict[tuple[str, float], int] = {}
    for number in range(60):  # ten epochs of 12 images
        batch = bench.maker.batch(number)
        for key, weight in zip(batch.keys, batch.weights_B.tolist(), strict=True):
            seen[key, weight] = seen.get((key, weight), 0) + 1
    assert seen == {
        ("000.png", 1.0): 10,
        ("001.png", 1.0): 40,
        ("002.png", 1.0): 10,
        ("000.png", 0.25): 30,
        ("001.png", 0.25): 30,
    }


# Noise and target


def test_with_an_offset_each_channel_of_each_picture_has_a_shift_of_its_own(
    snapshot: Snapshot, parts: Components, cache: Path
) -> None:
    plain = make_bench(snapshot, settings_of(), parts, cache)
    shifted = make_bench(snapshot, settings_of(noise_offset=0.3), parts, cache)
    for number in range(3):
        before, after = plain.maker.batch(number), shifted.maker.batch(number)
        shift = after.target_BCHW - before.target_BCHW
        wanted = torch.stack([0.3 * d.offset_C11 for d in draws_of(plain, number)]).expand_as(shift)
        torch.testing.assert_close(shift, wanted, atol=1e-6, rtol=1e-5)
        alphas = plain.noise_scheduler.alphas_cumprod[before.timesteps_B][:, None, None, None]
        moved = after.noisy_BCHW - before.noisy_BCHW
        torch.testing.assert_close(moved, (1 - alphas).sqrt() * wanted, atol=1e-5, rtol=1e-4)


def test_an_epsilon_models_target_is_the_noise(snapshot: Snapshot, parts: Components, cache: Path) -> None:
    bench = make_bench(snapshot, settings_of(), parts, cache)
    wanted = torch.stack([d.noise_CHW for d in draws_of(bench, 1)])
    assert torch.equal(bench.maker.batch(1).target_BCHW, wanted)


def test_a_v_models_target_is_the_velocity(snapshot: Snapshot, parts: Components, cache: Path) -> None:
    """v = √ᾱ · noise - √(1 - ᾱ) · latent (arXiv 2202.00512), with ᾱ computed from the betas."""
    bench = make_bench(snapshot, settings_of(), parts, cache, prediction_type="v_prediction")
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    bars = np.cumprod(1 - betas)
    for number in range(4):
        batch, draws = bench.maker.batch(number), draws_of(bench, number)
        for i, chance in enumerate(draws):
            item = bench.item(batch.keys[i])
            mean, deviation = bench.latents.moments(item, item.variants[0])
            latent = (mean + deviation * chance.posterior_CHW) * parts.vae.config.scaling_factor
            bar = float(bars[chance.timestep])
            wanted = bar**0.5 * chance.noise_CHW - (1 - bar) ** 0.5 * latent
            torch.testing.assert_close(batch.target_BCHW[i], wanted, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(("asked", "found"), [("auto", "epsilon"), ("v_prediction", "v_prediction")])
def test_the_prediction_that_is_asked_for_is_trained(
    asked: str, found: str, snapshot: Snapshot, processes: Processes, tmp_path: Path
) -> None:
    settings = settings_of(prediction_type=asked, targets="attention", resolution=None)
    prepared = prepare(
        settings, RunData(snapshot), user_data=UserData(tmp_path), processes=processes, report=lambda words: None
    )
    assert prepared.maker.noise_scheduler.config.prediction_type == found
    batch = prepared.maker.batch(0)
    chance = draw(42, 0, 0, shape_CHW=batch.target_BCHW.shape[1:], num_train_timesteps=1000)
    assert torch.equal(batch.target_BCHW[0], chance.noise_CHW) == (found == "epsilon")
    assert prepared.plan.resolution == 128  # the model's own, where none is asked for


# Captions


def test_the_share_of_pictures_without_caption_is_as_asked(snapshot: Snapshot, parts: Components, cache: Path) -> None:
    bench = make_bench(snapshot, settings_of(caption_dropout=0.3), parts, cache)
    empty, _ = parts.pipeline.encode_prompt("", torch.device("cpu"), 1, False)
    dropped = []
    for number in range(150):
        batch = bench.maker.batch(number)
        for key, text in zip(batch.keys, batch.text_BND, strict=True):
            own = bench.texts.embedding(bench.item(key).caption)
            is_empty = torch.allclose(text, empty[0], atol=1e-5)
            assert is_empty or torch.equal(text, own)
            dropped.append(is_empty)
    assert sum(dropped) / len(dropped) == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(("share", "dropped"), [(0.0, False), (1.0, True)])
def test_no_or_every_caption_is_dropped(
    share: float, dropped: bool, snapshot: Snapshot, parts: Components, cache: Path
) -> None:
    bench = make_bench(snapshot, settings_of(caption_dropout=share, trigger_word="sks"), parts, cache)
    for number in range(NUM_BATCHES):
        batch = bench.maker.batch(number)
        for key, text in zip(batch.keys, batch.text_BND, strict=True):
            caption = "" if dropped else bench.item(key).caption
            assert torch.equal(text, bench.texts.embedding(caption))


def test_the_trigger_word_is_in_the_embedding(snapshot: Snapshot, parts: Components, cache: Path) -> None:
    bench = make_bench(snapshot, settings_of(trigger_word="sks"), parts, cache)
    batch = bench.maker.batch(0)
    for key, text in zip(batch.keys, batch.text_BND, strict=True):
        written = next(entry.caption for entry in snapshot.entries if entry.key == key)
        wanted, _ = parts.pipeline.encode_prompt(f"sks, {written}", torch.device("cpu"), 1, False)
        torch.testing.assert_close(text, wanted[0], atol=1e-5, rtol=1e-5)


def test_shuffled_captions_are_embedded_in_their_new_order(tmp_path: Path, parts: Components, cache: Path) -> None:
    snapshot = snapshot_of(save_pictures(tmp_path, [(80, 80)]))
    settings = settings_of(shuffle_caption=True, trigger_word="sks")  # which stays where it is
    bench = make_bench(snapshot, settings, parts, cache)
    assert bench.data.items[0].caption == "sks, a red shoe, white ground, side view"
    rest = ("a red shoe", "white ground", "side view")
    orders = [
        ", ".join(("sks", *(rest[i] for i in order)))
        for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))
    ]
    known = [parts.pipeline.encode_prompt(order, torch.device("cpu"), 1, False)[0][0] for order in orders]
    seen = set()
    for number in range(15):
        for text in bench.maker.batch(number).text_BND:
            errors = [float((text - one).abs().max()) for one in known]
            assert min(errors) < 1e-5
            seen.add(errors.index(min(errors)))
    assert len(seen) == 6


SEVERAL = ("a red shoe", "red sneakers, white ground", "footwear")


def with_several_captions(snapshot: Snapshot) -> Snapshot:
    """The same images, each with three captions."""
    several = {"caption": " || ".join(SEVERAL)}
    return Snapshot(snapshot.header, tuple(entry.model_copy(update=several) for entry in snapshot.entries))


def test_of_several_captions_one_is_taken_by_chance_each_time(
    snapshot: Snapshot, parts: Components, cache: Path
) -> None:
    """Each embedding is one of theirs, made another way, all occur, and none moves what else is drawn."""
    settings = settings_of(trigger_word="sks")
    bench = make_bench(with_several_captions(snapshot), settings, parts, cache)
    assert bench.data.items[0].captions == tuple(f"sks, {caption}" for caption in SEVERAL)
    known = [parts.pipeline.encode_prompt(f"sks, {one}", torch.device("cpu"), 1, False)[0][0] for one in SEVERAL]
    seen = []
    for number in range(12):
        for text in bench.maker.batch(number).text_BND:
            errors = [float((text - one).abs().max()) for one in known]
            assert min(errors) < 1e-5
            seen.append(errors.index(min(errors)))
    assert {seen.count(choice) > 2 for choice in range(3)} == {True}
    again = make_bench(with_several_captions(snapshot), settings, parts, cache).maker
    assert_same(again.batch(7), bench.maker.batch(7))
    plain = make_bench(snapshot, settings, parts, cache).maker
    assert_same(plain.batch(7), bench.maker.batch(7), but=("text_BND",))


def test_held_out_images_are_measured_with_their_first_caption(
    snapshot: Snapshot, parts: Components, cache: Path
) -> None:
    data = make_training_set(with_several_captions(snapshot), settings_of(held_out_percent=50), resolution=64)
    assert {item.caption for item in data.held_out} == {SEVERAL[0]}


def test_where_the_text_encoder_learns_a_batch_has_its_token_ids(
    snapshot: Snapshot, parts: Components, cache: Path
) -> None:
    plain = make_bench(snapshot, settings_of(), parts, cache).maker.batch(0)
    batch = make_bench(snapshot, settings_of(train_text_encoder=True), parts, cache).maker.batch(0)
    assert (batch.text_BND.shape, batch.text_BND.dtype) == ((2, 77), torch.int64)
    with torch.no_grad():
        embeddings = parts.text_encoder(batch.text_BND)[0]
    torch.testing.assert_close(embeddings, plain.text_BND, atol=1e-5, rtol=1e-5)
    assert_same(plain, batch, but=("text_BND",))


# Masks and weights


def masked(tmp_path: Path, parts: Components, cache: Path, mask: Image.Image | None, **changes: object) -> Bench:
    """Two images of one size, each with the same mask."""
    folder = save_pictures(tmp_path / "masked", [(100, 80), (100, 80)])
    if mask is not None:
        (tmp_path / "masks").mkdir(exist_ok=True)
        for name in ("000.png", "001.png"):
            mask.save(tmp_path / "masks" / name)
        changes["mask_folder"] = str(tmp_path / "masks")
    return make_bench(snapshot_of(folder), settings_of(use_buckets=False, **changes), parts, cache)


def losses(bench: Bench, number: int = 0) -> torch.Tensor:
    """Of a prediction that errs by a known, uneven amount."""
    batch = bench.maker.batch(number)
    error = torch.randn(batch.target_BCHW.shape, generator=torch.Generator().manual_seed(number))
    return bench.noise_loss.weighted(batch.target_BCHW + error, batch)


@pytest.mark.parametrize("size", [(100, 80), (50, 40), (500, 400)])
def test_a_white_mask_changes_nothing_whatever_its_size(
    size: tuple[int, int], tmp_path: Path, parts: Components, cache: Path
) -> None:
    plain = losses(masked(tmp_path, parts, cache, None))
    white = losses(masked(tmp_path, parts, cache, Image.new("L", size, 255)))
    torch.testing.assert_close(white, plain, atol=0, rtol=1e-6)


@pytest.mark.parametrize("unmasked_weight", [0.0, 0.1, 0.6])
def test_a_black_mask_scales_the_loss_by_the_weight_outside(
    unmasked_weight: float, tmp_path: Path, parts: Components, cache: Path
) -> None:
    plain = losses(masked(tmp_path, parts, cache, None))
    black = masked(tmp_path, parts, cache, Image.new("L", (100, 80), 0), unmasked_weight=unmasked_weight)
    torch.testing.assert_close(losses(black), unmasked_weight * plain, atol=1e-9, rtol=1e-5)


@pytest.mark.parametrize("scale", [1, 3])
def test_half_a_mask_weighs_half_of_the_cut_picture(scale: int, tmp_path: Path, parts: Components, cache: Path) -> None:
    """The left half of the part that is kept, from 10 to 90, is white."""
    mask = Image.new("L", (100 * scale, 80 * scale), 0)
    mask.paste(255, (0, 0, 50 * scale, 80 * scale))
    bench = masked(tmp_path, parts, cache, mask, unmasked_weight=0.2)
    mask_B1HW = bench.maker.batch(0).mask_B1HW
    assert mask_B1HW is not None
    wanted = torch.tensor([1.0] * 4 + [0.2] * 4).expand(2, 1, 8, 8)
    torch.testing.assert_close(mask_B1HW, wanted, atol=1e-6, rtol=1e-6)


def test_a_mask_of_white_on_transparent_counts_its_white_alone(tmp_path: Path, parts: Components, cache: Path) -> None:
    """Transparent parts are black, whatever colour lies under them."""
    mask = Image.new("RGBA", (100, 80), (255, 255, 255, 0))
    mask.paste((255, 255, 255, 255), (0, 0, 50, 80))
    mask_B1HW = masked(tmp_path, parts, cache, mask, unmasked_weight=0.2).maker.batch(0).mask_B1HW
    assert mask_B1HW is not None
    wanted = torch.tensor([1.0] * 4 + [0.2] * 4).expand(2, 1, 8, 8)
    torch.testing.assert_close(mask_B1HW, wanted, atol=1e-6, rtol=1e-6)


def test_a_grey_mask_weighs_in_between(tmp_path: Path, parts: Components, cache: Path) -> None:
    bench = masked(tmp_path, parts, cache, Image.new("L", (100, 80), 51), unmasked_weight=0.5)
    mask = bench.maker.batch(0).mask_B1HW
    assert mask is not None
    torch.testing.assert_close(mask, torch.full((2, 1, 8, 8), 0.6), atol=1e-6, rtol=1e-6)


def test_a_mask_is_mirrored_with_its_picture(tmp_path: Path, parts: Components, cache: Path) -> None:
    mask = Image.new("L", (100, 80), 0)
    mask.paste(255, (0, 0, 50, 80))
    bench = masked(tmp_path, parts, cache, mask, horizontal_flip=True, unmasked_weight=0.0)
    seen = set()
    for number in range(NUM_BATCHES):
        mask_B1HW = bench.maker.batch(number).mask_B1HW
        assert mask_B1HW is not None
        for one, chance in zip(mask_B1HW, draws_of(bench, number), strict=True):
            flipped = chance.flip < 0.5
            assert one[0, 0].tolist() == ([0.0] * 4 + [1.0] * 4 if flipped else [1.0] * 4 + [0.0] * 4)
            seen.add(flipped)
    assert seen == {False, True}


def test_a_mask_is_cut_where_its_picture_is_cut(tmp_path: Path, parts: Components, cache: Path) -> None:
    """An image whose brightness is its mask: both must show the same window."""
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 240).astype(np.uint8), (80, 1)))
    (tmp_path / "own").mkdir()
    ramp.convert("RGB").save(tmp_path / "own" / "a.png")
    (tmp_path / "masks").mkdir()
    ramp.save(tmp_path / "masks" / "a.png")
    settings = settings_of(
        crop="random", use_buckets=False, mask_folder=str(tmp_path / "masks"), unmasked_weight=0.0, train_batch_size=1
    )
    bench = make_bench(snapshot_of(tmp_path / "own"), settings, parts, cache)
    (item,) = bench.data.items
    middles = {round((left + right) / 2 / 240, 2) for left, _, right, _ in (variant.crop for variant in item.variants)}
    seen = set()
    for number in range(20):
        mask = bench.maker.batch(number).mask_B1HW
        assert mask is not None
        seen.add(round(float(mask.mean()), 2))
        (chance,) = draws_of(bench, number)
        left, _, right, _ = item.variants[int(chance.crop * len(item.variants))].crop
        assert float(mask.mean()) == pytest.approx((left + right) / 2 / 240, abs=0.01)
    assert len(seen) == len(middles) > 1


def test_a_picture_without_a_mask_is_learned_whole_beside_one_with(
    tmp_path: Path, parts: Components, cache: Path
) -> None:
    folder = save_pictures(tmp_path / "own", ONE_SIZE[:2])
    (tmp_path / "masks").mkdir()
    Image.new("L", (80, 80), 0).save(tmp_path / "masks" / "000.png")
    bench = make_bench(snapshot_of(folder), settings_of(mask_folder=str(tmp_path / "masks")), parts, cache)
    for number in range(3):
        batch = bench.maker.batch(number)
        assert batch.mask_B1HW is not None
        assert [float(mask.mean()) for mask in batch.mask_B1HW] == pytest.approx(
            [0.1 if key == "000.png" else 1.0 for key in batch.keys]
        )


def test_a_mask_that_cannot_be_read_is_named(tmp_path: Path, parts: Components, cache: Path) -> None:
    save_picture(tmp_path / "own" / "a.png")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "a.png").write_bytes(b"no image")
    with pytest.raises(TrainingError, match=r"The mask .*a\.png of a\.png cannot be read: It is text with"):
        make_bench(snapshot_of(tmp_path / "own"), settings_of(mask_folder=str(tmp_path / "masks")), parts, cache)


def test_masks_that_went_are_taken_from_the_cache(tmp_path: Path, parts: Components, cache: Path) -> None:
    """As images are; one with other bytes is another mask."""
    save_picture(tmp_path / "own" / "a.png")
    (tmp_path / "masks").mkdir()
    mask = tmp_path / "masks" / "a.png"
    Image.new("L", (80, 80), 77).save(mask)
    settings = settings_of(mask_folder=str(mask.parent), unmasked_weight=0.0)
    snapshot = with_masks(snapshot_of(tmp_path / "own"), settings.mask_folder)
    (item,) = make_training_set(snapshot, settings, resolution=64).items
    (variant,) = item.variants
    MaskCache(cache / "masks", 8).fill(item)
    mask.unlink()
    masks = MaskCache(cache / "masks", 8)
    masks.fill(item)
    torch.testing.assert_close(masks.share(item, variant), torch.full((1, 8, 8), 77 / 255))
    assert item.mask is not None
    other = replace(item, mask=item.mask.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(TrainingError, match=r"The mask .* of a\.png can no longer be read"):
        masks.fill(other)


def test_what_is_seen_of_masks_stands_in_the_plan(tmp_path: Path, processes: Processes) -> None:
    folder = save_pictures(tmp_path / "own", [(80, 80), (80, 80)])
    (tmp_path / "masks").mkdir()
    Image.new("L", (80, 80), 0).save(tmp_path / "masks" / "000-masklabel.png")
    settings = settings_of(mask_folder=str(tmp_path / "masks"), targets="attention")
    data = RunData(with_masks(snapshot_of(folder), settings.mask_folder))
    notes = prepare(
        settings, data, user_data=UserData(tmp_path), processes=processes, report=lambda words: None
    ).plan.notes
    assert "1 have a mask; 1 have none and are learned whole." in notes
    assert "Masks that are all black learn nothing at full weight: 000.png." in notes


def label(size: tuple[int, int]) -> Image.Image:
    image = Image.new("L", size, 0)
    image.paste(1, (0, 0, 40, 40))
    return image


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (Image.new("L", (80, 100), 255), "another shape than their image are stretched over it: 000.png, 001.png."),
        (Image.new("L", (100, 80), 0), "Masks that are all black .*: 000.png, 001.png."),
        (Image.new("RGBA", (100, 80), (255, 255, 255, 0)), "Masks that are all black .*: 000.png, 001.png."),
        (label((100, 80)), "levels 0 and 1 only .* 255: 000.png, 001.png."),
        (Image.new("L", (33, 26), 255), None),
        (Image.new("L", (33, 27), 255), None),
        (Image.new("1", (100, 80), 1), None),
    ],
)
def test_masks_that_do_something_else_are_named(
    mask: Image.Image, said: str | None, tmp_path: Path, parts: Components, cache: Path
) -> None:
    bench = masked(tmp_path, parts, cache, mask)
    notes = mask_notes(MaskCache(cache / "masks", 8).seen(bench.data.items))
    assert [bool(re.search(said or "", note)) for note in notes] == [True] * (said is not None)


@pytest.mark.parametrize("weight", [0.0, 0.25, 3.0])
def test_a_regularisation_pictures_loss_is_scaled(
    weight: float, tmp_path: Path, parts: Components, cache: Path
) -> None:
    ours = snapshot_of(save_pictures(tmp_path / "ours", ONE_SIZE[:2]))
    prior = snapshot_of(save_pictures(tmp_path / "prior", ONE_SIZE[:2], first_seed=50))
    plain = make_bench(ours, settings_of(train_batch_size=4), parts, cache, prior=prior)
    scaled = make_bench(ours, settings_of(train_batch_size=4, prior_loss_weight=weight), parts, cache, prior=prior)
    factors = scaled.maker.batch(0).weights_B
    assert sorted(factors.tolist()) == pytest.approx(sorted([1.0, 1.0, weight, weight]))
    torch.testing.assert_close(losses(scaled), losses(plain) * factors)
