"""The demonstration model that is shipped, and the scripts that make such a model."""

import importlib
import itertools
import json
import random
import re
from collections.abc import Callable, Collection
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTextModel, CLIPTokenizer

ASSETS = Path(__file__).parents[2] / "assets"
MODEL = ASSETS / "shoes-demo"
SCRIPTS = ASSETS / "shoes-demo-making"
KINDS = ("sneakers", "boots", "loafers", "sandals", "heels")
GROUNDS = ("grey", "wood", "grass", "street", "studio", "white")
SHOES_OF_SEED_1 = [
    ("sneakers", "red", "leather", "white"),
    ("heels", "black", "canvas", "white"),
    ("loafers", "white", "suede", "wood"),
    ("sneakers", "red", "suede", "street"),
    ("boots", "grey", "canvas", "grass"),
    ("loafers", "tan", "canvas", "grey"),
    ("sneakers", "beige", "leather", "grass"),
    ("sandals", "pink", "canvas", "grey"),
    ("boots", "pink", "suede", "grass"),
    ("heels", "tan", "leather", "studio"),
    ("boots", "brown", "canvas", "grey"),
    ("boots", "brown", "suede", "grey"),
]
"""What the program that drew the shipped model's images draws for twelve images of seed 1."""
PICTURES_OF_SEED_1 = Path(__file__).with_name("shoes_of_seed_1.png")
"""The first eight of them, at half size in a row."""
NUM_PICTURES = 16
NUM_WHITE_PICTURES = NUM_PICTURES // 6

ScriptImporter = Callable[[str], ModuleType]


@pytest.fixture(scope="module")
def script() -> ScriptImporter:
    """Import one of the making scripts by its name, as they import each other: as plain siblings."""
    return _import_script


def _import_script(name: str) -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def picture_folder(script: ScriptImporter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few drawn images, the first of them on white."""
    folder = tmp_path_factory.mktemp("pictures")
    script("make_pictures").main(["--num-pictures", str(NUM_PICTURES), "--output", str(folder)])
    return folder


def _border(image: Image.Image, *, width: int = 6) -> np.ndarray:
    """(number of border pixels, 3)."""
    pixels = np.asarray(image)
    edges = (pixels[:width], pixels[-width:], pixels[:, :width], pixels[:, -width:])
    return np.concatenate([edge.reshape(-1, 3) for edge in edges])


# The drawing


def test_the_drawing_is_the_same_for_a_seed_and_another_for_another(script: ScriptImporter) -> None:
    draw = script("drawing").draw
    first, again, other = (draw(random.Random(seed), supersampling=2) for seed in (5, 5, 6))
    assert np.array_equal(np.asarray(first.image), np.asarray(again.image))
    assert np.array_equal(np.asarray(first.subject_mask), np.asarray(again.subject_mask))
    assert first.attributes == again.attributes
    assert not np.array_equal(np.asarray(first.image), np.asarray(other.image))


def test_a_seed_goes_on_drawing_the_shoes_that_it_drew_for_the_shipped_model(script: ScriptImporter) -> None:
    # Each shoe takes dozens of numbers from the seed, so the later ones are these only if none was added or left out.
    drawn = [picture.attributes for picture in script("make_pictures").draw_pictures(12, seed=1)]
    assert [(shoe.kind, shoe.colour, shoe.material, shoe.ground) for shoe in drawn] == SHOES_OF_SEED_1


def test_a_seed_goes_on_drawing_the_pictures_that_it_drew_for_the_shipped_model(script: ScriptImporter) -> None:
    with Image.open(PICTURES_OF_SEED_1) as strip:
        expected = np.asarray(strip).astype(int)
    drawn = script("make_pictures").draw_pictures(len(SHOES_OF_SEED_1), seed=1)[:8]
    pixels = np.concatenate([np.asarray(picture.image.reduce(2)) for picture in drawn], axis=1)
    # They are equal with the Pillow and NumPy they were drawn with; another resampling may round differently.
    assert np.abs(pixels - expected).max() <= 4


@pytest.mark.parametrize(("kind", "ground"), list(itertools.product(KINDS, GROUNDS)))
def test_every_kind_on_every_ground_has_its_shoe_where_the_mask_is(
    script: ScriptImporter, kind: str, ground: str
) -> None:
    picture = script("drawing").draw(random.Random(3), kind=kind, ground=ground, colour="red", supersampling=2)
    pixels = np.asarray(picture.image).astype(float)
    mask = np.asarray(picture.subject_mask)
    assert pixels.shape == (128, 128, 3)
    assert pixels.std(axis=(0, 1)).min() > 5
    assert mask.shape == (128, 128)
    assert 0.03 < (mask > 127).mean() < 0.4
    redness = pixels[..., 0] - pixels[..., 1]
    assert redness[mask > 127].mean() > redness[mask == 0].mean() + 15


@pytest.mark.parametrize("kind", KINDS)
def test_a_centred_shoe_touches_no_edge_and_has_the_same_room_on_both_sides(script: ScriptImporter, kind: str) -> None:
    mask = np.asarray(script("drawing").draw(random.Random(3), kind=kind, centred=True, supersampling=2).subject_mask)
    rows, columns = np.nonzero(mask > 127)
    for first, last in ((rows.min(), rows.max()), (columns.min(), columns.max())):
        assert first >= 6
        assert first == pytest.approx(127 - last, abs=2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_centred_picture_on_white_has_a_white_border(script: ScriptImporter, kind: str) -> None:
    draw = script("drawing").draw
    white, grey = (
        draw(random.Random(2), kind=kind, ground=ground, centred=True, supersampling=2) for ground in ("white", "grey")
    )
    assert _border(white.image).min() >= 245
    assert _border(grey.image).max() < 245


def test_white_grounds_are_drawn_only_when_asked_for(script: ScriptImporter) -> None:
    drawn = script("make_pictures").draw_pictures(60, seed=4)
    is_white = [picture.attributes.ground == "white" for picture in drawn]
    assert is_white == [True] * 10 + [False] * 50


# The captions


@pytest.mark.parametrize("colour", ["black", "tan", "navy", "beige"])
def test_captions_name_the_asked_colour_and_no_other(script: ScriptImporter, colour: str) -> None:
    attributes = script("attributes")
    shoe = attributes.ShoeAttributes(kind="boots", colour=colour, material="suede", ground="wood")
    rng = random.Random(0)
    captions = [set(re.findall(r"[a-z]+", script("captions").make_caption(shoe, rng))) for _ in range(300)]
    named = [words & set(attributes.PALETTE) for words in captions]
    assert {word for words in named for word in words} == {colour}
    assert 0.90 < sum(map(bool, named)) / len(named) < 0.99


@pytest.mark.parametrize("kind", KINDS)
def test_captions_say_what_kind_of_shoe_and_now_and_then_what_ground(script: ScriptImporter, kind: str) -> None:
    captions = script("captions")
    shoe = script("attributes").ShoeAttributes(kind=kind, colour="red", material="canvas", ground="grass")
    rng = random.Random(0)
    written = [captions.make_caption(shoe, rng) for _ in range(200)]
    assert all(any(word in caption for word in captions.KIND_WORDS[kind]) for caption in written)
    assert 0.55 < sum("grass" in caption for caption in written) / len(written) < 0.85


# The tokenizer


def test_the_tokenizer_maker_makes_a_clip_tokenizer_with_a_token_a_word(script: ScriptImporter, tmp_path: Path) -> None:
    captions = ["a photo of brown leather boots, on grass", "brown suede slip-on shoes", "red boots"]
    made = script("make_tokenizer").make_tokenizer(captions, folder=tmp_path, max_merges=480)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    for tokenizer in (made, loaded):
        tokens = tokenizer("Brown leather boots, on grass").input_ids
        assert tokenizer.convert_ids_to_tokens(tokens) == [
            "<|startoftext|>",
            "brown</w>",
            "leather</w>",
            "boots</w>",
            ",</w>",
            "on</w>",
            "grass</w>",
            "<|endoftext|>",
        ]
        padded = tokenizer("red boots", padding="max_length", truncation=True).input_ids
        assert len(padded) == 77
        assert set(padded[3:]) == {tokenizer.eos_token_id}


def test_byte_pair_encoding_joins_the_commonest_pair_first(script: ScriptImporter) -> None:
    make_tokenizer = script("make_tokenizer")
    counts = make_tokenizer.count_words(["pug hug hug hug bun bun"])
    # u-g is met 4 times, then h-ug 3 times, b-u and u-n twice each: of equals, the one met first.
    expected = [("u", "g</w>"), ("h", "ug</w>"), ("b", "u"), ("bu", "n</w>"), ("p", "ug</w>")]
    assert make_tokenizer.learn_merges(counts, max_merges=4) == expected[:4]
    assert make_tokenizer.learn_merges(counts, max_merges=99) == expected


def test_the_shipped_tokenizer_knows_every_word_of_the_captions(script: ScriptImporter) -> None:
    attributes, rng = script("attributes"), random.Random(0)
    tokenizer = CLIPTokenizer.from_pretrained(MODEL / "tokenizer")
    for kind, colour, material, ground in itertools.product(KINDS, attributes.PALETTE, attributes.MATERIALS, GROUNDS):
        shoe = attributes.ShoeAttributes(kind=kind, colour=colour, material=material, ground=ground)
        caption = script("captions").make_caption(shoe, rng)
        words = re.findall(r"[a-z]+|[^\sa-z]", caption)
        tokens = tokenizer.convert_ids_to_tokens(tokenizer(caption).input_ids)[1:-1]
        assert tokens == [word + "</w>" for word in words]


# The shipped model


def _card_parameter_counts() -> dict[str, int]:
    """The last column of the card's table of parts, where it has a number."""
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([\d,]+) \|$", (MODEL / "README.md").read_text(), flags=re.MULTILINE)
    return {part: int(count.replace(",", "")) for part, count in rows}


def _loaded(part: str) -> tuple[torch.nn.Module, dict[str, set[str]]]:
    """A part as its class reads it, and what did not fit: missing_keys, unexpected_keys, mismatched_keys."""
    network_class = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "text_encoder": CLIPTextModel}[part]
    network, misfits = network_class.from_pretrained(MODEL / part, output_loading_info=True)
    return network, misfits


def test_the_card_counts_the_parameters_of_three_parts() -> None:
    assert set(_card_parameter_counts()) == {"unet", "vae", "text_encoder"}


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_a_shipped_part_is_float16_and_fits_its_class_exactly(part: str) -> None:
    (file,) = (MODEL / part).glob("*.safetensors")
    weights = load_file(file)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())
    network, misfits = _loaded(part)
    assert not any(misfits[reason] for reason in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    num_parameters = sum(parameter.numel() for parameter in network.parameters())
    assert num_parameters == sum(tensor.numel() for tensor in weights.values()) == _card_parameter_counts()[part]


def test_the_shipped_folder_holds_no_weights_but_safetensors() -> None:
    endings = {file.suffix for file in MODEL.rglob("*") if file.is_file()}
    assert endings == {".safetensors", ".json", ".txt", ".md", ".png"}


def test_the_shipped_model_draws_the_colour_that_is_asked_for() -> None:
    pipe = StableDiffusionPipeline.from_pretrained(MODEL, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    assert isinstance(pipe.scheduler, DPMSolverMultistepScheduler)
    for colour, other in (("red", "blue"), ("blue", "red")):
        images = pipe(
            [f"a photo of {colour} leather boots"] * 2,
            height=128,
            width=128,
            num_inference_steps=10,
            guidance_scale=5.0,
            generator=torch.Generator().manual_seed(0),
        ).images
        for image in images:
            shares = _shares_of_strong_colour(image)
            assert shares[colour] > 0.05
            assert shares[other] < 0.01


def _shares_of_strong_colour(image: Image.Image) -> dict[str, float]:
    """The shares of pixels redder than any wooden floor, and bluer than any studio."""
    red, green, blue = np.moveaxis(np.asarray(image).astype(int), 2, 0)
    return {"red": float((red - green > 100).mean()), "blue": float((blue - red > 70).mean())}


# The training


def test_pictures_come_back_from_their_folder_as_they_were_drawn(script: ScriptImporter, picture_folder: Path) -> None:
    drawn = script("make_pictures").draw_pictures(NUM_PICTURES, seed=1)
    loaded = script("picture_set").load_picture_set(picture_folder)
    assert np.array_equal(loaded.pictures_NHWC, np.stack([np.asarray(picture.image) for picture in drawn]))
    assert np.array_equal(loaded.masks_NHW, np.stack([np.asarray(picture.subject_mask) for picture in drawn]))
    assert loaded.attributes == [picture.attributes for picture in drawn]


def test_a_folder_without_pictures_is_refused_with_what_to_do(script: ScriptImporter, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no drawn pictures: run make_pictures\.py --output"):
        script("picture_set").load_picture_set(tmp_path)


def test_the_timestep_weights_cap_the_signal_to_noise_ratio_at_five(script: ScriptImporter) -> None:
    noise_scheduler = DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    weights = script("train_unet").min_snr_weights(noise_scheduler)
    signal = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    snr = signal / (1 - signal)
    assert (weights.numpy() * snr)[snr > 5] == pytest.approx(5, rel=1e-3)
    assert weights.numpy()[snr <= 5] == pytest.approx(1)


def test_the_learning_rate_rises_then_falls_to_a_fiftieth(script: ScriptImporter) -> None:
    factors = [
        script("optimization").learning_rate_factor(step, max_train_steps=1000, warmup_steps=100)
        for step in range(1000)
    ]
    assert factors[0] == pytest.approx(0.01, rel=0.01)
    assert max(factors) == factors[99]
    assert factors[500] == pytest.approx(0.51, rel=0.01)
    assert factors[-1] == pytest.approx(0.02, rel=0.01)


def test_the_average_of_weights_follows_them(script: ScriptImporter) -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(model.weight)
    average = script("optimization").WeightAverage([model], max_decay=0.5)
    torch.nn.init.ones_(model.weight)
    averages = []
    for _ in range(20):
        average.update()
        averages.append(average.averaged_models[0].weight.item())
    # The first decay is (1 + 0) / (10 + 0), the last ones are the most that is allowed.
    assert averages[0] == pytest.approx(0.9)
    assert 1 - averages[-1] == pytest.approx(0.5 * (1 - averages[-2]), rel=1e-3)
    assert model.weight.item() == 1


def test_the_reconstruction_loss_minds_the_shoe_more_than_the_ground(script: ScriptImporter) -> None:
    loss = script("train_autoencoder").reconstruction_loss
    pictures = torch.zeros(1, 3, 32, 32)
    masks = torch.zeros(1, 1, 32, 32)
    masks[..., :16] = 1
    wrong_shoe, wrong_ground = pictures.clone(), pictures.clone()
    wrong_shoe[..., :16], wrong_ground[..., 16:] = 0.5, 0.5
    assert loss(pictures, pictures, masks) == 0
    assert loss(wrong_shoe, pictures, masks) > 3 * loss(wrong_ground, pictures, masks) > 0


def _train_autoencoder(script: ScriptImporter, *, pictures: Path, output: Path) -> None:
    arguments = ["--max-train-steps", "2", "--batch-size", "2", "--pictures", str(pictures), "--output", str(output)]
    script("train_autoencoder").main(arguments)


@pytest.fixture(scope="module")
def autoencoder_folder(script: ScriptImporter, picture_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An autoencoder after two steps of training."""
    folder = tmp_path_factory.mktemp("autoencoder")
    _train_autoencoder(script, pictures=picture_folder, output=folder)
    return folder


@pytest.fixture(scope="module")
def latent_folder(
    script: ScriptImporter, picture_folder: Path, autoencoder_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The images that are not on white, encoded."""
    folder = tmp_path_factory.mktemp("latents")
    arguments = ["--pictures", str(picture_folder), "--autoencoder", str(autoencoder_folder), "--output", str(folder)]
    script("encode_pictures").main([*arguments, "--batch-size", "5"])
    return folder


def test_the_autoencoder_is_trained_the_same_way_twice(
    script: ScriptImporter, picture_folder: Path, autoencoder_folder: Path, tmp_path: Path
) -> None:
    _train_autoencoder(script, pictures=picture_folder, output=tmp_path)
    first, again = (AutoencoderKL.from_pretrained(folder).state_dict() for folder in (autoencoder_folder, tmp_path))
    torch.manual_seed(1)
    untrained = script("architecture").make_autoencoder().state_dict()
    assert all(torch.equal(first[name], again[name]) for name in untrained)
    assert any(not torch.equal(first[name], untrained[name]) for name in untrained)


def test_pictures_on_white_are_not_encoded_and_mirror_images_follow_in_order(
    script: ScriptImporter, picture_folder: Path, autoencoder_folder: Path, latent_folder: Path
) -> None:
    encoded = script("latent_set").load_latent_set(latent_folder)
    pictures = script("picture_set").load_picture_set(picture_folder)
    num_encoded = NUM_PICTURES - NUM_WHITE_PICTURES
    assert encoded.attributes == pictures.attributes[NUM_WHITE_PICTURES:]
    assert encoded.latents_NCHW.shape == (2 * num_encoded, 4, 16, 16)
    autoencoder = AutoencoderKL.from_pretrained(autoencoder_folder)
    mirrored = np.ascontiguousarray(pictures.pictures_NHWC[NUM_WHITE_PICTURES, :, ::-1])
    pixels = torch.from_numpy(mirrored).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.inference_mode():
        expected = autoencoder.encode(pixels).latent_dist.mean[0]
    torch.testing.assert_close(encoded.latents_NCHW[num_encoded], expected, atol=1e-4, rtol=1e-4)


def test_the_scripts_in_their_order_leave_a_folder_like_the_shipped_one(
    script: ScriptImporter, picture_folder: Path, autoencoder_folder: Path, latent_folder: Path, tmp_path: Path
) -> None:
    tokenizer_folder, first, second = tmp_path / "tokenizer", tmp_path / "first", tmp_path / "second"
    script("make_tokenizer").main(["--pictures", str(picture_folder), "--output", str(tokenizer_folder)])
    inputs = ["--latents", str(latent_folder), "--autoencoder", str(autoencoder_folder)]
    inputs += ["--tokenizer", str(tokenizer_folder), "--max-train-steps", "2", "--batch-size", "2"]
    train_unet = script("train_unet")
    train_unet.main([*inputs, "--output", str(first), "--save-dtype", "float32"])
    train_unet.main([*inputs, "--output", str(second), "--start-from", str(first), "--noise-offset", "0.05"])

    assert _files(second) == _files(MODEL) - {"README.md", "sheet.png"}
    assert _dtypes(first) == {torch.float32}
    assert _dtypes(second) == {torch.float16}
    for file in ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json"):
        assert _settings(second / file) == _settings(MODEL / file)
    # What follows the images and their words may differ: the latents' scale and the size of the vocabulary.
    vocabulary = {"vocab_size", "bos_token_id", "eos_token_id", "pad_token_id"}
    assert _settings(second / "vae/config.json", without={"scaling_factor"}) == _settings(
        MODEL / "vae/config.json", without={"scaling_factor"}
    )
    assert _settings(second / "text_encoder/config.json", without=vocabulary) == _settings(
        MODEL / "text_encoder/config.json", without=vocabulary
    )
    assert _settings(second / "tokenizer/vocab.json") == _settings(tokenizer_folder / "vocab.json")
    assert (second / "tokenizer/merges.txt").read_text() == (tokenizer_folder / "merges.txt").read_text()
    assert not any(str(tmp_path.parent) in file.read_text() for file in second.rglob("*.json"))
    latents = script("latent_set").load_latent_set(latent_folder).latents_NCHW
    pipe = StableDiffusionPipeline.from_pretrained(second, dtype=torch.float32)
    assert (latents * pipe.vae.config.scaling_factor).std().item() == pytest.approx(1, rel=1e-4)
    before = load_file(first / "unet" / "diffusion_pytorch_model.safetensors")["conv_in.weight"]
    assert not torch.equal(pipe.unet.state_dict()["conv_in.weight"], before.half().float())
    pipe.set_progress_bar_config(disable=True)
    (image,) = pipe("red boots", height=128, width=128, num_inference_steps=2).images
    assert image.size == (128, 128)


def _files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def _settings(file: Path, *, without: Collection[str] = ()) -> dict[str, object]:
    return {name: value for name, value in json.loads(file.read_text()).items() if name not in without}


def _dtypes(folder: Path) -> set[torch.dtype]:
    return {tensor.dtype for file in folder.rglob("*.safetensors") for tensor in load_file(file).values()}
