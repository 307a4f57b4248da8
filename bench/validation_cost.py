"""What the checks of one image cost, measured apart from making it: the difference would drown in noise."""

import time
from collections.abc import Callable
from statistics import median

import torch

from studio.engine.denoise import to_picture
from studio.engine.device import synchronize
from studio.engine.pipeline import CHECK_EVERY
from studio.engine.validation import check_decoded, check_latents, check_picture, passed_checks

REPEATS = 15
LATENT_SCALE = 8


def validation_seconds(device: torch.device, *, num_steps: int, width: int, height: int) -> float:
    """Seconds of every check that `PipelineManager.generate()` makes for one good image of `num_steps` steps.

    On random latents and pixels: the checks look at each value once, whatever it is.
    """
    generator = torch.Generator("cpu").manual_seed(0)
    latents = torch.randn((1, 4, height // LATENT_SCALE, width // LATENT_SCALE), generator=generator).to(device)
    decoded = (torch.rand((3, height, width), generator=generator) * 2 - 1).to(device)
    picture = to_picture(decoded)

    def check_all() -> None:
        for step in range(1, num_steps + 1):
            if step % CHECK_EVERY == 0 or step == num_steps:
                assert check_latents(latents) is None
        assert check_decoded(decoded) is None
        assert check_picture(picture, height=height, width=width) is None
        passed_checks(num_steps=num_steps, decoded_CHW=decoded, picture_HWC=picture)

    with torch.inference_mode():
        check_all()
        return median(_seconds(check_all, device) for _ in range(REPEATS))


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start
