"""Sets of changes to the settings' defaults, for what people train most."""

from pydantic import Field

from studio.core.language import N_
from studio.core.settings import Settings


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
}
