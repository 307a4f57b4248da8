"""Sets of changes to the settings' defaults, for what people train most; settings made of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from studio.core.errors import SettingsError
from studio.core.language import N_, _
from studio.core.rules import nearest_setting
from studio.core.settings import FileName, Settings, parse_settings
from studio.training.settings import TrainingSettings


class Preset(Settings):
    """A set of changes to the defaults, and what they are for."""

    title: str
    purpose: str
    changes: dict[str, object] = Field(default_factory=dict)


PRESETS: dict[str, Preset] = {
    "seed": Preset(
        title=N_("Default"),
        purpose=N_("Product photos at 512 pixels, trained overnight: rank 8, 3,000 steps of 16 images."),
    ),
    "quick-try": Preset(
        title=N_("Quick try"),
        purpose=N_("The built-in model learns white backgrounds in a few minutes on two cores."),
        changes={
            "targets": "attention + feed-forward + resnets",
            "learning_rate": 3e-3,
            "lr_scheduler": "linear",
            "lr_warmup_steps": 20,
            "max_train_steps": 400,
            "train_batch_size": 16,
            "gradient_accumulation_steps": 1,
            "noise_offset": 0.1,
            "caption_dropout": 0.1,
            "validation_steps": 100,
            "validation_guidance_scale": 4.0,
            "held_out_steps": 50,
            "checkpointing_steps": 50,
            "keep_every_steps": 100,
        },
    ),
    "style": Preset(
        title=N_("Style"),
        purpose=N_("An artistic style: more layers, a higher rank, some captions dropped."),
        changes={
            "targets": "attention + feed-forward",
            "rank": 16,
            "caption_dropout": 0.1,
            "noise_offset": 0.05,
            "snr_gamma": 5.0,
        },
    ),
    "product-photos": Preset(
        title=N_("Product photos"),
        purpose=N_("White backgrounds and centred products: noise offset and resnets learn backgrounds fast."),
        changes={
            "targets": "attention + feed-forward + resnets",
            "noise_offset": 0.1,
            "caption_dropout": 0.1,
            "lr_scheduler": "cosine",
            "lr_warmup_steps": 100,
            "learning_rate": 2e-4,
        },
    ),
    "speed": Preset(
        title=N_("Speed LoRA"),
        purpose=N_(
            "The model's own images in 4 steps without guidance: it draws images of the dataset's captions, and the "
            "LoRA learns from them."
        ),
        changes={
            "objective": "few steps",
            "targets": "as LCM-LoRA",
            "rank": 16,
            "learning_rate": 3e-3,
            "lr_scheduler": "cosine",
            "weight_decay": 0.0,
            "max_train_steps": 160,
            "train_batch_size": 16,
            "gradient_accumulation_steps": 1,
            "loss_type": "huber",
            "huber_schedule": "constant",
            "validation_steps": 80,
            "held_out_steps": 40,
            "checkpointing_steps": 40,
        },
    ),
}
KindName = Literal["product", "style", "object", "person"]


@dataclass(frozen=True)
class Kind:
    """What a LoRA can be taught.

    Attributes:
        preset: whose settings it begins with.
        changes: of these.
        template: of captions for images that have none, of words that are measured; in English, as all of them.
        views: how often each image is seen.
    """

    title: str
    preset: str
    changes: Mapping[str, object]
    template: str
    views: int


_LIKENESS: Mapping[str, object] = {"targets": "attention + feed-forward", "lr_scheduler": "cosine"}
KINDS: Mapping[KindName, Kind] = {
    "product": Kind(N_("Product"), "product-photos", {}, "{colour} product, {ground}", 100),
    "style": Kind(N_("Style"), "style", {}, "{ground}", 60),
    "object": Kind(N_("Object"), "seed", _LIKENESS, "{colour} object, {ground}", 100),
    "person": Kind(N_("Person"), "seed", {**_LIKENESS, "rank": 16}, "person, {ground}", 120),
}

BY_MEASURE, BY_MODEL, NO_CAPTIONS = "measured", "auto", "none"
"""Who writes missing captions: what is measured of an image; a model at hand, else the same; nobody."""
BackgroundName = Literal["as it is", "white"]


class ShortWay(Settings):
    """All that is asked; what is left empty follows from the rest."""

    dataset: str = Field(
        min_length=1,
        title=N_("Images"),
        description=N_("A folder of images, or a dataset."),
        json_schema_extra={"takes": ["folder"]},
    )
    kind: KindName = Field("product", title=N_("What is taught"), description=N_("What the images have in common."))
    name: FileName | Literal[""] = Field(
        "", title=N_("Name"), description=N_("Of the LoRA. Leave empty to name it after the images.")
    )
    trigger_word: str = Field(
        "", max_length=100, title=N_("Trigger word"), description=N_("Leave empty to make one of the name.")
    )
    captions: str = Field(
        BY_MODEL,
        max_length=300,
        title=N_("Missing captions"),
        description=N_("Who writes them: a caption model, or what is measured of each image."),
    )
    background: BackgroundName = Field(
        "as it is",
        title=N_("Background"),
        description=N_("White puts images on another background on pure white first: try it in the Dataset tab."),
    )


IMAGES_PER_STEP = 16  # of a Speed LoRA's training


def speed_settings(settings: TrainingSettings, lora: str, assignments: Sequence[str] = ()) -> TrainingSettings:
    """Of a run that makes the LoRA of another run fast: its model, captions and size, the rest from the preset.

    Args:
        settings: of the run that the LoRA came of.
        lora: its name in the library, or its file.
        assignments: changes, as `name=value`.

    Raises:
        SettingsError: where one breaks its rule, or the run made a Speed LoRA itself.
    """
    if settings.makes_speed_lora:
        raise SettingsError(
            _("{name} is a Speed LoRA already. Make the LoRA fast that it was made for.", name=settings.name)
        )
    kept = ("model", "prediction_type", "dataset", "trigger_word", "resolution", "seed", "cpu", "tf32", "save_dtype")
    seen = ("num_validation_images", "validation_prompts", "validation_seed", "validation_inference_steps", "wandb")
    batch = min(settings.train_batch_size, IMAGES_PER_STEP)
    own = {
        "teacher_lora": lora,
        "teacher_guidance_scale": settings.validation_guidance_scale,  # of the images that were looked at
        "train_batch_size": batch,
        "gradient_accumulation_steps": max(1, IMAGES_PER_STEP // batch),
    }
    taken = {name: getattr(settings, name) for name in (*kept, *seen)}
    changes = parse_assignments(assignments)
    made = parse_settings(TrainingSettings, {**PRESETS["speed"].changes, **taken, **own, **changes})
    name = changes.get("name", f"{settings.name[:70]} {made.speed_steps} steps")
    return parse_settings(TrainingSettings, {**made.model_dump(), "name": name})


_AT_DEFAULT = ("train_text_encoder", "shuffle_caption", "prior_dataset", "mask_folder", "mixed_precision")
_OF_IMAGES = (
    "caption_dropout",
    "noise_offset",
    "horizontal_flip",
    "scale_jitter_percent",
    "brightness_jitter_percent",
)


def unfit_for_speed(settings: TrainingSettings) -> tuple[str, ...]:
    """The settings with which no Speed LoRA can be trained; none of another run's."""
    fields = TrainingSettings.model_fields
    changed = (name for name in (*_AT_DEFAULT, *_OF_IMAGES) if getattr(settings, name) != fields[name].default)
    return tuple(changed) if settings.makes_speed_lora else ()


def settings_from(preset: str | None, values: Mapping[str, object], assignments: Sequence[str]) -> TrainingSettings:
    """A preset's settings, changed by options and by `name=value`.

    Raises:
        SettingsError: where there is no such preset or setting, or a value breaks its rule.
    """
    if preset is not None and preset not in PRESETS:
        names = ", ".join(PRESETS)
        raise SettingsError(_("preset must be one of {names}, got {preset!r}.", names=names, preset=preset))
    changes = PRESETS[preset].changes if preset else {}
    return parse_settings(TrainingSettings, {**changes, **values, **parse_assignments(assignments)})


def parse_assignments(assignments: Sequence[str]) -> dict[str, object]:
    """`rank=16` as a value; `none` is no value, and several prompts are separated by ` | `.

    Raises:
        SettingsError: where one is not of this form, or names no setting.
    """
    values: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        name = name.strip()
        if not equals or name not in TrainingSettings.model_fields:
            wrong = _("--set takes name=value, got {assignment!r}.", assignment=assignment)
            near = nearest_setting(name, [TrainingSettings]).strip()
            raise SettingsError(" ".join(filter(None, (wrong, near, _("`--list-settings` lists all names.")))))
        value: object = text.strip()
        if name == "validation_prompts":
            value = () if value == "none" else tuple(part.strip() for part in text.split(" | ") if part.strip())
        elif value == "none":
            value = None
        values[name] = value
    return values
