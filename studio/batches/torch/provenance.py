"""What a loaded model and its LoRAs tell of where a batch's images come from."""

from studio.batches.plan import BatchPlan
from studio.batches.provenance import LoraOrigin, Provenance
from studio.batches.settings import BatchSettings
from studio.core.results import EngineFacts
from studio.core.settings import LoraChoice
from studio.loras.library import LoraLibrary
from studio.loras.weights_file import read_header, sha256_of


def provenance_of(
    plan: BatchPlan, batch: str, facts: EngineFacts, library: LoraLibrary, settings: BatchSettings
) -> Provenance:
    """The lineage of a batch's images.

    Raises:
        LoraError, WeightsFileError: where a shared LoRA cannot be found or read.
    """
    return Provenance(
        batch=batch,
        model=facts.model,
        model_revision=facts.model_revision,
        precision=facts.precision.precision,
        loras=tuple(_origin(choice, library) for choice in settings.generation.loras),
        plan_sha256=plan.digest,
    )


def _origin(choice: LoraChoice, library: LoraLibrary) -> LoraOrigin:
    path = library.find(choice.name)
    metadata = read_header(path).metadata
    return LoraOrigin(
        name=choice.name,
        strength=choice.strength,
        sha256=sha256_of(path),
        steps=metadata.get("ss_steps", ""),
        dataset_sha256=metadata.get("lora_studio.dataset_sha256", ""),
    )
