"""A Speed LoRA: a training whose teacher is the model itself, and which learns to draw its images in few steps.

Progressive distillation (Salimans and Ho, arXiv 2202.00512) in one go, segment by segment (Hyper-SD, arXiv 2404.13686).
"""

import math
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field

from studio.core.language import N_, _
from studio.core.settings import Fraction, GenerationSettings, Guidance, LoraChoice, Settings, Strength
from studio.images.scores.summary import Spread
from studio.loras.speed import NEAR_ENOUGH, SpeedUse
from studio.training.events import ScoreEvent

ObjectiveName = Literal["images", "few steps"]


class SpeedSettings(Settings):
    """The part of a training's settings that only a Speed LoRA has."""

    objective: ObjectiveName = Field(
        "images",
        title=N_("Objective"),
        description=N_(
            "What is learned: the dataset's images, or with “few steps” (a Speed LoRA) to draw the model's own images "
            "of the dataset's captions in few steps, without guidance."
        ),
        json_schema_extra={"group": N_("Speed LoRA")},
    )
    teacher_lora: str = Field(
        "",
        title=N_("Teacher's LoRA"),
        description=N_("The LoRA that a Speed LoRA makes fast, by name or path."),
        json_schema_extra={"placeholder": N_("the base model")},
    )
    teacher_lora_strength: Strength = Field(
        1.0,
        title=N_("Teacher's LoRA strength"),
        description=N_("How strongly the teacher's LoRA acts. Use it at the same strength with the Speed LoRA."),
    )
    teacher_guidance_scale: Guidance = Field(
        7.5,
        title=N_("Teacher's guidance"),
        description=N_("The guidance of the images that a Speed LoRA learns from; it becomes part of the LoRA."),
    )
    num_teacher_images: Annotated[int, Ge(1), Le(100_000)] = Field(
        240,
        title=N_("Teacher's images"),
        description=N_("Number of images that the teacher draws for a Speed LoRA to learn from."),
    )
    caption_variety: Fraction = Field(
        0.0,
        title=N_("Captions in other words"),
        description=N_(
            "Fraction of the teacher's images whose caption is worded otherwise: words of other captions in the same "
            "places, an opening, a background. A Speed LoRA then knows prompts better that are no captions."
        ),
    )
    on_own_path: bool = Field(
        False,
        title=N_("On its own path"),
        description=N_(
            "Each step of an image is learned from where the Speed LoRA itself has come to, and not from where the "
            "teacher was: its errors do not add up. A fifth slower."
        ),
    )
    speed_steps: Annotated[int, Ge(1), Le(8)] = Field(
        4,
        title=N_("Steps of the Speed LoRA"),
        description=N_("Number of denoising steps that a Speed LoRA is made for: 2, 4 and 8 are usual."),
    )

    @property
    def makes_speed_lora(self) -> bool:
        return self.objective == "few steps"

    @property
    def teacher_loras(self) -> tuple[LoraChoice, ...]:
        """What acts beside what is trained, in each of its passes and images."""
        if not (self.makes_speed_lora and self.teacher_lora):
            return ()
        return (LoraChoice(name=self.teacher_lora, strength=self.teacher_lora_strength),)

    def drawn_fast(self, generation: GenerationSettings) -> GenerationSettings:
        """The same image, as a Speed LoRA draws it."""
        changes = {"scheduler": "Euler trailing", "num_inference_steps": self.speed_steps, "guidance_scale": 1.0}
        return generation.model_copy(update=changes) if self.makes_speed_lora else generation

    @property
    def teacher_steps(self) -> int:
        """Denoising steps of the teacher: at least 8, and as many for each step of the Speed LoRA, two or more."""
        return self.speed_steps * max(2, math.ceil(8 / self.speed_steps))


def segment_times(num_segments: int, num_train_timesteps: int = 1000) -> list[int]:
    """The timestep at which each segment begins, from noise on: 999, 749, 499, 249 for four.

    diffusers' "trailing" spacing, which A1111 and ComfyUI call SGM uniform.
    """
    step = num_train_timesteps / num_segments
    return [round(num_train_timesteps - i * step) - 1 for i in range(num_segments)]


def _name_of(lora: str) -> str:
    """A library's name as it is, dots and all; of a file its name there."""
    return Path(lora).stem if lora.endswith(".safetensors") else lora


def speed_use(settings: SpeedSettings) -> SpeedUse:
    """With what the Speed LoRA of these settings is used."""
    return SpeedUse(
        num_inference_steps=settings.speed_steps,
        scheduler=settings.drawn_fast(GenerationSettings(prompt="")).scheduler,
        timesteps=tuple(segment_times(settings.speed_steps)),
        teacher_lora=_name_of(settings.teacher_lora),
        teacher_lora_strength=settings.teacher_lora_strength,
        teacher_guidance_scale=settings.teacher_guidance_scale,
    )


WHITE_ENOUGH = 0.02  # of the border's share of white
SHARP_ENOUGH = 0.05  # of the teacher's sharpness


def speed_advice(scored: ScoreEvent) -> tuple[bool, str]:
    """(whether a Speed LoRA is good enough, that in sentences): beside its teacher, on the validation images."""
    known = [distance for distance in scored.distances if distance is not None]
    if not known:
        return False, _("Whether the Speed LoRA is good enough is not known: it has no valid images.")
    distance, ours, theirs = sum(known) / len(known), scored.scores, scored.base
    wrong = []
    if distance > NEAR_ENOUGH:
        far = N_("its images are {distance:.1f} of 255 from the teacher's, where {limit:g} is hard to see")
        wrong.append(_(far, distance=distance, limit=NEAR_ENOUGH))
    if ours.whiteness and theirs.whiteness and ours.whiteness.mean < theirs.whiteness.mean - WHITE_ENOUGH:
        wrong.append(_("the background is less white"))
    if ours.sharpness and theirs.sharpness and _ratio(ours.sharpness, theirs.sharpness) > SHARP_ENOUGH:
        wrong.append(_("the sharpness differs"))
    if ours.num_named_right < theirs.num_named_right:
        wrong.append(_("colours are wrong more often"))
    if not wrong:
        good = N_("Good enough: its images are {distance:.1f} of 255 from the teacher's, as white, as sharp.")
        return True, _(good, distance=distance)
    why = "; ".join(wrong)
    advice = N_("Look at the images: {why}. More steps, or more of the teacher's images, bring them nearer.")
    return False, _(advice, why=why)


def _ratio(ours: Spread, theirs: Spread) -> float:
    """How far the means are apart, as a share of the second."""
    return abs(ours.mean / theirs.mean - 1) if theirs.mean else 0.0
