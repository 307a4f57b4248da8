"""One function decides the precision, and one assertion proves it, without a Mac at hand."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from studio.core.errors import PrecisionError
from studio.core.settings import PrecisionName
from studio.engine.device import assert_precision, decide_precision
from studio.engine.model_files import find_model
from studio.engine.models import load_components
from studio.engine.pipeline import PipelineManager


@pytest.mark.parametrize("requested", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("device_type", ["mps", "cpu", "xpu"])
def test_everything_but_cuda_computes_in_float32_whatever_is_asked(device_type: str, requested: PrecisionName) -> None:
    decision = decide_precision(device_type, requested)
    assert decision.precision == "float32"
    assert decision.raised == (requested != "float32")


@pytest.mark.parametrize("requested", ["float16", "bfloat16"])
def test_a_raised_request_on_a_mac_names_the_page_about_black_pictures(requested: PrecisionName) -> None:
    reason = decide_precision("mps", requested).reason
    assert reason.startswith(f"{requested} was asked for, float32 is used")
    assert "docs/black-pictures.md" in reason
    assert Path("docs/black-pictures.md").is_file()


@pytest.mark.parametrize("requested", ["float32", "float16", "bfloat16"])
def test_cuda_computes_in_what_was_asked_for(requested: PrecisionName) -> None:
    assert decide_precision("cuda", requested).precision == requested


def test_files_stored_in_float16_are_float32_in_memory(manager: PipelineManager) -> None:
    folder = find_model("shoes-demo").folder
    stored = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float16}
    for module in manager.components.modules().values():
        assert {p.dtype for p in module.parameters()} == {torch.float32}


def test_files_are_loaded_in_half_precision_where_the_policy_says_so() -> None:
    components = load_components(find_model("shoes-demo"), "float16")
    assert_precision(components.modules(), "float16")
    with pytest.raises(PrecisionError, match="Everything must be float32"):
        assert_precision(components.modules(), "float32")


def test_one_parameter_in_half_precision_is_found(fresh_manager: PipelineManager) -> None:
    modules = fresh_manager.components.modules()
    assert_precision(modules, "float32")
    bias = modules["vae"].decoder.conv_out.bias
    bias.data = bias.data.half()
    with pytest.raises(PrecisionError, match=r"vae\.decoder\.conv_out\.bias is float16"):
        assert_precision(modules, "float32")


def test_one_buffer_in_half_precision_is_found_and_whole_numbers_are_left_alone() -> None:
    module = torch.nn.Module()
    module.register_buffer("position_ids", torch.arange(3))
    assert_precision({"text_encoder": module}, "float32")
    module.register_buffer("scale", torch.ones(1, dtype=torch.bfloat16))
    with pytest.raises(PrecisionError, match=r"text_encoder\.scale is bfloat16"):
        assert_precision({"text_encoder": module}, "float32")


def test_a_parameter_that_was_never_loaded_is_found() -> None:
    module = torch.nn.Linear(2, 2, device="meta")
    with pytest.raises(PrecisionError, match=r"unet\.weight is not loaded"):
        assert_precision({"unet": module}, "float32")
