"""Where a batch's images come from: kept beside them, so that nobody takes them for photographs."""

from pathlib import Path

from pydantic import ValidationError

from studio import __version__
from studio.core.files import write_atomically
from studio.core.results import Record

LINEAGE = "lineage.json"


class LoraOrigin(Record):
    """A LoRA that drew: its name and file, and what that tells of its training; "" where it tells nothing."""

    name: str
    strength: float
    sha256: str
    steps: str = ""
    dataset_sha256: str = ""


class Provenance(Record):
    """What made a batch's images.

    Attributes:
        model_revision: of a model from the Hub; "" of others.
        loras: that all images share; those of single prompts are in the images' own files.
        plan_sha256: of everything that decides the items.
    """

    synthetic: bool = True
    batch: str
    model: str
    model_revision: str
    precision: str
    loras: tuple[LoraOrigin, ...]
    plan_sha256: str
    studio_version: str = __version__

    @property
    def sentence(self) -> str:
        """What made them, in a sentence."""
        loras = " and ".join(
            f"the LoRA {lora.name} at {lora.strength:g}"
            + (f" (step {lora.steps}" + (f", dataset {lora.dataset_sha256[:8]}" if lora.dataset_sha256 else "") + ")")
            * bool(lora.steps)
            for lora in self.loras
        )
        return f"Synthetic: drawn by {self.model}{f' with {loras}' if loras else ''} in the batch {self.batch}."


def write_provenance(path: Path, provenance: Provenance) -> None:
    """Keep it.

    Raises:
        OSError: where it cannot be written.
    """
    write_atomically(path, provenance.model_dump_json(indent=2).encode() + b"\n")


def read_provenance(dataset: Path) -> Provenance | None:
    """Of a dataset's folder, where a batch made it; None of any other."""
    try:
        return Provenance.model_validate_json((dataset.parent / LINEAGE).read_bytes())
    except (OSError, ValidationError):
        return None
