"""What comes out of a run: two files, each read back and compared, by layer and by picture, before it is done."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from studio.engine.lora_export import largest_difference, read_weights, write_kohya, write_peft
from studio.engine.lora_weights import LoraWeights
from studio.engine.parking import all_present
from studio.errors import LoraError, TrainingError, WeightsFileError
from studio.loras.library import LoraLibrary
from studio.runs.folder import RunFolder
from studio.settings import LoraChoice
from studio.training.metadata import with_thumbnail
from studio.training.preparation import Prepared
from studio.training.samples import DTYPES
from studio.weights_file import read_header

DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"  # no LoRA may be called so: `studio.training.command`
# Rounding to the stored format, relative to the largest change of a weight.
LIMITS: Mapping[torch.dtype, float] = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# How far a picture's latents may be from those of the weights in memory, in their own deviations: the sum of such
# roundings over a few steps.
LATENTS_LIMITS: Mapping[torch.dtype, float] = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 2e-1}


@dataclass(frozen=True)
class FinishedFiles:
    """The files, the name under which the library has the first, and what the user should know."""

    kohya: Path
    diffusers: Path
    library_name: str
    notes: tuple[str, ...]


def finish(
    prepared: Prepared,
    weights: LoraWeights,
    run: RunFolder,
    metadata: Mapping[str, str],
    *,
    library: LoraLibrary,
    last_picture: Path | None,
    in_memory: Callable[[], torch.Tensor] | None = None,
) -> FinishedFiles:
    """Write kohya's and diffusers' file, check both, and add the first to the library.

    Args:
        last_picture: what the file shows as its thumbnail.
        in_memory: gives the latents of the check's picture with the layers that learned; None with EMA, where those
            are not what is saved.

    Raises:
        TrainingError: where a file, read back, is not what was trained.
        OSError: where one cannot be written.
    """
    name = prepared.settings.name
    kohya, diffusers = run.root / f"{name}.safetensors", run.root / DIFFUSERS_NAME
    told = with_thumbnail(metadata, last_picture)
    reference = None if in_memory is None else in_memory()
    notes: tuple[str, ...] = ()
    with prepared.adapters.taken_out(), all_present(prepared.parked):
        dtype, difference = DTYPES[prepared.settings.save_dtype], 0.0
        try:
            difference = _write(kohya, diffusers, weights, told, prepared, dtype)
            if difference > LIMITS[dtype]:
                notes = (
                    f"The file is stored in float32: in {prepared.settings.save_dtype} it would differ from what was "
                    f"trained by {difference:.2g} of its largest change, as very small weights do.",
                )
                dtype = torch.float32
                difference = _write(kohya, diffusers, weights, told, prepared, dtype)
            if not difference <= LIMITS[dtype]:
                raise TrainingError(
                    f"{kohya.name}, read back, differs from what was trained by {difference:.2g} of its largest "
                    "change. The checkpoint has all of it: check the disk, then resume."
                )
            if reference is not None:
                for file in (kohya, diffusers):
                    _assert_same_picture(file, reference, prepared, dtype)
        finally:
            prepared.manager.loras.use(())
    return FinishedFiles(kohya, diffusers, _add_to_library(library, kohya, name), notes)


def check_picture(prepared: Prepared, *, lora: Path | None) -> torch.Tensor:
    """(C, H, W) latents of one seed after a few steps, with a file's LoRA or with what the model holds now."""
    wanted = prepared.check
    if lora is not None:
        wanted = wanted.model_copy(update={"loras": (LoraChoice(name=str(lora.resolve())),)})
    return prepared.manager.generate(wanted).latents_CHW


def _write(
    kohya: Path,
    diffusers: Path,
    weights: LoraWeights,
    metadata: Mapping[str, str],
    prepared: Prepared,
    dtype: torch.dtype,
) -> float:
    """Write both files; how far they are, read back, from what was trained, relative to its largest change."""
    write_kohya(kohya, weights, metadata, dtype=dtype)
    write_peft(diffusers, weights, metadata, dtype=dtype)
    components = prepared.manager.components
    try:
        return max(
            largest_difference(weights, read_weights(file.stem, file, components)) for file in (kohya, diffusers)
        )
    except LoraError as error:
        raise TrainingError(
            f"The file does not hold what was trained: {error} The checkpoint has all of it: check the disk, then "
            "resume."
        ) from error


def _assert_same_picture(file: Path, reference: torch.Tensor, prepared: Prepared, dtype: torch.dtype) -> None:
    made = check_picture(prepared, lora=file)
    difference = float((made - reference).abs().mean() / reference.std())
    if not difference <= LATENTS_LIMITS[dtype]:
        raise TrainingError(
            f"A picture with {file.name} differs from one with the trained layers by {difference:.2g}, where "
            f"{LATENTS_LIMITS[dtype]:g} is rounding. The checkpoint has all of it; please report this."
        )


def _add_to_library(library: LoraLibrary, file: Path, name: str) -> str:
    """Its name there; the one that it has where it is there already, as after a kill in the last moment.

    The same LoRA written again is not the same bytes: safetensors puts its metadata in any order.
    """
    own = _identity(file)
    same = next((known for known in library.names() if _identity(library.find(known)) == own), None)
    return same or library.add(file, name=name).name


def _identity(file: Path) -> tuple[str | None, ...]:
    """What a file tells of its weights and of the run that made it; nothing of one that cannot be read."""
    try:
        metadata = read_header(file).metadata
    except WeightsFileError:
        return ()
    return tuple(metadata.get(name) for name in ("sshs_model_hash", "ss_output_name", "ss_training_started_at"))
