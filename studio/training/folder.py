"""A training's run folder: the places that only trainings have. No torch: the page reads it.

What a run decided before its first step, kept beside its settings: a resumed run decides nothing anew.

What a training would take, as the preflight measured it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from studio.core.errors import RunError
from studio.core.files import read_file, write_atomically
from studio.core.language import N_, _
from studio.core.records import KeptText, Record
from studio.core.settings import PrecisionName
from studio.core.text import gigabytes
from studio.jobs.folder import JobFolder
from studio.training.settings import MixedPrecisionName

KEPT = "kept"
"""A file in a checkpoint that someone asked for: it is never pruned."""


class RunFolder(JobFolder):
    """The places of a run. Naming one does not make it."""

    noun: ClassVar[str] = N_("run")
    activity: ClassVar[str] = N_("training")
    begin_command: ClassVar[str] = "python -m studio train --dataset …"

    @property
    def dataset(self) -> Path:
        """The snapshot of what is trained on."""
        return self.root / "dataset.jsonl"

    @property
    def prior_dataset(self) -> Path:
        return self.root / "prior-dataset.jsonl"

    @property
    def preparation(self) -> Path:
        """What the dataset needs before the first step; gone once it has it."""
        return self.root / "preparation.json"

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def samples(self) -> Path:
        return self.root / "samples"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"


class LoraFile(Record):
    """By what a LoRA's file is found again under another name."""

    sha256: str
    size_bytes: int


class TrainingPlan(Record):
    """The decisions of one run.

    Attributes:
        resolution: in pixels, of a square with the area of each image.
        gradient_checkpointing: whether all activations are computed twice; `checkpointing_reason` says why.
        recomputed: the parts of the U-Net that are, where not all are: paths of its modules.
        precision: of the base's weights; what learns is float32 always.
        mixed_precision: what passes are computed in; `no` but on CUDA.
        prompts: of the validation images.
        num_parameters: that learn; in `num_layers` layers.
        num_pictures, num_held_out: of the dataset.
        dataset_digest: of the snapshot; prior_digest of that of regularisation images, "" without.
        warmup_from_zero: whether the warm-up's first step has rate 0, as it had in runs of before this was told.
        model_digests: of U-Net, VAE and text encoder: a resumed run must find the same.
        loras: the teacher's and those of prompts, by the names in the settings.
        notes: what the user should know, in sentences.
    """

    resolution: int
    gradient_checkpointing: bool
    checkpointing_reason: KeptText
    recomputed: tuple[str, ...] = ()
    precision: PrecisionName
    mixed_precision: MixedPrecisionName
    prompts: tuple[str, ...]
    num_parameters: int
    num_layers: int
    num_pictures: int
    num_held_out: int
    dataset_digest: str
    prior_digest: str = ""
    model: str
    model_revision: str = ""
    model_digests: dict[str, str]
    loras: Mapping[str, LoraFile] = {}
    device: str
    device_name: str
    versions: dict[str, str]
    warmup_from_zero: bool = True
    notes: tuple[KeptText, ...] = ()


def write_plan(run: RunFolder, plan: TrainingPlan) -> None:
    """Keep it.

    Raises:
        OSError: where it cannot be written.
    """
    write_atomically(run.plan, plan.model_dump_json(indent=2).encode() + b"\n")


def read_plan(run: RunFolder) -> TrainingPlan | None:
    """The plan of a run that began; None of one that did not.

    Raises:
        RunError: where it is damaged.
    """
    if not run.plan.is_file():
        return None
    try:
        return TrainingPlan.model_validate_json(read_file(run.plan))
    except (OSError, ValueError) as error:
        problem = type(error).__name__
        raise RunError(
            _("{file} is damaged ({problem}). Duplicate the run to start again.", file=run.plan, problem=problem)
        ) from error


class Preparation(Record):
    """What a run's dataset needs before the first step, of a run that was begun the short way.

    Attributes:
        captions_from: the folder's name of the job that writes captions; "" where none does.
        template, on_white: as in `ShortPlan`.
    """

    captions_from: str = ""
    template: str = ""
    on_white: bool = False


class PassFacts(Record):
    """A forward and backward pass of one batch: seconds, and the most memory in use meanwhile, in bytes."""

    seconds: float
    peak_bytes: int


class CurvePoint(Record):
    """What a batch takes where so much of the activations' memory is freed by gradient checkpointing.

    Attributes:
        percent: of what can be freed; 0 is off, 100 is on.
    """

    percent: int
    seconds: float
    peak_bytes: int


class Offer(Record):
    """A change of settings, and what it would do, in words."""

    changes: dict[str, object]
    effect: KeptText


class ShownVariants(Record):
    """How training sees one image.

    Attributes:
        key: of the image.
        num_variants: that it has; `jpegs` are the first of them, small, as base64.
    """

    key: str
    num_variants: int
    jpegs: tuple[str, ...]


class Preflight(Record):
    """What a training would take. Times in seconds, memory and disk in bytes.

    Attributes:
        step_seconds: of one optimizer step: all its batches.
        total_seconds: all of it: encoding, steps, held-out losses, images.
        limit_bytes: memory that there is for it.
        disk_bytes: what the run and its caches will need; free_disk_bytes: what is free.
        curve: memory and time of a step for more and more gradient checkpointing; empty where it was not measured.
        checkpointing_percent: where on the curve the training is.
        num_latents: how many variants of images are encoded, or trajectories drawn; latents_bytes: of disk for them.
        variants: of an image that is seen in more than one way.
        warnings: what would go wrong, in sentences.
    """

    num_steps: int
    batches_per_step: int
    num_pictures: int
    epochs: float
    gradient_checkpointing: bool
    reason: KeptText
    step_seconds: float
    encoding_seconds: float
    pictures_seconds: float
    held_out_seconds: float
    total_seconds: float
    peak_bytes: int
    limit_bytes: int
    disk_bytes: int
    free_disk_bytes: int
    offers: tuple[Offer, ...]
    warnings: tuple[KeptText, ...]
    curve: tuple[CurvePoint, ...] = ()
    checkpointing_percent: float = 0.0
    num_latents: int = 0
    latents_bytes: int = 0
    variants: ShownVariants | None = None


def variants_words(found: Preflight) -> str:
    """What variants of images cost in cache; of a preflight that has some."""
    assert found.variants is not None
    return _(
        "Up to {num_variants:,} variants of each image: {num_latents:,} latents, {size} of cache.",
        num_variants=found.variants.num_variants,
        num_latents=found.num_latents,
        size=gigabytes(found.latents_bytes),
    )
