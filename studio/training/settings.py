"""Every setting of a training: defaults, bounds, labels and help texts. The defaults are the seed report's."""

from typing import Annotated, Literal, get_args

from annotated_types import Ge, Gt, Le, MultipleOf
from pydantic import Field, model_validator

from studio.core.language import N_, _
from studio.core.rules import MismatchError
from studio.core.settings import SEED_MAX, SHIPPED_MODEL, FileName, ModelPath, PredictionType, PromptText
from studio.training.speed import SpeedSettings
from studio.training.variants import VariantSettings

TargetName = Literal[
    "attention",
    "attention + feed-forward",
    "attention + feed-forward + resnets",
    "attention + feed-forward + convolutions",
    "as LCM-LoRA",
]
OptimizerName = Literal["AdamW", "Prodigy"]
LrSchedulerName = Literal["constant", "linear", "cosine", "cosine with restarts"]
MixedPrecisionName = Literal["no", "bf16", "fp16"]
CheckpointingChoice = Literal["auto", "on", "off", "part"]
LossTypeName = Literal["l2", "huber", "smooth_l1"]
HuberScheduleName = Literal["constant", "exponential", "snr"]
SaveDtypeName = Literal["float16", "bfloat16", "float32"]
TARGET_NAMES: tuple[TargetName, ...] = get_args(TargetName)


class TrainingSettings(SpeedSettings, VariantSettings):
    """One training of a LoRA. Names are diffusers' and peft's."""

    name: FileName = Field(
        "lora",
        title=N_("Name"),
        description=N_("Name of the finished LoRA: letters, digits, spaces and . ( ) + - _."),
        json_schema_extra={"group": ""},
    )
    model: ModelPath = Field(SHIPPED_MODEL, title=N_("Model"), description=N_("The base model, as in the model panel."))
    dataset: str = Field(
        min_length=1,
        title=N_("Dataset"),
        description=N_("A dataset from the Dataset tab, by name, a folder of images, or built-in:casual-shoes."),
        json_schema_extra={"takes": ["folder"]},
    )
    cpu: bool = Field(
        False,
        title=N_("CPU only"),
        description=N_("Do not use a GPU, even where there is one."),
        json_schema_extra={"hidden": True},
    )
    max_train_steps: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        3000, title=N_("Steps"), description=N_("Optimizer steps: each sees batch × accumulation images.")
    )
    rank: Annotated[int, Ge(1), Le(320)] = Field(
        8,
        title=N_("Rank"),
        description=N_("Width of each added layer. A higher rank can learn more, and memorise more."),
    )
    learning_rate: Annotated[float, Gt(0), Le(10)] = Field(
        1e-4,
        title=N_("Learning rate"),
        description=N_("Size of each step. Use 1 with Prodigy, which finds the rate itself."),
    )
    resolution: Annotated[int, Ge(64), Le(2048), MultipleOf(8)] | None = Field(
        None,
        title=N_("Resolution"),
        description=N_(
            "Side in pixels of a square with the area of each image. Leave empty to use the model's own size."
        ),
        json_schema_extra={"unit": "px", "placeholder": N_("auto")},
    )
    train_batch_size: Annotated[int, Ge(1), Le(256)] = Field(
        2, title=N_("Batch"), description=N_("Images computed at once. Memory grows with it.")
    )
    trigger_word: str = Field(
        "", title=N_("Trigger word"), max_length=100, description=N_("Put before every caption; use it in prompts too.")
    )
    lora_alpha: Annotated[float, Gt(0), Le(1024)] = Field(
        16.0,
        title=N_("Alpha"),
        description=N_("The update is scaled by alpha / rank; twice the rank is a common choice."),
        json_schema_extra={"group": N_("LoRA")},
    )
    lora_dropout: Annotated[float, Ge(0), Le(0.9)] = Field(
        0.0, title=N_("LoRA dropout"), description=N_("Fraction of a layer's inputs dropped in each step.")
    )
    targets: TargetName = Field(
        "attention",
        title=N_("Layers"),
        description=N_(
            "Which layers of the U-Net learn: attention (128 in SD 1.5), feed-forward and "
            "projections too (192, as kohya does), resnets as well (backgrounds learn faster), "
            "all convolutions (sd-scripts drops two), or those of LCM-LoRA, time embeddings too."
        ),
    )
    train_text_encoder: bool = Field(
        False,
        title=N_("Train the text encoder"),
        description=N_("Learn new words too. Needs more memory and overfits sooner."),
    )
    text_encoder_learning_rate: Annotated[float, Gt(0), Le(10)] = Field(
        5e-5, title=N_("Text encoder learning rate"), description=N_("Learning rate of the text encoder's layers.")
    )
    use_dora: bool = Field(
        False, title=N_("DoRA"), description=N_("Magnitude and direction apart (arXiv 2402.09353). Differs in A1111.")
    )
    use_rslora: bool = Field(
        False,
        title=N_("rsLoRA"),
        description=N_("Scale by alpha / √rank (arXiv 2312.03732): keeps high ranks effective."),
    )
    optimizer: OptimizerName = Field(
        "AdamW",
        title=N_("Optimizer"),
        description=N_("AdamW, or Prodigy, which finds the learning rate itself."),
        json_schema_extra={"group": N_("Optimization")},
    )
    weight_decay: Annotated[float, Ge(0), Le(1)] = Field(
        0.01,
        title=N_("Weight decay"),
        description=N_("Fraction of the weights removed each step, times the learning rate."),
    )
    max_grad_norm: Annotated[float, Gt(0), Le(1000)] = Field(
        1.0, title=N_("Gradient clipping"), description=N_("Gradients with a larger norm are scaled down to it.")
    )
    lr_scheduler: LrSchedulerName = Field(
        "constant", title=N_("Schedule"), description=N_("How the learning rate changes after the warm-up.")
    )
    lr_warmup_steps: Annotated[int, Ge(0), Le(100_000)] = Field(
        0,
        title=N_("Warm-up"),
        description=N_("Optimizer steps over which the learning rate rises to its full value."),
        json_schema_extra={"unit": N_("steps")},
    )
    lr_num_cycles: Annotated[int, Ge(1), Le(100)] = Field(
        1, title=N_("Restarts"), description=N_("Number of cycles of the cosine with restarts.")
    )
    gradient_accumulation_steps: Annotated[int, Ge(1), Le(1024)] = Field(
        8, title=N_("Accumulation"), description=N_("Batches per optimizer step, shared between all processes.")
    )
    mixed_precision: MixedPrecisionName = Field(
        "no",
        title=N_("Mixed precision"),
        description=N_("bf16 and fp16 are used on CUDA only; elsewhere float32 is kept."),
    )
    tf32: bool = Field(
        False,
        title=N_("TF32"),
        description=N_("Faster float32 on NVIDIA GPUs from Ampere on; rounds factors to 10 bits."),
    )
    gradient_checkpointing: CheckpointingChoice = Field(
        "auto",
        title=N_("Gradient checkpointing"),
        description=N_(
            "Compute activations again instead of keeping them: gigabytes less, up to 40% slower. "
            "auto: as little as memory allows; part: as much as set below."
        ),
    )
    gradient_checkpointing_percent: Annotated[int, Ge(0), Le(100)] = Field(
        70,
        title=N_("Checkpointed part"),
        description=N_(
            "With part: percentage of the activations' memory to free. What is cheapest to compute "
            "again goes first; 0 is off, 100 is on."
        ),
        json_schema_extra={"unit": "%", "step": 5},
    )
    seed: Annotated[int, Ge(0), Le(SEED_MAX)] = Field(
        42, title=N_("Seed"), description=N_("Seed for weights, order, noise and every other random choice.")
    )
    prediction_type: PredictionType = Field(
        "auto",
        title=N_("Prediction"),
        description=N_("What the U-Net predicts. auto: whatever the model declares."),
        json_schema_extra={"group": N_("The loss")},
    )
    loss_type: LossTypeName = Field(
        "l2",
        title=N_("Loss"),
        description=N_(
            "What an error costs: l2 its square; huber and smooth_l1, as kohya defines them, "
            "less where it is large, so that a few odd images count less."
        ),
    )
    huber_c: Annotated[float, Ge(1e-4), Le(100)] = Field(
        0.1, title=N_("Huber c"), description=N_("Errors well above it count as large. Has no effect with l2.")
    )
    huber_schedule: HuberScheduleName = Field(
        "snr",
        title=N_("Huber schedule"),
        description=N_(
            "How c falls from 1 without noise to Huber c in noise alone: by the signal-to-noise "
            "ratio (snr), or exponential in the timestep. constant: always Huber c. Has no "
            "effect with l2."
        ),
    )
    snr_gamma: Annotated[float, Gt(0), Le(100)] | None = Field(
        None,
        title=N_("min-SNR gamma"),
        description=N_("Weight timesteps by min(SNR, gamma) (arXiv 2303.09556); 5 is usual."),
        json_schema_extra={"placeholder": N_("off")},
    )
    noise_offset: Annotated[float, Ge(0), Le(1)] = Field(
        0.0,
        title=N_("Noise offset"),
        description=N_("Noise added to the mean. 0.1 learns very bright and dark backgrounds."),
    )
    prior_dataset: str = Field(
        "",
        title=N_("Regularisation images"),
        description=N_("A dataset or folder of images that must not change; one is mixed in for each training image."),
        json_schema_extra={"takes": ["folder"]},
    )
    prior_loss_weight: Annotated[float, Ge(0), Le(10)] = Field(
        1.0,
        title=N_("Regularisation weight"),
        description=N_("Weight of these images relative to the training images."),
    )
    mask_folder: str = Field(
        "",
        title=N_("Masks"),
        description=N_("A folder with a grey image of the same name for each image: white is learned, black is not."),
        json_schema_extra={"takes": ["folder"]},
    )
    unmasked_weight: Annotated[float, Ge(0), Le(1)] = Field(
        0.1, title=N_("Weight outside masks"), description=N_("How much the black parts of a mask still count.")
    )
    use_ema: bool = Field(
        False, title=N_("EMA"), description=N_("Save a running mean of the weights instead of the last ones.")
    )
    ema_decay: Annotated[float, Gt(0), Le(0.99999)] = Field(
        0.999, title=N_("EMA decay"), description=N_("Fraction of the running mean kept in each step.")
    )
    use_buckets: bool = Field(
        True,
        title=N_("Aspect-ratio buckets"),
        description=N_("Keep the aspect ratio of images. When off, all are cropped to squares."),
        json_schema_extra={"group": N_("Images and captions")},
    )
    bucket_step: Annotated[int, Ge(8), Le(512), MultipleOf(8)] | None = Field(
        None,
        title=N_("Bucket step"),
        description=N_(
            "Training sizes are multiples of this, those of small images too; a larger step "
            "makes fewer sizes. Leave empty for 64, and 8 for images smaller than the resolution."
        ),
        json_schema_extra={"unit": "px", "placeholder": N_("auto")},
    )
    caption_dropout: Annotated[float, Ge(0), Le(1)] = Field(
        0.0, title=N_("Caption dropout"), description=N_("Fraction of images trained without their caption.")
    )
    shuffle_caption: bool = Field(
        False, title=N_("Shuffle captions"), description=N_("Shuffles the comma-separated parts each time.")
    )
    keep_tokens: Annotated[int, Ge(0), Le(100)] = Field(
        0, title=N_("Keep first parts"), description=N_("Number of leading parts that stay in place.")
    )
    validation_steps: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        500,
        title=N_("Validate every"),
        description=N_("Steps between validation images."),
        json_schema_extra={"group": N_("Validation and checkpoints"), "unit": N_("steps")},
    )
    num_validation_images: Annotated[int, Ge(0), Le(16)] = Field(
        4, title=N_("Validation images"), description=N_("Number of images each time; 0 for none.")
    )
    validation_prompts: tuple[PromptText, ...] = Field(
        (),
        max_length=16,
        title=N_("Prompts"),
        description=N_("Prompts of the validation images. Leave empty to use captions of held-out images."),
        json_schema_extra={"lines": 2, "placeholder": N_("captions of held-out images")},
    )
    validation_seed: Annotated[int, Ge(0), Le(SEED_MAX)] = Field(
        42, title=N_("Validation seed"), description=N_("Image i uses this seed + i, the same at every step.")
    )
    validation_inference_steps: Annotated[int, Ge(1), Le(150)] = Field(
        25, title=N_("Validation steps"), description=N_("Denoising steps of a validation image.")
    )
    validation_guidance_scale: Annotated[float, Ge(1), Le(30)] = Field(
        7.5, title=N_("Validation guidance"), description=N_("How strictly the validation images follow their prompts.")
    )
    held_out_percent: Annotated[float, Ge(0), Le(50)] = Field(
        5.0,
        title=N_("Held out"),
        description=N_("Percentage of images kept out of training, to see whether the LoRA generalises."),
        json_schema_extra={"unit": "%"},
    )
    held_out_steps: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        100,
        title=N_("Held-out loss every"),
        description=N_("Steps between measurements of the held-out loss. A number above the run's steps turns it off."),
        json_schema_extra={"unit": N_("steps")},
    )
    checkpointing_steps: Annotated[int, Ge(1), Le(1_000_000)] = Field(
        250,
        title=N_("Checkpoint every"),
        description=N_("Steps between checkpoints: the most a crash can cost."),
        json_schema_extra={"unit": N_("steps")},
    )
    keep_checkpoints: Annotated[int, Ge(1), Le(1000)] = Field(
        3, title=N_("Keep the last"), description=N_("Number of most recent checkpoints to keep.")
    )
    keep_every_steps: Annotated[int, Ge(1), Le(1_000_000)] | None = Field(
        1000,
        title=N_("Also keep every"),
        description=N_("Also keep checkpoints at multiples of this many steps."),
        json_schema_extra={"unit": N_("steps"), "placeholder": N_("none")},
    )
    save_dtype: SaveDtypeName = Field(
        "float16",
        title=N_("File precision"),
        description=N_("Number format of the finished file. float16 halves its size."),
    )
    wandb: bool = Field(
        False, title=N_("wandb"), description=N_("Also log to Weights & Biases (needs `pip install wandb`).")
    )

    @model_validator(mode="after")
    def _consistent(self) -> "TrainingSettings":
        if len(self.validation_prompts) > max(1, self.num_validation_images):
            raise MismatchError(
                _(
                    "Validation images (num_validation_images) must be at least the number of prompts, which is "
                    "{num_prompts}, got {num_images}: each prompt needs an image",
                    num_prompts=len(self.validation_prompts),
                    num_images=self.num_validation_images,
                ),
                "num_validation_images",
                "validation_prompts",
            )
        if self.prior_dataset and self.prior_dataset == self.dataset:
            raise MismatchError(
                _("Regularisation images (prior_dataset) must be other images than the dataset's"),
                "prior_dataset",
                "dataset",
            )
        return self
