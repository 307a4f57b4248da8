"""What a run decided before its first step, kept beside its settings: a resumed run decides nothing anew."""

from studio.errors import RunError
from studio.files import write_atomically
from studio.results import Fact
from studio.runs.folder import RunFolder
from studio.settings import PrecisionName
from studio.training_settings import MixedPrecisionName


class TrainingPlan(Fact):
    """The decisions of one run.

    Attributes:
        resolution: in pixels, of a square with the area of each picture.
        gradient_checkpointing: whether activations are computed twice; `checkpointing_reason` says why.
        precision: of the base's weights; what learns is float32 always.
        mixed_precision: what passes are computed in; `no` but on CUDA.
        prompts: of the validation pictures.
        num_parameters: that learn; in `num_layers` layers.
        num_pictures, num_held_out: of the dataset.
        dataset_digest: of the snapshot; prior_digest of that of regularisation pictures, "" without.
        warmup_from_zero: whether the warm-up's first step has rate 0, as it had in runs of before this was told.
        model_digests: of U-Net, VAE and text encoder: a resumed run must find the same.
        notes: what the user should know, in sentences.
    """

    resolution: int
    gradient_checkpointing: bool
    checkpointing_reason: str
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
    device: str
    device_name: str
    versions: dict[str, str]
    warmup_from_zero: bool = True
    notes: tuple[str, ...] = ()


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
        return TrainingPlan.model_validate_json(run.plan.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(
            f"{run.plan} is damaged ({type(error).__name__}). Duplicate the run to begin it anew."
        ) from error
