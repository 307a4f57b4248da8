"""Every setting of the studio: the only home of defaults, bounds, labels and help texts."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from annotated_types import Ge, Le, MultipleOf
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from studio.core.errors import SettingsError
from studio.core.language import N_, _
from studio.core.rules import MismatchError, label_of, problems_of, rules_of

PrecisionName = Literal["float32", "float16", "bfloat16"]
PredictionType = Literal["auto", "epsilon", "v_prediction"]
PictureFormatName = Literal["png", "jpeg", "webp"]
SchedulerName = Literal[
    "model's own", "DDIM", "PNDM", "Euler", "Euler a", "Euler trailing",
    "DPM++ 2M", "DPM++ 2M Karras", "UniPC", "DDPM", "LCM",
]  # fmt: skip
SCHEDULER_NAMES: tuple[SchedulerName, ...] = get_args(SchedulerName)

SHIPPED_MODEL = "shoes-demo"
SHIPPED_DATASET = "built-in:casual-shoes"  # no dataset of a person can be called so, and it is the same everywhere
SEED_MAX = 2**63 - 1
LCM_MAX_STEPS = 50  # diffusers' LCMScheduler picks its steps among the 50 of `original_inference_steps`
RELATED_SETTINGS = ("scheduler", "num_inference_steps")  # must fit each other: `GenerationSettings` checks it


def _whole_characters(text: str) -> str:
    """Half a character (a lone surrogate), as damaged JSON may hold one: no tokenizer and no file takes it."""
    if not text.isascii() and any("\ud800" <= sign <= "\udfff" for sign in text):
        raise ValueError(_("must hold whole characters (rewrite the text)"))
    return text


def _named_characters(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise ValueError(
            _("must have 1 to 80 characters: letters, digits, spaces and . ( ) + - _, the first a letter, a digit or _")
        )
    return text


_NAME = re.compile(r"\w[\w .()+-]{0,79}")
FileName = Annotated[str, AfterValidator(_named_characters)]
PromptText = Annotated[str, AfterValidator(_whole_characters)]
# Numbers that forms show as sliders: `json_schema_extra` is a field's place in a form (`FormHint` in ui/forms.py).
StepCount = Annotated[int, Ge(1), Le(150), Field(json_schema_extra={"step": 1})]
Guidance = Annotated[float, Ge(1), Le(30), Field(json_schema_extra={"step": 0.5})]
Fraction = Annotated[float, Ge(0), Le(1), Field(json_schema_extra={"step": 0.05})]
Strength = Annotated[float, Ge(-4), Le(4), Field(json_schema_extra={"step": 0.05})]
ModelPath = Annotated[str, Field(min_length=1, json_schema_extra={"takes": ["folder", ".safetensors"]})]
Pixels = Annotated[int, Ge(64), Le(2048), MultipleOf(8)]
_PIXELS = N_("In pixels, a multiple of 8. Leave empty to use the model's own size.")


class Settings(BaseModel):
    """Frozen, and a name it does not know is an error, not silence."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSettings(Settings):
    """Which model to load, and how."""

    model: ModelPath = Field(
        SHIPPED_MODEL,
        title=N_("Model"),
        description=N_(
            "The shipped model (shoes-demo), a folder in diffusers' layout, a single .safetensors checkpoint of Stable"
            " Diffusion 1.x, or a Hugging Face id (owner/name, or owner/name@revision)."
        ),
    )
    precision: PrecisionName = Field(
        "float32",
        title=N_("Precision"),
        description=N_("float16 and bfloat16 are used on CUDA only; elsewhere they are raised to float32."),
    )
    tf32: bool = Field(
        False,
        title=N_("TF32"),
        description=N_(
            "Computes float32 faster on NVIDIA GPUs from Ampere on, by rounding the inputs of products to ten bits."
            " No effect elsewhere."
        ),
    )
    attention_slicing: bool = Field(
        False,
        title=N_("Attention slicing"),
        description=N_(
            "Saves memory by computing attention in small parts: the same images, a little slower. On a Mac attention"
            " is computed in parts anyway."
        ),
        json_schema_extra={"hidden": True},
    )
    prediction_type: PredictionType = Field(
        "auto",
        title=N_("Prediction"),
        description=N_(
            "What the U-Net predicts. auto: whatever the model declares. Choose v_prediction for a single-file"
            " checkpoint that was trained this way without saying so (otherwise its images are brown noise)."
        ),
    )


class LoraChoice(Settings):
    """A LoRA of the library, and how strongly it acts."""

    name: str = Field(
        min_length=1, title=N_("LoRA"), description=N_("Its name in the library: the file name without the extension.")
    )
    strength: Strength = Field(
        1.0, title=N_("Strength"), description=N_("1 is as trained, 0 has no effect, negative values do the opposite.")
    )


class GenerationSettings(Settings):
    """One image: one call of `PipelineManager.generate()`. Names are diffusers'."""

    prompt: PromptText = Field(
        title=N_("Prompt"), description=N_("Describes the image."), json_schema_extra={"hidden": True, "lines": 3}
    )
    negative_prompt: PromptText = Field(
        "",
        title=N_("Negative prompt"),
        description=N_("What to keep out of the image."),
        json_schema_extra={"hidden": True, "lines": 1},
    )
    num_inference_steps: StepCount = Field(
        25, title=N_("Steps"), description=N_("Denoising steps. 20 to 30 is usual; time is proportional.")
    )
    guidance_scale: Guidance = Field(
        7.5, title=N_("Guidance"), description=N_("How strictly the prompt is followed. 1 turns guidance off.")
    )
    seed: Annotated[int, Ge(0), Le(SEED_MAX)] = Field(
        42, title=N_("Seed"), description=N_("The same seed and settings give the same image, on every machine.")
    )
    scheduler: SchedulerName = Field(
        "model's own",
        title=N_("Scheduler"),
        description=N_("How noise becomes an image. LCM is for LCM LoRAs, Euler trailing for Speed LoRAs."),
        json_schema_extra={"group": N_("Advanced")},
    )
    guidance_start: Fraction = Field(
        0.0,
        title=N_("Guidance from"),
        description=N_(
            "Fraction of the steps after which guidance starts. Guiding fewer steps saves their time and changes the"
            " image."
        ),
    )
    guidance_end: Fraction = Field(
        1.0, title=N_("Guidance until"), description=N_("Fraction of the steps after which guidance ends.")
    )
    width: Pixels | None = Field(None, title=N_("Width"), description=_PIXELS, json_schema_extra={"hidden": True})
    height: Pixels | None = Field(None, title=N_("Height"), description=_PIXELS, json_schema_extra={"hidden": True})
    long_prompt: bool = Field(
        False,
        title=N_("Long prompts"),
        description=N_("Encode text past 75 tokens in further chunks instead of cutting it off."),
    )
    loras: tuple[LoraChoice, ...] = Field(
        (),
        title=N_("LoRAs"),
        max_length=8,
        description=N_("Which LoRAs act, and how strongly. <lora:name:0.8> in the prompt adds one."),
    )

    @model_validator(mode="after")
    def _fit_together(self) -> "GenerationSettings":
        if self.scheduler == "LCM" and self.num_inference_steps > LCM_MAX_STEPS:
            said = _(
                "{steps} must be at most {most} with the scheduler LCM, got {given}: lower the steps (4 to 8 are usual"
                " for LCM), or choose another scheduler",
                steps=label_of(GenerationSettings, "num_inference_steps"),
                most=LCM_MAX_STEPS,
                given=self.num_inference_steps,
            )
            raise MismatchError(said, "num_inference_steps", "scheduler")
        return self

    def guided_steps(self, num_steps: int) -> range:
        """Which of that many steps (from 0) are guided, two passes of the U-Net each; none at guidance 1."""
        num = num_steps if self.guidance_scale > 1 else 0
        return range(round(self.guidance_start * num), round(self.guidance_end * num))


class ImagesSettings(Settings):
    """Some images: one press of Generate. Image i has seed + i."""

    generation: GenerationSettings
    num_images: Annotated[int, Ge(1), Le(64)] = Field(
        1,
        title=N_("Images"),
        description=N_("Number of images; each uses the next seed."),
        json_schema_extra={"step": 1},
    )

    def generations(self) -> tuple[GenerationSettings, ...]:
        """One `GenerationSettings` for each image, in order."""
        first = self.generation
        return tuple(
            first.model_copy(update={"seed": (first.seed + i) % (SEED_MAX + 1)}) for i in range(self.num_images)
        )


class CompareSettings(Settings):
    """Left against right: every prompt with every seed, both sides from the same noise."""

    prompts: tuple[PromptText, ...] = Field(
        min_length=1,
        max_length=8,
        title=N_("Prompts"),
        description=N_("One per line, at most eight."),
        json_schema_extra={"lines": 3},
    )
    num_seeds: Annotated[int, Ge(1), Le(8), Field(json_schema_extra={"step": 1})] = Field(
        1, title=N_("Seeds per prompt"), description=N_("Number of seeds for each prompt, counting up from the first.")
    )
    generation: GenerationSettings = Field(description=N_("Settings and LoRAs of both sides; the prompt is unused."))
    left: tuple[LoraChoice, ...] = Field(
        (), title=N_("Left"), description=N_("LoRAs for the left side; leave empty for the base model.")
    )
    right: tuple[LoraChoice, ...] = Field((), title=N_("Right"), description=N_("LoRAs for the right side."))
    strip: tuple[Strength, ...] = Field(
        (),
        max_length=9,
        title=N_("Strength slider"),
        description=N_("Extra images of the right side at these strengths, for every prompt and seed."),
        json_schema_extra={"hidden": True},
    )

    def pairs(self) -> tuple[tuple[GenerationSettings, GenerationSettings], ...]:
        """(left, right) of every prompt and seed, prompts first."""
        return tuple(
            (self._side(prompt, i, self.left), self._side(prompt, i, self.right))
            for prompt in self.prompts
            for i in range(self.num_seeds)
        )

    def strip_generations(self) -> tuple[GenerationSettings, ...]:
        """The right side of every pair at each strength of the strip; with several LoRAs all are scaled alike."""
        loras = [(*_scaled(self.right, by), *self.generation.loras) for by in self.strip]
        return tuple(right.model_copy(update={"loras": these}) for __, right in self.pairs() for these in loras)

    @property
    def num_pictures(self) -> int:
        """How many images it takes: what is asked for twice is made once."""
        return len({settings for pair in self.pairs() for settings in pair} | {*self.strip_generations()})

    def _side(self, prompt: str, index: int, loras: tuple[LoraChoice, ...]) -> GenerationSettings:
        seed = (self.generation.seed + index) % (SEED_MAX + 1)
        both = {"prompt": prompt, "seed": seed, "loras": (*loras, *self.generation.loras)}
        return self.generation.model_copy(update=both)


def _scaled(loras: tuple[LoraChoice, ...], factor: float) -> tuple[LoraChoice, ...]:
    """Each strength times the factor, kept in its bounds; none at factor 0."""
    scaled = [(lora.name, min(4, max(-4, lora.strength * factor))) for lora in loras if factor]
    return tuple(LoraChoice(name=name, strength=strength) for name, strength in scaled)


SMOKE_PROMPTS = (
    "a photo of black leather boots, on a grey background",
    "a photo of brown leather boots, on grass",
    "a photo of red canvas sneakers, in a studio",
)
"""Words that the shipped model was taught, and with the seeds 42 to 44 it draws what they say; any model can."""


class SmokeSettings(Settings):
    """The smoke test: three prompts that the shipped model obeys, with the seed report's settings."""

    prompts: tuple[str, str, str] = Field(
        SMOKE_PROMPTS,
        title=N_("Prompts"),
        description=N_("One image is made for each."),
        json_schema_extra={"hidden": True},
    )
    num_inference_steps: StepCount = Field(
        25,
        title=N_("Steps"),
        description=N_("Denoising steps for each image."),
        json_schema_extra={"group": N_("Steps, guidance, seed")},
    )
    guidance_scale: Guidance = Field(
        7.5, title=N_("Guidance"), description=N_("How strictly the prompt is followed. 1 turns guidance off.")
    )
    seed: Annotated[int, Ge(0), Le(SEED_MAX - 2)] = Field(
        42, title=N_("Seed"), description=N_("The three images use this seed and the next two.")
    )
    long_prompt: bool = Field(False, title=N_("Long prompts"), description=N_("Do not cut prompts off at 75 tokens."))

    def generations(self) -> tuple[GenerationSettings, ...]:
        """One `GenerationSettings` for each prompt, in order."""
        shared = self.model_dump(exclude={"prompts", "seed"})
        return tuple(
            GenerationSettings(prompt=prompt, seed=self.seed + i, **shared) for i, prompt in enumerate(self.prompts)
        )


class ServerSettings(Settings):
    """How the studio's page is served."""

    port: Annotated[int, Ge(1), Le(65535)] | None = Field(
        None, title=N_("Port"), description=N_("The port to serve on. Leave out to use the first free one from 7860.")
    )
    open_browser: bool = Field(True, title=N_("Open browser"), description=N_("Open the page in the browser."))
    window: bool = Field(
        False,
        title=N_("Window"),
        description=N_("Open the page in its own window. Needs Chrome, Edge, Brave or Chromium."),
    )
    listen: bool = Field(False, title=N_("Listen"), description=N_("Accept other machines. Needs a password file."))
    auth_file: Path | None = Field(
        None, title=N_("Auth file"), description=N_("A text file with one user:password on each line.")
    )
    root_path: str = Field(
        "", title=N_("Root path"), description=N_("Where a proxy shows the page: its path, or its URL.")
    )
    cpu: bool = Field(False, title=N_("CPU only"), description=N_("Do not use a GPU, even where there is one."))


SettingsT = TypeVar("SettingsT", bound=Settings)


def parse_settings(kind: type[SettingsT], values: Mapping[str, object]) -> SettingsT:
    """Make settings from what a person typed.

    Raises:
        SettingsError: one sentence for each rule that is broken, naming the setting, the rule and the value.
    """
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        problems = problems_of(kind, error)
        broken = SettingsError(" ".join(problem.text for problem in problems))
        broken.problems = tuple(problems)
        raise broken from error


def bounds(kind: type[Settings], name: str) -> tuple[float | None, float | None]:
    """The least and the greatest value of a number setting; None where there is no bound."""
    rules = [*rules_of(kind.model_fields[name])]
    low = next((rule.ge for rule in rules if isinstance(rule, Ge)), None)
    high = next((rule.le for rule in rules if isinstance(rule, Le)), None)
    return (low if isinstance(low, int | float) else None, high if isinstance(high, int | float) else None)
