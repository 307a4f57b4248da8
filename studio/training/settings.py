"""Every setting of a training: defaults, bounds, labels and help texts. The defaults are the seed report's."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, MultipleOf
from pydantic import Field, model_validator

from studio.core.settings import SEED_MAX, SHIPPED_MODEL, PredictionType, PromptText, Settings

TargetName = Literal["attention", "attention + feed-forward", "attention + feed-forward + convolutions"]
OptimizerName = Literal["AdamW", "Prodigy"]
LrSchedulerName = Literal["constant", "linear", "cosine", "cosine with restarts"]
MixedPrecisionName = Literal["no", "bf16", "fp16"]
CheckpointingChoice = Literal["auto", "on", "off"]
CropName = Literal["centre", "random"]
LossTypeName = Literal["l2", "huber", "smooth_l1"]
HuberScheduleName = Literal["constant", "exponential", "snr"]
SaveDtypeName = Literal["float16", "bfloat16", "float32"]
TARGET_NAMES: tuple[TargetName, ...] = get_args(TargetName)


@dataclass(frozen=True)
class KohyaName:
    """By which word kohya's tools know a setting: a LoRA's file tells it under this."""

    word: str


class TrainingSettings(Settings):
    """One training of a LoRA. Names are diffusers' and peft's."""

    name: str = Field(
        "lora",
        title="Name",
        pattern=r"^[\w][\w .()+-]{0,79}$",
        description="What the finished LoRA is called: letters, digits, spaces and . ( ) + - _.",
    )
    model: str = Field(
        SHIPPED_MODEL, title="Model", min_length=1, description="What is trained on, as in Generate's model box."
    )
    dataset: str = Field(
        min_length=1, title="Dataset", description="A dataset of the Dataset tab by its name, or a folder of images."
    )
    cpu: bool = Field(
        False,
        title="CPU only",
        description="Do not use a GPU, even where there is one.",
        json_schema_extra={"hidden": True},
    )
    max_train_steps: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        3000, title="Steps", description="Optimizer steps: each sees batch × accumulation images."
    )
    rank: Annotated[int, Ge(1), Le(320)] = Field(
        8, title="Rank", description="Width of each added layer. More can learn more, and memorise more."
    )
    learning_rate: Annotated[float, Gt(0), Le(10)] = Field(
        1e-4, title="Learning rate", description="Size of each step. With Prodigy, 1: it finds the rate itself."
    )
    resolution: Annotated[int, Ge(64), Le(2048), MultipleOf(8)] | None = Field(
        None,
        title="Resolution",
        description="Side in pixels of a square with the area of each image. Empty: the model's own size.",
        json_schema_extra={"unit": "px", "placeholder": "auto"},
    )
    train_batch_size: Annotated[int, Ge(1), Le(256)] = Field(
        2, title="Batch", description="Images computed at once. Memory grows with it."
    )
    trigger_word: str = Field(
        "", title="Trigger word", max_length=100, description="Put before every caption; it then wakes the LoRA."
    )

    lora_alpha: Annotated[float, Gt(0), Le(1024)] = Field(
        16.0,
        title="Alpha",
        description="The update is scaled by alpha / rank; twice the rank is usual here.",
        json_schema_extra={"group": "What is learned"},
    )
    lora_dropout: Annotated[float, Ge(0), Le(0.9)] = Field(
        0.0, title="LoRA dropout", description="Share of a layer's inputs that are dropped in each step."
    )
    targets: TargetName = Field(
        "attention",
        title="Layers",
        description="Which layers of the U-Net learn: attention (128 in SD 1.5), feed-forward and projections too "
        "(192, as kohya does), or convolutions as well (colours and grounds are learned faster).",
    )
    train_text_encoder: bool = Field(
        False, title="Train the text encoder", description="Learn new words too. Needs more memory; forgets sooner."
    )
    text_encoder_learning_rate: Annotated[float, Gt(0), Le(10)] = Field(
        5e-5, title="Text encoder's rate", description="Learning rate of the text encoder's layers."
    )
    use_dora: bool = Field(
        False, title="DoRA", description="Learn length and direction of weights apart (arXiv 2402.09353). Slower."
    )
    use_rslora: bool = Field(
        False,
        title="rsLoRA",
        description="Scale by alpha / √rank (arXiv 2312.03732): large ranks learn as they should.",
    )

    optimizer: OptimizerName = Field(
        "AdamW",
        title="Optimizer",
        description="AdamW, or Prodigy, which needs no rate.",
        json_schema_extra={"group": "How it is learned"},
    )
    weight_decay: Annotated[float, Ge(0), Le(1)] = Field(
        0.01, title="Weight decay", description="Share by which weights shrink, times the learning rate, each step."
    )
    max_grad_norm: Annotated[float, Gt(0), Le(1000)] = Field(
        1.0, title="Gradient clipping", description="Longer gradients are shortened to this norm."
    )
    lr_scheduler: LrSchedulerName = Field(
        "constant", title="Schedule", description="How the learning rate goes on after the warm-up."
    )
    lr_warmup_steps: Annotated[int, Ge(0), Le(100_000)] = Field(
        0,
        title="Warm-up",
        description="Optimizer steps in which the rate rises to the full one, whatever the accumulation.",
        json_schema_extra={"unit": "steps"},
    )
    lr_num_cycles: Annotated[int, Ge(1), Le(100)] = Field(
        1, title="Restarts", description="How often the cosine with restarts begins anew."
    )
    gradient_accumulation_steps: Annotated[int, Ge(1), Le(1024)] = Field(
        8, title="Accumulation", description="Batches to an optimizer step, shared between all processes."
    )
    mixed_precision: MixedPrecisionName = Field(
        "no", title="Mixed precision", description="bf16 and fp16 are used on CUDA only; elsewhere float32 is kept."
    )
    tf32: bool = Field(
        False,
        title="TF32",
        description="Computes float32 faster on NVIDIA GPUs from Ampere on, by rounding the inputs of products to ten "
        "bits. No effect elsewhere.",
    )
    gradient_checkpointing: CheckpointingChoice = Field(
        "auto",
        title="Gradient checkpointing",
        description="Compute activations twice instead of keeping them: about a quarter slower, gigabytes less. "
        "auto: only when memory asks for it.",
    )
    seed: Annotated[int, Ge(0), Le(SEED_MAX)] = Field(
        42, title="Seed", description="Of weights, order, noise and everything else that is drawn."
    )

    prediction_type: PredictionType = Field(
        "auto",
        title="Prediction",
        description="What the U-Net predicts. auto: as the model says.",
        json_schema_extra={"group": "The loss"},
    )
    loss_type: Annotated[LossTypeName, KohyaName("ss_loss_type")] = Field(
        "l2",
        title="Loss",
        description="What an error costs: l2 its square; huber and smooth_l1, as kohya defines them, less where it is "
        "large, so that a few odd images count less.",
    )
    huber_c: Annotated[float, Ge(1e-4), Le(100), KohyaName("ss_huber_c")] = Field(
        0.1,
        title="Huber c",
        description="Errors well above it count as large. Has no effect with l2.",
    )
    huber_schedule: Annotated[HuberScheduleName, KohyaName("ss_huber_schedule")] = Field(
        "snr",
        title="Huber schedule",
        description="How c falls from 1 without noise to Huber c in noise alone: by the signal-to-noise ratio (snr), "
        "or exponential in the timestep. constant: always Huber c. Has no effect with l2.",
    )
    snr_gamma: Annotated[float, Gt(0), Le(100)] | None = Field(
        None,
        title="min-SNR gamma",
        description="Weight timesteps by min(SNR, gamma) (arXiv 2303.09556); 5 is usual.",
        json_schema_extra={"placeholder": "off"},
    )
    noise_offset: Annotated[float, Ge(0), Le(1)] = Field(
        0.0,
        title="Noise offset",
        description="Share of noise in each image's mean. 0.1 lets very bright and dark grounds be learned.",
    )
    prior_dataset: str = Field(
        "",
        title="Regularisation images",
        description="A dataset or folder of what must not change; its images are mixed in, one for each of ours.",
    )
    prior_loss_weight: Annotated[float, Ge(0), Le(10)] = Field(
        1.0, title="Their weight", description="How much the regularisation images count beside ours."
    )
    mask_folder: str = Field(
        "",
        title="Masks",
        description="A folder with a grey image of the same name for each image: white is learned, black is not.",
    )
    unmasked_weight: Annotated[float, Ge(0), Le(1)] = Field(
        0.1, title="Weight outside masks", description="How much black parts of a mask still count."
    )
    use_ema: bool = Field(
        False, title="EMA", description="Save a running mean of the weights instead of the last ones."
    )
    ema_decay: Annotated[float, Gt(0), Le(0.99999)] = Field(
        0.999, title="EMA decay", description="Share of the old mean that stays in each step."
    )

    use_buckets: bool = Field(
        True,
        title="Aspect-ratio buckets",
        description="Keep the shape of images; off: all are cut square.",
        json_schema_extra={"group": "Images and captions"},
    )
    crop: CropName = Field(
        "centre", title="Crop", description="Which part is kept. random: one of a few places, another each time."
    )
    horizontal_flip: bool = Field(
        False, title="Mirror", description="Half of the images mirrored. Not for lettering, logos, or left and right."
    )
    caption_dropout: Annotated[float, Ge(0), Le(1)] = Field(
        0.0, title="Caption dropout", description="Share of images seen without their caption."
    )
    shuffle_caption: bool = Field(
        False, title="Shuffle captions", description="Another order of the comma-separated parts each time."
    )
    keep_tokens: Annotated[int, Ge(0), Le(100)] = Field(
        0, title="Kept parts", description="How many parts at the beginning stay where they are."
    )

    validation_steps: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        500,
        title="Images every",
        description="Steps between validation images.",
        json_schema_extra={"group": "Watching and keeping", "unit": "steps"},
    )
    num_validation_images: Annotated[int, Ge(0), Le(16)] = Field(
        4, title="Pictures", description="How many are made each time. 0: none."
    )
    validation_prompts: tuple[PromptText, ...] = Field(
        (),
        max_length=16,
        title="Prompts",
        description="What they show. Empty: captions of held-out images.",
        json_schema_extra={"lines": 2, "placeholder": "captions of held-out images"},
    )
    validation_seed: Annotated[int, Ge(0), Le(SEED_MAX)] = Field(
        42, title="Their seed", description="Image i has this seed + i, at every step the same."
    )
    validation_inference_steps: Annotated[int, Ge(1), Le(150)] = Field(
        25, title="Their steps", description="Denoising steps of a validation image."
    )
    validation_guidance_scale: Annotated[float, Ge(1), Le(30)] = Field(
        7.5, title="Their guidance", description="How strictly they follow their prompt."
    )
    held_out_percent: Annotated[float, Ge(0), Le(50)] = Field(
        5.0,
        title="Held out",
        description="Percent of the images that are not trained on, to see whether others get better too.",
        json_schema_extra={"unit": "%"},
    )
    held_out_steps: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        100,
        title="Held-out loss every",
        description="Steps between two looks at the held-out images. More than there are steps: never.",
        json_schema_extra={"unit": "steps"},
    )
    checkpointing_steps: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        250,
        title="Checkpoint every",
        description="Steps between checkpoints: what a kill costs at most.",
        json_schema_extra={"unit": "steps"},
    )
    keep_checkpoints: Annotated[int, Ge(1), Le(1000)] = Field(
        3, title="Keep the last", description="How many checkpoints are kept."
    )
    keep_every_steps: Annotated[int, Ge(1), Le(1_000_000)] | None = Field(
        1000,
        title="And every",
        description="Checkpoints at multiples of these steps are kept as well.",
        json_schema_extra={"unit": "steps", "placeholder": "none"},
    )
    save_dtype: SaveDtypeName = Field(
        "float16", title="Stored as", description="Number format of the finished file. float16 halves it."
    )
    wandb: bool = Field(False, title="wandb", description="Also tell Weights & Biases (needs `pip install wandb`).")

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingSettings":
        if len(self.validation_prompts) > max(1, self.num_validation_images):
            raise ValueError(
                f"num_validation_images ({self.num_validation_images}) is less than the number of prompts "
                f"({len(self.validation_prompts)}): each prompt needs an image"
            )
        if self.prior_dataset and self.prior_dataset == self.dataset:
            raise ValueError("prior_dataset must be other images than dataset")
        return self


class Preset(Settings):
    """A set of changes to the defaults, and what they are for."""

    title: str
    purpose: str
    changes: dict[str, object]


PRESETS: dict[str, Preset] = {
    "seed": Preset(
        title="The seed report's",
        purpose="Product photos at 512 pixels over a night: rank 8, 3,000 steps of 16 images.",
        changes={},
    ),
    "quick-try": Preset(
        title="Quick try",
        purpose="The model inside learns white backgrounds in a few minutes on two cores.",
        changes={
            "targets": "attention + feed-forward + convolutions",
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
        title="Style",
        purpose="A way of drawing: more layers and a higher rank, captions dropped now and then.",
        changes={
            "targets": "attention + feed-forward",
            "rank": 16,
            "caption_dropout": 0.1,
            "noise_offset": 0.05,
            "snr_gamma": 5.0,
        },
    ),
    "product-photos": Preset(
        title="Product photos",
        purpose="White backgrounds and centred products: noise offset and convolutions teach grounds fast.",
        changes={
            "targets": "attention + feed-forward + convolutions",
            "noise_offset": 0.1,
            "caption_dropout": 0.1,
            "lr_scheduler": "cosine",
            "lr_warmup_steps": 100,
            "learning_rate": 2e-4,
        },
    ),
}
