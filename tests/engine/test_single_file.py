"""A checkpoint in one file gives the same model as its folder, offline; what is none says what it is."""

import json
import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CLIPTokenizer

from bench.real_size_model import write_real_size_model
from studio.core.errors import ModelError
from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL, PredictionType
from studio.engine.model_files import FoundModel, configuration_folder, find_model
from studio.engine.models import Components, load_components

Weights = dict[str, torch.Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def renamed(name: str, names: Mapping[str, str]) -> str:
    """The name with its first piece that has another name exchanged."""
    for ours, theirs in names.items():
        if re.search(rf"\b{re.escape(ours)}\.", name):
            return re.sub(rf"\b{re.escape(ours)}\.", f"{theirs}.", name, count=1)
    return name


def original_unet_name(name: str, *, layers: int) -> str:
    """How CompVis' code calls a weight of the U-Net, from how diffusers calls it."""
    outer = {
        "conv_in": "input_blocks.0.0",
        "time_embedding.linear_1": "time_embed.0",
        "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0",
        "conv_out": "out.2",
        "mid_block.resnets.0": "middle_block.0",
        "mid_block.attentions.0": "middle_block.1",
        "mid_block.resnets.1": "middle_block.2",
    }
    if found := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.*)", name):
        side, block, kind, index, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
        if kind == "downsamplers":
            return f"input_blocks.{(layers + 1) * (block + 1)}.0.{rest.replace('conv', 'op')}"
        if kind == "upsamplers":
            return f"output_blocks.{(layers + 1) * block + layers}.UPSAMPLER.{rest}"
        place = (layers + 1) * block + index + (side == "down")
        return f"{'in' if side == 'down' else 'out'}put_blocks.{place}.{int(kind == 'attentions')}." + renamed(
            rest, RESNET if kind == "resnets" else {}
        )
    for ours, theirs in outer.items():
        if name.startswith(f"{ours}."):
            rest = name.removeprefix(f"{ours}.")
            return f"{theirs}.{renamed(rest, RESNET) if 'mid_block.resnets' in ours else rest}"
    raise AssertionError(name)


def original_unet(weights: Weights, *, layers: int) -> Weights:
    """An upsampler comes after the attention, where its block has one."""
    names = {name: original_unet_name(name, layers=layers) for name in weights}
    with_attention = {m[1] for name in names.values() if (m := re.match(r"(output_blocks\.\d+)\.1\.", name))}

    def place(name: str) -> str:
        block = name.partition(".UPSAMPLER")[0]
        return name.replace("UPSAMPLER", "2" if block in with_attention else "1")

    return {f"model.diffusion_model.{place(names[name])}": tensor for name, tensor in weights.items()}


def original_vae(weights: Weights, *, levels: int) -> Weights:
    """CompVis' code counts the decoder's levels from the other end, and has 1 × 1 convolutions in its attention."""
    original: Weights = {}
    for name, tensor in weights.items():
        new = name.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        new = new.replace("mid_block.attentions.0", "mid.attn_1").replace("conv_norm_out", "norm_out")
        new = re.sub(r"down_blocks\.(\d)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", new)
        new = new.replace("conv_shortcut", "nin_shortcut")
        if "attn_1" in new:
            new = renamed(new, VAE_ATTENTION)
            tensor = tensor[:, :, None, None].contiguous() if tensor.ndim == 2 else tensor
        original[f"first_stage_model.{new}"] = tensor
    return original


def original_checkpoint(folder: Path) -> Weights:
    """All weights of a folder in the original layout, and what such files have besides."""
    unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    vae = load_file(folder / "vae" / "diffusion_pytorch_model.safetensors")
    text = load_file(folder / "text_encoder" / "model.safetensors")
    config = json.loads((folder / "unet" / "config.json").read_text())
    levels = len(json.loads((folder / "vae" / "config.json").read_text())["block_out_channels"])
    return {
        **original_unet(unet, layers=config["layers_per_block"]),
        **original_vae(vae, levels=levels),
        **{f"cond_stage_model.transformer.text_model.{k.removeprefix('text_model.')}": v for k, v in text.items()},
        "cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None],
        "model_ema.decay": torch.tensor(0.9999),
        "alphas_cumprod": torch.linspace(1, 0, 1000),
    }


@pytest.fixture(scope="session")
def shoes() -> Weights:
    """The shipped model in the original layout."""
    return original_checkpoint(assets_folder() / SHIPPED_MODEL)


@pytest.fixture
def shoes_configuration(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped model is smaller than Stable Diffusion 1.5, and so brings its own configurations."""
    folder = assets_folder() / SHIPPED_MODEL
    for module in ("model_files", "models"):
        monkeypatch.setattr(f"studio.engine.{module}.configuration_folder", lambda: folder)
    return folder


def save(weights: Weights, file: Path, **metadata: str) -> Path:
    save_file(weights, file, metadata={"format": "pt", **metadata})
    return file


def load(file: Path, prediction_type: PredictionType = "auto") -> Components:
    return load_components(find_model(str(file)), "float32", prediction_type=prediction_type)


def refusal(file: Path) -> str:
    with pytest.raises(ModelError) as caught:
        find_model(str(file))
    return str(caught.value)


def assert_same_weights(one: Components, other: Components) -> None:
    for part, module in one.modules().items():
        mine, theirs = module.state_dict(), other.modules()[part].state_dict()
        assert mine.keys() == theirs.keys()
        different = [name for name, tensor in mine.items() if not torch.equal(tensor, theirs[name])]
        assert not different, f"{part}: {different[:3]}"


@pytest.mark.slow  # 2 GiB on disk, 6 GiB of memory
def test_a_file_of_real_size_is_the_same_model_as_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("nothing asks the network")

    monkeypatch.setattr("socket.socket.connect", refuse)
    folder = tmp_path / "folder"
    write_real_size_model(folder)
    file = save(original_checkpoint(folder), tmp_path / "model.safetensors")
    try:
        names = set(load_file(file))
        assert len([name for name in names if name.startswith("model.diffusion_model.")]) == 686
        assert len([name for name in names if name.startswith("first_stage_model.")]) == 248
        assert len([name for name in names if name.startswith("cond_stage_model.transformer.")]) == 197
        found = find_model(str(file))
        assert (found.name, found.file, found.folder, found.revision) == ("model", file, tmp_path, "")
        from_file = load_components(found, "float16")
        assert_same_weights(from_file, load_components(find_model(str(folder)), "float16"))
        assert from_file.num_parameters() == 1_066_235_307
        assert {p.dtype for m in from_file.modules().values() for p in m.parameters()} == {torch.float16}
        assert not any(p.requires_grad for m in from_file.modules().values() for p in m.parameters())
        assert len(from_file.tokenizer) == 49_408
        assert from_file.pipeline.scheduler.config.prediction_type == "epsilon"
    finally:
        shutil.rmtree(folder)
        file.unlink()


@pytest.mark.usefixtures("shoes_configuration")
def test_a_small_file_is_the_same_model_as_its_folder(shoes: Weights, tmp_path: Path) -> None:
    from_file = load(save(shoes, tmp_path / "shoes.safetensors"))
    assert_same_weights(from_file, load_components(find_model(SHIPPED_MODEL), "float32"))
    assert {p.device.type for m in from_file.modules().values() for p in m.parameters()} == {"cpu"}


@pytest.mark.usefixtures("shoes_configuration")
def test_a_text_encoder_in_the_shorter_names_is_read_too(shoes: Weights, tmp_path: Path) -> None:
    shorter = {k.replace("transformer.text_model.", "transformer."): v for k, v in shoes.items()}
    assert_same_weights(
        load(save(shorter, tmp_path / "shoes.safetensors")), load_components(find_model(SHIPPED_MODEL), "float32")
    )


@pytest.mark.usefixtures("shoes_configuration")
@pytest.mark.parametrize(
    ("prefix", "words"),
    [
        ("model.diffusion_model.middle_block.1.", "The unet in .* lacks some of its weights"),
        ("first_stage_model.decoder.mid.", "The vae in .* lacks some of its weights"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.", "The text encoder in .* lacks 2 of its weights"),
    ],
)
def test_a_file_that_lacks_weights_is_not_filled_up(shoes: Weights, tmp_path: Path, prefix: str, words: str) -> None:
    lacking = {name: tensor for name, tensor in shoes.items() if not name.startswith(prefix)}
    assert len(lacking) < len(shoes)
    with pytest.raises(ModelError, match=words):
        load(save(lacking, tmp_path / "shoes.safetensors"))


@pytest.mark.usefixtures("shoes_configuration")
def test_a_weight_of_another_shape_is_refused(shoes: Weights, tmp_path: Path) -> None:
    changed = shoes | {"model.diffusion_model.out.2.bias": torch.zeros(5)}
    with pytest.raises(ModelError, match="cannot be read"):
        load(save(changed, tmp_path / "shoes.safetensors"))


@pytest.mark.usefixtures("shoes_configuration")
@pytest.mark.parametrize(
    ("said", "asked", "expected"),
    [
        ("", "auto", "epsilon"),
        ("epsilon", "auto", "epsilon"),
        ("v", "auto", "v_prediction"),
        ("v_prediction", "auto", "v_prediction"),
        ("", "v_prediction", "v_prediction"),
        ("v", "epsilon", "epsilon"),
    ],
)
def test_what_the_unet_predicts_is_as_asked_or_as_the_file_says(
    shoes: Weights, tmp_path: Path, said: str, asked: PredictionType, expected: str
) -> None:
    metadata = {"modelspec.prediction_type": said} if said else {}
    components = load(save(shoes, tmp_path / "shoes.safetensors", **metadata), asked)
    assert components.pipeline.scheduler.config.prediction_type == expected


def test_a_folders_scheduler_is_honoured_and_can_be_overridden(model_copy: Path) -> None:
    config = model_copy / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "prediction_type": "v_prediction"}))
    own = load(model_copy).pipeline.scheduler
    assert (own.config.prediction_type, own.config.beta_end) == ("v_prediction", 0.012)
    other = load(model_copy, "epsilon").pipeline.scheduler
    assert (type(other), other.config.prediction_type) == (type(own), "epsilon")
    assert other.config.beta_end == own.config.beta_end


UNET_NAME, VAE_NAME = "model.diffusion_model.time_embed.0.bias", "first_stage_model.quant_conv.bias"
TEXT_NAME = "cond_stage_model.transformer.text_model.final_layer_norm.bias"
WHOLE = {UNET_NAME: (1,), VAE_NAME: (1,), TEXT_NAME: (1,)}
FIRST = "model.diffusion_model.input_blocks.0.0.weight"
CROSS = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({UNET_NAME: (1,), "conditioner.embedders.0.transformer.x": (1,)}, "is a checkpoint of Stable Diffusion XL"),
        ({"model.diffusion_model.label_emb.0.0.weight": (1,)}, "is a checkpoint of Stable Diffusion XL"),
        ({**WHOLE, CROSS: (320, 2048)}, "is a checkpoint of Stable Diffusion XL"),
        ({UNET_NAME: (1,), "cond_stage_model.model.ln_final.bias": (1,)}, "is a checkpoint of Stable Diffusion 2.x"),
        ({**WHOLE, CROSS: (320, 1024)}, "is a checkpoint of Stable Diffusion 2.x"),
        ({**WHOLE, CROSS: (320, 512)}, "is a model of another size (512, not 768)"),
        ({**WHOLE, FIRST: (320, 9, 3, 3)}, "is a checkpoint for inpainting"),
        ({**WHOLE, FIRST: (320, 8, 3, 3)}, "is a checkpoint for editing by instructions"),
        ({**WHOLE, FIRST: (320, 7, 3, 3)}, "is a model whose U-Net takes 7 channels"),
        ({"model.diffusion_model.joint_blocks.0.x": (1,)}, "is a checkpoint of Stable Diffusion 3"),
        ({"double_blocks.0.img_attn.x": (1,)}, "is a checkpoint of Flux"),
        ({"lora_unet_down_blocks_0_x.lora_down.weight": (4, 320)}, "is a LoRA, not a whole model"),
        ({"unet.down_blocks.0.attentions.0.to_q.lora_A.weight": (4, 320)}, "is a LoRA, not a whole model"),
        ({"control_model.time_embed.0.weight": (1,)}, "is a ControlNet"),
        ({"emb_params": (1, 768)}, "is a textual inversion embedding"),
        ({"down_blocks.0.resnets.0.conv1.weight": (1,)}, "is one part of a model in diffusers' layout"),
        ({"something.else": (1,)}, "its tensors have names such as something.else"),
        ({}, "its tensors have names such as (none)"),
        ({UNET_NAME: (1,)}, "has no VAE and no text encoder"),
        ({UNET_NAME: (1,), TEXT_NAME: (1,)}, "has no VAE, so"),
        ({VAE_NAME: (1,), TEXT_NAME: (1,)}, "has no U-Net, so"),
    ],
)
def test_what_is_no_whole_stable_diffusion_1_says_what_it_is(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], words: str
) -> None:
    file = save({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "x.safetensors")
    assert words in refusal(file)


def test_a_whole_one_is_found(tmp_path: Path) -> None:
    shapes = {**WHOLE, FIRST: (320, 4, 3, 3), CROSS: (320, 768)}
    file = save({name: torch.zeros(shape) for name, shape in shapes.items()}, tmp_path / "x.safetensors")
    assert find_model(str(file)) == FoundModel("x", tmp_path, file=file)


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin"])
def test_pickles_are_refused_with_the_reason(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"model{ending}"
    torch.save({}, file)
    assert "is a pickle: opening one can run any program" in refusal(file)
    file.rename(tmp_path / "model.safetensors")
    assert "is a pickle under another name" in refusal(tmp_path / "model.safetensors")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty or cut short"),
        (b"<!doctype html><title>404</title>", "is a web page saved under this name"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "is a Git LFS pointer"),
        (struct.pack("<Q", 4) + b"{{{{", "is not a .safetensors file"),
    ],
)
def test_what_only_looks_like_a_checkpoint_is_said_to_be_that(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    assert words in refusal(tmp_path / "x.safetensors")


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    file = save({name: torch.zeros(100) for name in WHOLE}, tmp_path / "x.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    assert "is damaged" in refusal(file)


def test_a_file_that_changed_after_it_was_found_is_checked_again(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(b"<html>")
    with pytest.raises(ModelError, match="is empty or cut short"):
        load_components(FoundModel("x", tmp_path, file=file), "float32")


@pytest.mark.parametrize("name", ["models/shoes.safetensors", "models/shoes.SAFETENSORS", "models/shoes.Ckpt"])
def test_a_file_that_does_not_exist_is_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.engine.model_files.find_hub_model", lambda *_, **__: pytest.fail("asked the Hub"))
    with pytest.raises(ModelError, match=f"There is no model folder or file {re.escape(name)}"):
        find_model(name)


def test_the_tokenizer_numbers_words_as_clip_does() -> None:
    """The numbers are CLIP's own, as its paper's code and open_clip give them."""
    tokenizer = CLIPTokenizer.from_pretrained(configuration_folder() / "tokenizer", local_files_only=True)
    assert (len(tokenizer), tokenizer.model_max_length, tokenizer.pad_token_id) == (49_408, 77, 49_407)
    words = tokenizer("professional product photo of black casual shoes, white background").input_ids
    assert words == [49406, 4774, 4306, 1125, 539, 1449, 10129, 4079, 267, 1579, 5994, 49407]
    signs = tokenizer("A photo of a cat's 12 naïve 猫 </w> 🎉").input_ids[1:-1]
    assert signs == [320, 1125, 539, 320, 2368, 568, 272, 273, 1097, 35689, 563, 163, 234, 360, 34308, 342, 285, 3986]
