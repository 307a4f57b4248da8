"""How many steps an image takes: scheduler, steps and guidance, which belong together, as one choice.

A Speed LoRA tells in its metadata with which of them it is used.
"""

from collections.abc import Mapping

from pydantic import ValidationError

from studio.core.settings import Guidance, SchedulerName, Settings, StepCount

SPEED_METADATA = "lora_studio.speed"
"""The entry of a LoRA's metadata that holds its `SpeedUse` as JSON."""


class SpeedUse(Settings):
    """With what a Speed LoRA is used; `teacher_lora` acts beside it, if the file names one.

    Attributes:
        timesteps: at which its steps begin, from noise on.
    """

    num_inference_steps: StepCount
    guidance_scale: Guidance = 1.0
    scheduler: SchedulerName
    timesteps: tuple[int, ...] = ()
    teacher_lora: str = ""
    teacher_lora_strength: float = 1.0


LCM_USE = SpeedUse(num_inference_steps=4, scheduler="LCM")
"""Of LCM-LoRAs (arXiv 2311.05556), which say nothing in their metadata."""


def use_of(name: str, metadata: Mapping[str, str]) -> SpeedUse | None:
    """With what a LoRA is used, where it is one for few steps: by its metadata, or by the name of published ones."""
    if SPEED_METADATA in metadata:
        try:
            return SpeedUse.model_validate_json(metadata[SPEED_METADATA])
        except ValidationError:  # of another version: it can still be used as any LoRA
            return None
    return LCM_USE if "lcm" in name.casefold().replace("_", "-").split("-") else None
