"""Each check fails for what it guards against, and only for that."""

import numpy as np
import pytest
import torch

from studio.engine.denoise import to_picture
from studio.engine.validation import check_decoded, check_latents, check_picture


def noise_picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_latent_that_is_not_finite_fails(value: float, dtype: torch.dtype) -> None:
    latents = torch.randn(1, 4, 64, 64).to(dtype)
    assert check_latents(latents) is None
    latents[0, 2, 5, 7] = value
    fault = check_latents(latents)
    assert fault is not None
    assert "0.0061% of the latents are NaN or infinite" in fault.finding


def test_infinities_of_both_signs_do_not_cancel_in_the_sum() -> None:
    latents = torch.zeros(1, 4, 8, 8)
    latents[0, 0, 0, 0], latents[0, 0, 0, 1] = float("inf"), float("-inf")
    assert check_latents(latents) is not None


def test_large_finite_half_precision_latents_are_not_called_infinite() -> None:
    assert check_latents(torch.full((1, 4, 64, 64), 60_000.0, dtype=torch.float16)) is None


def test_one_channel_of_nan_is_named() -> None:
    decoded = torch.rand(3, 16, 16)
    decoded[1] = float("nan")
    fault = check_decoded(decoded)
    assert fault is not None
    assert fault.finding == "The VAE gave NaN or infinite values (green 100%)."


def test_an_inf_that_the_clamp_would_hide_fails() -> None:
    decoded = torch.rand(3, 16, 16) - 0.5
    decoded[0, 3, 3] = float("inf")
    assert check_picture(to_picture(decoded), height=16, width=16) is None, "the image alone looks good"
    fault = check_decoded(decoded)
    assert fault is not None
    assert "red" in fault.finding


def test_finite_values_far_outside_the_decoder_range_fail() -> None:
    decoded = torch.rand(3, 16, 16)
    decoded[2, 0, 0] = -7.0
    assert check_picture(to_picture(decoded), height=16, width=16) is None, "the clamp hides it"
    fault = check_decoded(decoded)
    assert fault is not None
    assert "values up to 7" in fault.finding


def test_the_overshoot_of_a_good_decoder_passes() -> None:
    assert check_decoded(torch.linspace(-1.6, 1.6, 3 * 16 * 16).reshape(3, 16, 16)) is None


def test_nan_cannot_be_seen_in_a_finished_picture() -> None:
    """Why the raw output is checked: the report that this studio grew out of looked here."""
    decoded = torch.full((3, 16, 16), float("nan"))
    picture = to_picture(decoded)
    assert picture.dtype == np.uint8
    assert not np.isnan(picture.astype(float)).any()


@pytest.mark.parametrize("level", [0, 3])
def test_a_black_picture_fails(level: int) -> None:
    fault = check_picture(np.full((16, 16, 3), level, np.uint8), height=16, width=16)
    assert fault is not None
    assert fault.finding.startswith("The image is black")


@pytest.mark.parametrize("colour", [(255, 255, 255), (128, 128, 128), (200, 30, 40)])
def test_one_flat_colour_fails(colour: tuple[int, int, int]) -> None:
    fault = check_picture(np.full((16, 16, 3), colour, np.uint8), height=16, width=16)
    assert fault is not None
    assert "one flat colour" in fault.finding


def test_a_dark_picture_and_a_pale_one_pass() -> None:
    assert check_picture(noise_picture() // 12, height=16, width=16) is None
    assert check_picture(255 - noise_picture() // 12, height=16, width=16) is None


@pytest.mark.parametrize("shape", [(16, 8, 3), (16, 16, 4), (16, 16)])
def test_a_wrong_shape_fails(shape: tuple[int, ...]) -> None:
    fault = check_picture(np.zeros(shape, np.uint8), height=16, width=16)
    assert fault is not None
    assert "expected (16, 16, 3)" in fault.finding


def test_a_wrong_type_fails() -> None:
    fault = check_picture(noise_picture().astype(np.float32), height=16, width=16)
    assert fault is not None
    assert "float32" in fault.finding
