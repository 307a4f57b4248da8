"""Schedulers by the names that people know them by, made from the model's own noise schedule."""

from collections.abc import Mapping
from typing import Any

from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)

from studio.settings import SchedulerName

# clip_sample: a config that lacks it gets the default True, which cuts latents off at 1 and ruins the picture.
_NOT_CLIPPED = {"clip_sample": False}
_SCHEDULERS: Mapping[SchedulerName, tuple[type[SchedulerMixin], Mapping[str, Any]]] = {
    "DDIM": (DDIMScheduler, {**_NOT_CLIPPED, "set_alpha_to_one": False, "steps_offset": 1}),
    "PNDM": (PNDMScheduler, {"skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
    "Euler": (EulerDiscreteScheduler, {"use_karras_sigmas": False}),
    "Euler a": (EulerAncestralDiscreteScheduler, {}),
    "DPM++ 2M": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "use_karras_sigmas": False}),
    "DPM++ 2M Karras": (DPMSolverMultistepScheduler, {"algorithm_type": "dpmsolver++", "use_karras_sigmas": True}),
    "UniPC": (UniPCMultistepScheduler, {"use_karras_sigmas": False}),
    "DDPM": (DDPMScheduler, {**_NOT_CLIPPED, "variance_type": "fixed_small"}),
    "LCM": (LCMScheduler, _NOT_CLIPPED),
}


def make_scheduler(name: SchedulerName, own: SchedulerMixin) -> SchedulerMixin:
    """A scheduler by its name, with the betas, the prediction type and the spacing of the model's own.

    "model's own" is the class and the configuration that the model came with; a new one for each picture all the
    same, because schedulers keep state.
    """
    if name == "model's own":
        return type(own).from_config(own.config)
    kind, options = _SCHEDULERS[name]
    return kind.from_config(own.config, **options)
