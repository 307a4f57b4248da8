"""Every dialect's names lead to the same layers; what is no LoRA for Stable Diffusion 1.x is named."""

import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import nn

from studio.core.errors import LoraError
from studio.engine.lora_merge import OriginalLayout
from studio.engine.model_files import configuration_folder
from studio.loras.keys import (
    LYCORIS_ROLES,
    LoraKey,
    Part,
    Role,
    ScaleRule,
    foreign_kind,
    read_key,
    scale_rules,
    strength_notes,
)
from studio.loras.weights_file import TensorInfo, WeightsHeader, read_header

SDXL = "a LoRA for Stable Diffusion XL"
TO_Q = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
TO_OUT = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_out_0"
DOTTED_ATTENTION = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
Q_PROJ = "encoder_layers_3_self_attn_q_proj"
DOTTED_Q_PROJ = "text_model.encoder.layers.3.self_attn.q_proj"

# (what goes before and after a dotted path, for each side) of every dialect that writes dotted names
DOTTED_SIDES = [
    ("lora_A.weight", "lora_B.weight"),
    ("lora_A.default.weight", "lora_B.default.weight"),
    ("lora_A.default_0.weight", "lora_B.default_0.weight"),
    ("lora_A.my-adapter.weight", "lora_B.my-adapter.weight"),
    ("lora_A.up.weight", "lora_B.down.weight"),
    ("lora.down.weight", "lora.up.weight"),
    ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
]


def header(entries: object = None, *, raw: str | None = None, paths: Sequence[str] = ()) -> WeightsHeader:
    """What a file says of its strength, with layers at these paths of the U-Net."""
    text = raw if raw is not None else json.dumps(entries)
    tensors = {f"unet.{path}.lora_A.weight": TensorInfo("F16", (4, 8)) for path in paths}
    return WeightsHeader(Path("a.safetensors"), tensors, {"lora_adapter_metadata": text}, 0)


def scale(rule: ScaleRule, layer: str, rank: int, alpha: float | None) -> float:
    return rule.effective_alpha(layer, rank, alpha) / rank


def kind(name: str, *shape: int) -> str:
    return foreign_kind({name: TensorInfo("F16", shape)})


@pytest.mark.parametrize(
    ("ending", "role"),
    [("lora_down.weight", "down"), ("lora_up.weight", "up"), ("alpha", "alpha"), ("dora_scale", "magnitude")],
)
@pytest.mark.parametrize(
    ("start", "part", "layer"),
    [
        (f"lora_unet_{TO_Q}", "unet", TO_Q),
        (f"lora_unet_{TO_OUT}", "unet", TO_OUT),
        ("lora_unet_conv_in", "unet", "conv_in"),
        (f"lora_te_text_model_{Q_PROJ}", "text_encoder", Q_PROJ),
        (f"lora_te1_text_model_{Q_PROJ}", "text_encoder", Q_PROJ),
        (f"lora_te_{Q_PROJ}", "text_encoder", Q_PROJ),
    ],
)
def test_kohyas_names_are_read(start: str, part: Part, layer: str, ending: str, role: Role) -> None:
    assert read_key(f"{start}.{ending}") == LoraKey(part, layer, role)


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *((name, name) for name in LYCORIS_ROLES),
        ("lora_mid.weight", "mid"),
        ("weight", "ia3"),
    ],
)
@pytest.mark.parametrize("start", ["lora_unet_", "lycoris_"])
def test_lycoris_names_are_read(start: str, name: str, role: Role) -> None:
    assert read_key(f"{start}{TO_Q}.{name}") == LoraKey("unet", TO_Q, role)


@pytest.mark.parametrize(
    ("prefix", "role"),
    [("lycoris_text_model_", "lora_down.weight"), ("base_model.model.text_model.", "lora_A.weight")],
)
def test_a_text_encoder_without_its_name_is_known_by_its_layers(prefix: str, role: str) -> None:
    path = (
        Q_PROJ if "lycoris" in prefix else Q_PROJ.replace("encoder_layers_3_self_attn_", "encoder.layers.3.self_attn.")
    )
    assert read_key(f"{prefix}{path}.{role}") == LoraKey("text_encoder", Q_PROJ, "down")


def test_every_original_name_of_stable_diffusion_1_is_the_layer_that_the_merged_checkpoint_means() -> None:
    """The other way round is another table: it writes checkpoints that A1111 and ComfyUI load."""
    layout = OriginalLayout(
        num_blocks=4,
        layers_per_block=2,
        num_vae_blocks=4,
        vae_layers_per_block=2,
        up_attention=(False, True, True, True),
    )
    config = json.loads((configuration_folder() / "unet" / "config.json").read_text(encoding="utf-8"))
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config)
    paths = [p for p, module in unet.named_modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]
    assert len(paths) > 250
    for path in paths:
        original = layout.unet(f"{path}.weight").removeprefix("model.diffusion_model.").removesuffix(".weight")
        wanted = LoraKey("unet", path.replace(".", "_"), "down")
        assert read_key(f"lora_unet_{original.replace('.', '_')}.lora_down.weight") == wanted
        assert read_key(f"diffusion_model.{original}.lora_down.weight") == wanted
        assert read_key(f"diffusion_model.{original}.lora_A.weight") == wanted


@pytest.mark.parametrize(("width", "words"), [(768, ""), (1024, "a LoRA for Stable Diffusion 2"), (2048, SDXL)])
def test_original_names_alone_do_not_make_a_file_one_for_xl(width: int, words: str) -> None:
    tensors = {
        "lora_unet_input_blocks_4_1_proj_in.lora_down.weight": TensorInfo("F16", (4, 640, 1, 1)),
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k.lora_down.weight": TensorInfo("F16", (4, width)),
    }
    assert foreign_kind(tensors) == words


@pytest.mark.parametrize("block", ["input_blocks_1_1", "input_blocks_11_0", "output_blocks_9_1", "output_blocks_6_1"])
def test_blocks_that_xl_has_not_are_stable_diffusion_1s(block: str) -> None:
    assert kind(f"lora_unet_{block}_proj_in.alpha") == ""


@pytest.mark.parametrize(("down", "up"), DOTTED_SIDES)
@pytest.mark.parametrize(
    "prefix", ["", "unet.", "base_model.model.", "base_model.model.unet.", "unet.base_model.model."]
)
def test_dotted_names_of_the_unet_are_read(prefix: str, down: str, up: str) -> None:
    assert read_key(f"{prefix}{DOTTED_ATTENTION}.to_q.{down}") == LoraKey("unet", TO_Q, "down")
    assert read_key(f"{prefix}{DOTTED_ATTENTION}.to_q.{up}") == LoraKey("unet", TO_Q, "up")


@pytest.mark.parametrize(("down", "up"), DOTTED_SIDES)
@pytest.mark.parametrize(
    "prefix", ["text_encoder.", "text_encoder.base_model.model.", "base_model.model.text_encoder."]
)
def test_dotted_names_of_the_text_encoder_are_read(prefix: str, down: str, up: str) -> None:
    assert read_key(f"{prefix}{DOTTED_Q_PROJ}.{down}") == LoraKey("text_encoder", Q_PROJ, "down")
    assert read_key(f"{prefix}{DOTTED_Q_PROJ}.{up}") == LoraKey("text_encoder", Q_PROJ, "up")


def test_a_text_encoder_without_text_model_has_the_same_layers() -> None:
    short = DOTTED_Q_PROJ.removeprefix("text_model.")
    assert read_key(f"text_encoder.{short}.lora_A.weight") == read_key(f"text_encoder.{DOTTED_Q_PROJ}.lora_A.weight")


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_dotted_alphas_are_read(part: Part) -> None:
    assert read_key(f"{part}.a.b.alpha") == LoraKey(part, "a_b", "alpha")


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
@pytest.mark.parametrize("ending", ["", ".weight", ".default", ".default.weight", ".default_0.weight"])
def test_magnitudes_of_peft_are_read(part: Part, ending: str) -> None:
    assert read_key(f"{part}.a.b.lora_magnitude_vector{ending}") == LoraKey(part, "a_b", "magnitude")


@pytest.mark.parametrize("shape", [(1, 320), (1, 320, 1, 1)])
def test_a_dora_of_inputs_is_told_from_one_of_outputs(shape: tuple[int, ...]) -> None:
    assert kind(f"lora_unet_{TO_Q}.dora_scale", *shape).startswith("a DoRA with one magnitude for each input")


@pytest.mark.parametrize("shape", [(320,), (320, 1), (320, 1, 1, 1)])
def test_a_dora_of_outputs_is_not_foreign(shape: tuple[int, ...]) -> None:
    assert kind(f"lora_unet_{TO_Q}.dora_scale", *shape) == ""


@pytest.mark.parametrize("prefix", ["unet.", ""])
@pytest.mark.parametrize("role", ["down", "up"])
@pytest.mark.parametrize(
    ("projection", "layer"),
    [
        ("to_q", TO_Q),
        ("to_k", TO_Q.replace("to_q", "to_k")),
        ("to_v", TO_Q.replace("to_q", "to_v")),
        ("to_out", TO_OUT),
    ],
)
def test_attention_processors_are_read(prefix: str, projection: str, layer: str, role: Role) -> None:
    name = f"{prefix}{DOTTED_ATTENTION}.processor.{projection}_lora.{role}.weight"
    assert read_key(name) == LoraKey("unet", layer, role)


def test_names_that_differ_only_in_dialect_mean_the_same() -> None:
    names = [
        f"lora_unet_{TO_OUT}.lora_down.weight",
        f"unet.{DOTTED_ATTENTION}.to_out.0.lora_A.weight",
        f"unet.{DOTTED_ATTENTION}.to_out.0.lora_A.default.weight",
        f"unet.{DOTTED_ATTENTION}.to_out.0.lora.down.weight",
        f"unet.{DOTTED_ATTENTION}.processor.to_out_lora.down.weight",
        f"base_model.model.{DOTTED_ATTENTION}.to_out.0.lora_A.weight",
        f"{DOTTED_ATTENTION}.to_out.0.lora_A.weight",
    ]
    assert {read_key(name) for name in names} == {LoraKey("unet", TO_OUT, "down")}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "alpha",
        ".alpha",
        "lora_A.weight",
        "lora_unet_a.lora_down.bias",
        "lora_unet_a.lora_down.weight ",
        "lora_te3_a.lora_down.weight",
        "unet.a.lora_A.bias",
        "unet.a.lora_C.weight",
        "unet.a.lora_A.x.y.weight",
        "unet.a.weight",
        "unet.a\n.lora_A.weight",
        "a.processor.to_x_lora.down.weight",
    ],
)
def test_other_names_are_of_no_dialect(name: str) -> None:
    assert read_key(name) is None


def test_no_name_whatever_raises() -> None:
    chooser = random.Random(3)
    pieces = [
        *("lora_unet_", "lora_te_", "unet.", "text_encoder.", "base_model.model.", "processor.", "to_q_lora."),
        *("lora_A.", "lora_B", ".lora_down", ".weight", ".alpha", ".", "_", "0", "é", "\n", "\ud800", "\0", ""),
    ]
    for _ in range(20_000):
        name = "".join(chooser.choice(pieces) for _ in range(chooser.randrange(9)))
        key = read_key(name)
        assert key is None or (
            key.part in ("unet", "text_encoder") and key.role in ("down", "up", "alpha", "magnitude", "ia3")
        )
        foreign_kind({name: TensorInfo("F16", (4, 1024))})


@pytest.mark.parametrize(
    "piece", ["attn2_to_k_", ".lora_A", ".lora_A.", ".processor.", "base_model.model.", "unet.", "a"]
)
def test_a_hostile_name_does_not_take_long(piece: str) -> None:
    name = piece * (2_000_000 // len(piece))
    started = time.monotonic()
    read_key(name)
    foreign_kind({name: TensorInfo("F16", (4, 1024))})
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (f"lora_unet_{TO_Q}.oft_blocks", "an OFT adapter"),
        (f"unet.{DOTTED_ATTENTION}.to_q.oft_R.weight", "an OFT adapter"),
        (f"lora_unet_{TO_Q}.a1.weight", "a GLoRA (LyCORIS)"),
        (f"base_model.model.{DOTTED_ATTENTION}.to_q.hada_w1_a", "a LoHa or LoKr of peft"),
        (f"base_model.model.{DOTTED_ATTENTION}.to_q.lokr_w1", "a LoHa or LoKr of peft"),
        (f"base_model.model.{DOTTED_ATTENTION}.to_k.ia3_l", "an (IA)³ of peft"),
        ("lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha", "a LoRA for Stable Diffusion XL"),
        ("text_encoder_2.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "a LoRA for Stable Diffusion XL"),
        ("lora_unet_input_blocks_4_1_proj_in.alpha", "a LoRA for Stable Diffusion XL"),
        ("lora_unet_middle_block_1_proj_in.alpha", "a LoRA for Stable Diffusion XL"),
        ("lora_unet_output_blocks_0_1_proj_in.alpha", "a LoRA for Stable Diffusion XL"),
        ("lora_transformer_blocks_0.alpha", "a LoRA for another kind of model (a diffusion transformer)"),
        (
            "transformer.transformer_blocks.0.attn.to_q.lora_A.weight",
            "a LoRA for another kind of model (a diffusion transformer)",
        ),
        ("transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight", "a LoRA for Flux"),
        ("lora_unet_double_blocks_0_img_attn_proj.alpha", "a LoRA for Flux"),
        ("lora_unet_joint_blocks_0_context_block_attn_proj.alpha", "a LoRA for Stable Diffusion 3"),
        ("model.diffusion_model.input_blocks.0.0.weight", "a whole model, not a LoRA"),
        ("first_stage_model.encoder.conv_in.weight", "a whole model, not a LoRA"),
        ("emb_params", "a textual inversion embedding"),
        ("control_model.zero_convs.0.0.weight", "a ControlNet"),
    ],
)
def test_other_kinds_of_files_are_named_by_their_tensors_names(name: str, words: str) -> None:
    assert kind(name) == words


@pytest.mark.parametrize(("width", "model"), [(2048, "Stable Diffusion XL"), (1024, "Stable Diffusion 2")])
@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.weight",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_v.lora_A.default.weight",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.lora.down.weight",
        "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight",
    ],
)
def test_the_width_of_the_text_tells_the_model(name: str, width: int, model: str) -> None:
    assert kind(name, 4, width) == f"a LoRA for {model}"


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lora_unet_a_attn2_to_k.lora_down.weight", (4, 768)),
        ("lora_unet_a_attn2_to_k.lora_up.weight", (320, 1024)),
        ("lora_unet_a_attn1_to_k.lora_down.weight", (4, 1024)),
        ("lora_unet_a_attn2_to_q.lora_down.weight", (4, 1024)),
        ("lora_unet_a_attn2_to_k.lora_down.weight", (1024,)),
        ("lora_unet_a_attn2_to_k.alpha", ()),
    ],
)
def test_what_may_be_for_stable_diffusion_1_is_not_called_foreign(name: str, shape: tuple[int, ...]) -> None:
    assert kind(name, *shape) == ""


def test_without_metadata_the_scale_is_1() -> None:
    rules = scale_rules(WeightsHeader(Path("a.safetensors"), {}, {}, 0))
    assert [scale(rule, "a", 8, None) for rule in rules.values()] == [1, 1]


def test_the_scale_is_alpha_by_rank() -> None:
    assert scale(ScaleRule(), "a", 8, 4.0) == 0.5


def test_an_alpha_tensor_goes_before_the_metadata() -> None:
    assert scale(ScaleRule(alpha=16, layer_alphas={"a": 32}), "a", 8, 4.0) == 0.5


def test_the_metadatas_alpha_is_each_parts_own() -> None:
    rules = scale_rules(header({"unet.lora_alpha": 6, "text_encoder.lora_alpha": 2.5}))
    assert scale(rules["unet"], "a", 4, None) == 1.5
    assert scale(rules["text_encoder"], "a", 5, None) == 0.5


def test_metadata_without_a_part_is_the_unets() -> None:
    rules = scale_rules(header({"lora_alpha": 6}))
    assert (rules["unet"].alpha, rules["text_encoder"].alpha) == (6, None)


def test_metadata_with_the_part_goes_before_one_without() -> None:
    assert scale_rules(header({"unet.lora_alpha": 6, "lora_alpha": 1}))["unet"].alpha == 6


def test_rslora_divides_by_the_root_of_the_rank() -> None:
    rules = scale_rules(header({"unet.lora_alpha": 6, "unet.use_rslora": True, "text_encoder.lora_alpha": 6}))
    assert scale(rules["unet"], "a", 16, None) == 1.5
    assert scale(rules["text_encoder"], "a", 16, None) == 0.375


def test_a_layer_of_its_own_alpha_has_it() -> None:
    entries = {"unet.lora_alpha": 4, "unet.alpha_pattern": {"mid_block.attn.to_q": 8, "conv_in": 2}}
    paths = ("mid_block.attn.to_q", "conv_in", "mid_block.attn.to_k")
    rule = scale_rules(header(entries, paths=paths))["unet"]
    assert [scale(rule, path.replace(".", "_"), 4, None) for path in paths] == [2, 0.5, 1]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("to_q", "to_k", "to_v", "xto_q"):
            self.add_module(name, nn.Linear(8, 8))


class Blocks(nn.Module):
    """Paths as a U-Net has them."""

    def __init__(self) -> None:
        super().__init__()
        self.down_blocks = nn.ModuleList([Attention() for _ in range(12)])
        self.mid_block = nn.ModuleDict({"attn1": Attention(), "attn2": Attention()})


# What peft's documentation and its users write, and what only a regular expression is.
PATTERNS: list[dict[str, float]] = [
    {"attn1.to_q": 3},
    {"to_q": 3, "attn1.to_q": 5},
    {"attn1.to_q": 5, "to_q": 3},
    {"q": 3, "o_q": 3, "xto_q": 5},
    {"^mid_block.attn1.to_q": 3, "^attn2.to_q": 5},
    {r"down_blocks\.1\..*": 3},
    {r"down_blocks\.1.*to_q": 3, "down_blocks.1": 5},
    {r".*attn[12]\.to_(q|k)": 3, ".*": 5},
    {r"down_blocks\.\d+\.to_v": 3, r"^down_blocks\.(0|11)\.to_[^qv]$": 5},
    {"mid_block": 3, "mid_block.*": 5},
    {"t._.": 3},
    {"": 3},
]


@pytest.mark.filterwarnings("ignore:The following alpha_pattern keys")
@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("alphas", PATTERNS, ids=str)
def test_patterns_mean_what_they_mean_to_peft(alphas: dict[str, float], use_rslora: bool, tmp_path: Path) -> None:
    """Ranks by pattern come from the tensors; strengths are those of peft's own layers."""
    ranks = {r".*to_(k|v)": 4, "^mid_block.*": 3}
    config = LoraConfig(
        r=2, lora_alpha=6, target_modules=["to_q", "to_k", "to_v", "xto_q"], rank_pattern=ranks, alpha_pattern=alphas,
        use_rslora=use_rslora,
    )  # fmt: skip
    get_peft_model(Blocks(), config).save_pretrained(tmp_path)
    model = PeftModel.from_pretrained(Blocks(), tmp_path)  # the file has the patterns sorted
    head = read_header(tmp_path / "adapter_model.safetensors")
    rule = scale_rules(head)["unet"]
    wanted, found = {}, {}
    for path, layer in model.base_model.model.named_modules():
        if isinstance(layer, LoraLayer):
            wanted[path] = layer.scaling["default"]
            rank = head.tensors[f"base_model.model.{path}.lora_A.weight"].shape[0]
            found[path] = scale(rule, path.replace(".", "_"), rank, None)
    assert len(wanted) == 14 * 4
    assert found == pytest.approx(wanted)


@pytest.mark.parametrize("pattern", [{r".*to_(k|v)": 4}, {"a" * 1000: 4}])
def test_ranks_are_those_of_the_tensors_whatever_a_pattern_says(pattern: object, tmp_path: Path) -> None:
    rule = scale_rules(peft_header(tmp_path, {"r": 99, "lora_alpha": 8, "rank_pattern": pattern}))["unet"]
    assert scale(rule, "a_to_q", 4, None) == 2


@pytest.mark.parametrize(
    "pattern", ["(a+)+b", "(a|a)" * 20, "a?" * 30 + "a" * 30, "(?=a)a", r"(a)\1", ".*" * 4, "a{1,9}"]
)
def test_a_pattern_that_could_be_searched_for_without_end_is_refused(pattern: str) -> None:
    began = time.monotonic()
    with pytest.raises(LoraError, match="in alpha_pattern, which is too complicated"):
        scale_rules(header({"unet.alpha_pattern": {pattern: 1}}, paths=["a" * 90]))
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("pattern", ["(a", "a)", "[z-a]", "*a", "(?i)a"])
def test_a_pattern_that_is_no_regular_expression_is_refused(pattern: str) -> None:
    with pytest.raises(LoraError, match="in alpha_pattern, which is no regular expression"):
        scale_rules(header({"unet.alpha_pattern": {pattern: 1}}, paths=["a"]))


def test_patterns_that_are_slow_together_are_given_up() -> None:
    """The slowest that are let through, for many layers with the longest names: refused in seconds, not never."""
    slow = {f".*a.*a.*{'(a|a)' * 6}{number}": 1.0 for number in range(1000)}
    paths = [f"{number:05}" + "a" * 91 for number in range(1000)]
    began = time.thread_time()
    with pytest.raises(LoraError, match="in alpha_pattern, which takes too long to search for"):
        scale_rules(header({"unet.alpha_pattern": slow}, paths=paths))
    assert time.thread_time() - began < 10


@pytest.mark.parametrize(
    "entries", [{"unet.lora_alpha": None}, {"unet.alpha_pattern": None}, {"unet.alpha_pattern": {}}]
)
def test_an_empty_entry_is_as_none(entries: Mapping[str, object]) -> None:
    assert scale(scale_rules(header(entries))["unet"], "a", 8, None) == 1


@pytest.mark.parametrize("raw", ["", "{", "not JSON", "[" * 100_000, "9" * 5000])
def test_metadata_that_is_no_json_is_refused(raw: str) -> None:
    with pytest.raises(LoraError, match=r"a\.safetensors is damaged: its lora_adapter_metadata is not JSON"):
        scale_rules(header(raw=raw))


@pytest.mark.parametrize("raw", ["[]", "1", "null", '"text"'])
def test_metadata_that_is_no_object_is_refused(raw: str) -> None:
    with pytest.raises(LoraError, match="its lora_adapter_metadata is not a JSON object"):
        scale_rules(header(raw=raw))


@pytest.mark.parametrize("alpha", ["16", [], {}, True, math.nan, math.inf, -math.inf, 10**400])
def test_an_alpha_that_is_no_finite_number_is_refused(alpha: object) -> None:
    with pytest.raises(LoraError, match=r"a\.safetensors is damaged: its lora_adapter_metadata has .* lora_alpha"):
        scale_rules(header({"unet.lora_alpha": alpha}))


@pytest.mark.parametrize("pattern", [{"a": "16"}, {"a": math.nan}, {"a": None}, {"a": 10**400}, [["a", 1]], "a", 3])
def test_an_alpha_pattern_that_is_no_table_of_numbers_is_refused(pattern: object) -> None:
    with pytest.raises(LoraError, match=r"its lora_adapter_metadata has .* alpha_pattern"):
        scale_rules(header({"text_encoder.alpha_pattern": pattern}))


def peft_header(
    folder: Path, config: object, *, name: str = "adapter_model", metadata: str | None = None
) -> WeightsHeader:
    """The head of a file that peft wrote, with its configuration beside it."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.safetensors"
    path.touch()
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    names = [f"{part}{block}.to_q" for part in ("", "encoder.layers.0.") for block in "ab"]
    tensors = {f"base_model.model.{name}.lora_A.weight": TensorInfo("F32", (4, 8)) for name in names}
    return WeightsHeader(path, tensors, {} if metadata is None else {"lora_adapter_metadata": metadata}, 0)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ({"r": 16, "lora_alpha": 8}, [0.5, 0.5]),
        ({"r": 16, "lora_alpha": 8, "use_rslora": True}, [2, 2]),
        ({"r": 16, "lora_alpha": 8, "alpha_pattern": {"b.to_q": 32}}, [0.5, 2]),
        ({"r": 16, "lora_alpha": 8, "use_rslora": True, "alpha_pattern": {"b.to_q": 32}}, [2, 8]),
    ],
)
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_pefts_configuration_beside_the_file_says_how_strong_it_is(
    part: Part, config: object, wanted: list[float], tmp_path: Path
) -> None:
    rule = scale_rules(peft_header(tmp_path, config))[part]
    within = "encoder_layers_0_" if part == "text_encoder" else ""
    assert [scale(rule, within + layer, 16, None) for layer in ("a_to_q", "b_to_q")] == wanted


def test_what_the_file_says_itself_goes_before_what_lies_beside_it(tmp_path: Path) -> None:
    head = peft_header(tmp_path, {"lora_alpha": 8}, metadata='{"unet.lora_alpha": 2}')
    assert scale_rules(head)["unet"].alpha == 2


def test_a_configuration_beside_a_file_that_peft_did_not_write_says_nothing_of_it(tmp_path: Path) -> None:
    beside = peft_header(tmp_path, {"lora_alpha": 8})
    kohyas = WeightsHeader(beside.path, {f"lora_unet_{TO_Q}.lora_down.weight": TensorInfo("F16", (4, 8))}, {}, 0)
    assert scale_rules(kohyas)["unet"].alpha is None
    assert len(strength_notes(kohyas)) == 1


def test_a_configuration_among_several_files_is_that_of_adapter_model_alone(tmp_path: Path) -> None:
    mine = peft_header(tmp_path, {"lora_alpha": 8}, name="mine")
    assert scale_rules(mine)["unet"].alpha == 8
    adapter = peft_header(tmp_path, {"lora_alpha": 8})
    assert scale_rules(mine)["unet"].alpha is None
    assert scale_rules(adapter)["unet"].alpha == 8


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("{", r"adapter_config\.json, which says how strong adapter_model\.safetensors is, .* is not JSON"),
        ({"lora_alpha": "8"}, "has no finite number in lora_alpha"),
        ({"peft_type": "LOHA"}, "has peft_type 'LOHA', where the studio reads LORA"),
        ({"use_dora": True}, "has use_dora, but the weights have no lora_magnitude_vector"),
        ({"alpha_pattern": {"(a+)+": 3}}, r"has the regular expression '\(a\+\)\+' in alpha_pattern, which is too"),
        ("x" * (2**20 + 1), "cannot be read"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_said(config: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(LoraError, match=words):
        scale_rules(peft_header(tmp_path, config))
