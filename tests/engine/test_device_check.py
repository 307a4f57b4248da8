"""The device check finds a device that computes wrongly; shown with a second model that was made wrong."""

from pathlib import Path

import pytest
import torch
from torch import nn

from studio.engine.device_check import check_device, compare, keep_check, kept_check
from studio.engine.models import Components, find_model, load_components
from studio.results import DeviceCheck, DeviceDifference


@pytest.fixture
def candidate() -> Components:
    """The model on another device, as it were."""
    return load_components(find_model("shoes-demo"), "float32")


@pytest.fixture(scope="module")
def reference() -> Components:
    """The model on the CPU; not the shared manager's, which keeps the last test's LoRAs attached."""
    return load_components(find_model("shoes-demo"), "float32")


def differences(candidate: Components, reference: Components) -> dict[str, float]:
    return {d.part: d.difference for d in compare(candidate, reference)}


def tf32(values: torch.Tensor) -> torch.Tensor:
    """Rounded to ten bits behind the point, as CUDA's convolutions read float32 by default."""
    bits = values.detach().contiguous().view(torch.int32)
    rounded = ((bits + 0x1000) & ~0x1FFF).view(torch.float32)
    return values + (rounded - values).detach()  # gradients pass


def result(*differences: DeviceDifference) -> DeviceCheck:
    return check_device(torch.device("cpu")).model_copy(update={"differences": differences, "device_name": "Apple GPU"})


def test_on_the_cpu_there_is_nothing_to_compare() -> None:
    check = check_device(torch.device("cpu"))
    assert check.differences == ()
    assert "no other device to compare it with" in check.sentence


def test_equal_devices_differ_by_nothing_in_all_three_parts(reference: Components, candidate: Components) -> None:
    assert differences(candidate, reference) == {"UNet steps": 0, "VAE decode": 0, "backward pass": 0}


def test_a_device_that_computes_the_unet_wrongly_is_found(reference: Components, candidate: Components) -> None:
    candidate.unet.conv_out.register_forward_hook(lambda _m, _i, out: out * 1.1)
    found = differences(candidate, reference)
    assert found["UNet steps"] > 0.01
    assert found["VAE decode"] == 0


def test_a_device_whose_convolutions_round_as_tf32_does_is_sound(reference: Components, candidate: Components) -> None:
    for module in (*candidate.unet.modules(), *candidate.vae.modules()):
        if isinstance(module, nn.Conv2d):
            module.weight.data = tf32(module.weight.data)
            module.register_forward_pre_hook(lambda _m, inputs: (tf32(inputs[0]),))
    found = compare(candidate, reference)
    assert all(1e-5 < difference.difference < difference.limit / 2 for difference in found)


def test_a_device_whose_gradients_alone_are_wrong_is_found(reference: Components, candidate: Components) -> None:
    candidate.unet.conv_in.weight.requires_grad_(True).register_hook(lambda gradient: gradient * 1.5)
    found = differences(candidate, reference)
    assert found["UNet steps"] == 0
    assert found["backward pass"] > 0.01


def test_nan_on_the_device_is_an_infinite_difference(reference: Components, candidate: Components) -> None:
    with torch.no_grad():
        candidate.vae.decoder.conv_out.bias[0] = float("nan")
    check = result(*compare(candidate, reference))
    assert not check.passed
    assert DeviceCheck.model_validate_json(check.model_dump_json()).differences[1].difference == float("inf")


def test_the_sentence_tells_what_is_wrong_and_what_to_do() -> None:
    good = DeviceDifference(part="VAE decode", difference=1e-5, limit=1e-2)
    bad = DeviceDifference(part="backward pass", difference=0.5, limit=1e-2)
    assert "the largest difference is 1.0e-05 (VAE decode)" in result(good).sentence
    assert "backward pass differs by 5.0e-01" in result(good, bad).sentence
    assert "--cpu" in result(good, bad).sentence


def test_a_result_is_kept_for_this_machine_and_torch_version_alone(tmp_path: Path) -> None:
    path, device = tmp_path / "checks.json", torch.device("cpu")
    check = check_device(device)
    assert kept_check(path, device) is None
    keep_check(path, check.model_copy(update={"torch_version": "1.0"}))
    assert kept_check(path, device) is None
    keep_check(path, check)
    keep_check(path, check)
    assert kept_check(path, device) == check
    assert path.read_text().count('"torch_version"') == 2, "the older one of the same kind was replaced"


def test_a_damaged_file_of_results_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "checks.json"
    path.write_text("[{")
    assert kept_check(path, torch.device("cpu")) is None
    check = check_device(torch.device("cpu"))
    keep_check(path, check)
    assert kept_check(path, torch.device("cpu")) == check
