"""What comes out of a run: the LoRA files, their metadata, and how they are checked.

What a LoRA's file tells of its training, in the words that A1111, kohya's tools and Civitai read.

What comes out of a run: two files, each read back and compared, by layer and by image. No check withholds them.
"""

import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from studio import __version__
from studio.core.errors import (
    LoraError,
    PictureFileError,
    StudioError,
    TrainingError,
    WeightsFileError,
    system_error_message,
)
from studio.core.files import read_file
from studio.core.language import _
from studio.engine.lora_export import largest_difference, read_weights, write_kohya, write_peft
from studio.engine.lora_file import LoraWeights
from studio.engine.memory import all_present
from studio.engine.models import Components
from studio.images.decoding import open_rgb
from studio.loras.library import LoraLibrary
from studio.loras.speed import SPEED_METADATA
from studio.loras.weights_file import read_header
from studio.training.folder import RunFolder, TrainingPlan
from studio.training.settings import TrainingSettings
from studio.training.speed import speed_use
from studio.training.torch.adapters import TARGET_MODULES, reader_notes
from studio.training.torch.data import TrainingSet
from studio.training.torch.preparation import Prepared
from studio.training.torch.validation import DTYPES, with_lora

THUMBNAIL_PIXELS = 256
MAX_TAGS = 200


def file_metadata(
    settings: TrainingSettings,
    plan: TrainingPlan,
    data: TrainingSet,
    *,
    prediction_type: str,
    step: int,
    started_at: datetime,
) -> dict[str, str]:
    """Header entries, all of them text. The same run tells the same on another day: its file is then the same.

    Args:
        prediction_type: diffusers' word for what the U-Net was trained to predict; settings may leave it to the model.
    """
    conv = {"conv_dim": str(settings.rank), "conv_alpha": f"{settings.lora_alpha:g}"}
    buckets = Counter(item.bucket for item in data.items for __ in range(item.repeats))
    own = [item for item in data.items if not item.is_prior]
    return {
        "ss_v2": "False",
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(settings.rank),
        "ss_network_alpha": f"{settings.lora_alpha:g}",
        "ss_network_args": json.dumps(conv if "conv1" in TARGET_MODULES[settings.targets] else {}),
        "ss_output_name": settings.name,
        "ss_sd_model_name": _model_name(plan.model),
        "ss_resolution": f"({plan.resolution}, {plan.resolution})",
        "ss_clip_skip": "None",
        "ss_num_train_images": str(sum(item.repeats for item in own)),
        "ss_num_reg_images": str(sum(item.repeats for item in data.items) - sum(item.repeats for item in own)),
        "ss_max_train_steps": str(settings.max_train_steps),
        "ss_steps": str(step),
        "ss_total_batch_size": str(settings.train_batch_size * settings.gradient_accumulation_steps),
        "ss_gradient_accumulation_steps": str(settings.gradient_accumulation_steps),
        "ss_learning_rate": f"{settings.learning_rate:g}",
        "ss_unet_lr": f"{settings.learning_rate:g}",
        "ss_text_encoder_lr": f"{settings.text_encoder_learning_rate:g}" if settings.train_text_encoder else "None",
        "ss_lr_scheduler": settings.lr_scheduler,
        "ss_lr_warmup_steps": str(settings.lr_warmup_steps),
        "ss_optimizer": settings.optimizer,
        "ss_mixed_precision": plan.mixed_precision,
        "ss_seed": str(settings.seed),
        "ss_noise_offset": f"{settings.noise_offset:g}" if settings.noise_offset else "None",
        "ss_min_snr_gamma": "None" if settings.snr_gamma is None else f"{settings.snr_gamma:g}",
        **{f"ss_{name}": str(getattr(settings, name)) for name in ("loss_type", "huber_c", "huber_schedule")},
        "ss_tag_frequency": json.dumps({"dataset": _tags(data)}, ensure_ascii=False),
        "ss_bucket_info": json.dumps(
            {
                "buckets": {
                    str(i): {"resolution": [b.width, b.height], "count": n} for i, (b, n) in enumerate(buckets.items())
                }
            }
        ),
        "ss_dataset_dirs": json.dumps({"dataset": {"n_repeats": 1, "img_count": len(own)}}),
        "ss_training_started_at": f"{started_at.timestamp():.0f}",
        **_modelspec(settings, plan, prediction_type=prediction_type, started_at=started_at),
        **({} if not settings.makes_speed_lora else _use(settings)),
        "lora_studio.version": __version__,
        "lora_studio.dataset_sha256": plan.dataset_digest,
    }


def _use(settings: TrainingSettings) -> dict[str, str]:
    """With what a Speed LoRA is used: for the studio, and in A1111's words for people."""
    use = speed_use(settings)
    beside = f" <lora:{use.teacher_lora}:{use.teacher_lora_strength:g}>" if use.teacher_lora else ""
    hint = f"Steps: {use.num_inference_steps}, CFG scale: 1, Sampler: Euler, Schedule type: SGM Uniform"
    return {
        SPEED_METADATA: use.model_dump_json(),
        "modelspec.usage_hint": f"{hint}. <lora:{settings.name}:1>{beside}",
    }


def _modelspec(
    settings: TrainingSettings, plan: TrainingPlan, *, prediction_type: str, started_at: datetime
) -> dict[str, str]:
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": settings.name,
        "modelspec.resolution": f"{plan.resolution}x{plan.resolution}",
        "modelspec.date": started_at.astimezone(UTC).strftime("%Y-%m-%d"),
        "modelspec.trigger_phrase": settings.trigger_word,
        "modelspec.prediction_type": "v" if prediction_type == "v_prediction" else "epsilon",
    }


def with_thumbnail(metadata: Mapping[str, str], picture: Path | None) -> dict[str, str]:
    """The same with a small image of what was learned, where there is one.

    Raises:
        PictureFileError: where it cannot be read.
    """
    if picture is None:
        return dict(metadata)
    small = open_rgb(picture)
    small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    url = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    return {**metadata, "modelspec.thumbnail": url}


def _model_name(model: str) -> str:
    """Of a folder or file its name alone, as kohya does: a path tells others nothing, and may hold a person's name."""
    return Path(model).name if Path(model).is_absolute() else model


def _tags(data: TrainingSet) -> dict[str, int]:
    """How often each comma-separated part of the captions occurs, most first."""
    counts: Counter[str] = Counter()
    for item in data.items:
        if not item.is_prior:
            counts.update(part.strip() for one in item.captions for part in one.split(",") if part.strip())
    return dict(counts.most_common(MAX_TAGS))


DIFFUSERS_NAME = "pytorch_lora_weights.safetensors"  # no LoRA may be called so: `studio.cli.train`
# Rounding to the stored format, relative to the largest change of a weight.
LIMITS: Mapping[torch.dtype, float] = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# How far an image's latents may be from those of the weights in memory, in their own deviations: the sum of such
# roundings over a few steps.
LATENTS_LIMITS: Mapping[torch.dtype, float] = {torch.float32: 1e-3, torch.float16: 2e-2, torch.bfloat16: 2e-1}


Writer = Callable[..., None]  # `write_kohya`, `write_peft`


@dataclass(frozen=True)
class FinishedFiles:
    """What came out of a run.

    Attributes:
        files: those that are there, kohya's first.
        library_name: of the first in the library; empty where it could not be added.
        notes: what was decided, in sentences.
        problems: what is wrong with the files, or could not be checked, in sentences.
    """

    files: tuple[Path, ...]
    library_name: str
    notes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


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
    """Write kohya's and diffusers' file, add the first to the library, and check both: whatever a check finds is told,
    and the files stay.

    Args:
        last_picture: what the file shows as its thumbnail.
        in_memory: gives the latents of the check's image with the layers that learned; None with EMA, where those
            are not what is saved.

    Raises:
        TrainingError: where neither file could be made of the weights.
        OSError: where one cannot be written.
    """
    settings = prepared.settings
    writers = {run.root / f"{settings.name}.safetensors": write_kohya, run.root / DIFFUSERS_NAME: write_peft}
    metadata, notes = _with_thumbnail(metadata, last_picture)
    components, dtype = prepared.manager.components, DTYPES[settings.save_dtype]
    with prepared.adapters.taken_out():
        files, problems = _write(writers, weights, metadata, components, dtype)
        if problems and dtype != torch.float32:
            notes += (
                _(
                    "The files are stored in float32. In {precision}: {problem}",
                    precision=settings.save_dtype,
                    problem=problems[0],
                ),
            )
            dtype = torch.float32
            files, problems = _write(writers, weights, metadata, components, dtype)
    if not files:
        why = " ".join(problems)
        raise TrainingError(_("No file could be written. {why} The checkpoint has what was trained.", why=why))
    name, library_problems = _add_to_library(library, files[0], settings.name)
    if in_memory is not None:
        problems += _check_pictures(files, in_memory, prepared, dtype)
    notes += reader_notes(settings)
    return FinishedFiles(files, name, notes, (*library_problems, *problems))


def check_picture(prepared: Prepared, *, lora: Path | None) -> torch.Tensor:
    """(C, H, W) latents of one seed after a few steps, with a file's LoRA or with what the model holds now."""
    wanted = prepared.check
    return prepared.manager.generate(wanted if lora is None else with_lora(wanted, lora)).latents_CHW


def _with_thumbnail(metadata: Mapping[str, str], picture: Path | None) -> tuple[dict[str, str], tuple[str, ...]]:
    """The metadata with a thumbnail where there can be one, and why there is none where it cannot."""
    try:
        return with_thumbnail(metadata, picture), ()
    except PictureFileError as error:
        return dict(metadata), (_("The file has no thumbnail: {error}", error=error),)


def _write(
    writers: Mapping[Path, Writer],
    weights: LoraWeights,
    metadata: Mapping[str, str],
    components: Components,
    dtype: torch.dtype,
) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    """Write the files and read them back; those that are there, and in what they are not what was trained."""
    files: list[Path] = []
    problems: list[str] = []
    for file, write in writers.items():
        try:
            write(file, weights, metadata, dtype=dtype)
            files.append(file)
            difference = largest_difference(weights, read_weights(file.stem, file, components))
        except (LoraError, WeightsFileError) as error:
            problems.append(_("{name} does not hold what was trained: {error}", name=file.name, error=error))
            continue
        if not difference <= LIMITS[dtype]:
            problems.append(
                _(
                    "{name}, read back, differs from what was trained by {difference:.2g} of its largest change, where "
                    "{limit:g} is rounding.",
                    name=file.name,
                    difference=difference,
                    limit=LIMITS[dtype],
                )
            )
    return tuple(files), tuple(problems)


def _check_pictures(
    files: Sequence[Path], in_memory: Callable[[], torch.Tensor], prepared: Prepared, dtype: torch.dtype
) -> tuple[str, ...]:
    """Which files do not act as the layers in memory do. Where that cannot be seen, why."""
    try:
        reference = in_memory()
        with prepared.adapters.taken_out(), all_present(prepared.offloaded):
            try:
                found = [_picture_problem(file, reference, prepared, dtype) for file in files]
            finally:
                prepared.manager.loras.use(())
    except (StudioError, OSError, MemoryError, RuntimeError) as error:  # as at a run's end: memory, mostly
        why = str(error) if isinstance(error, StudioError) else system_error_message(error)
        return (_("It could not be checked whether the files match the trained layers. {why}", why=why),)
    return tuple(filter(None, found))


def _picture_problem(file: Path, reference: torch.Tensor, prepared: Prepared, dtype: torch.dtype) -> str:
    made = check_picture(prepared, lora=file)
    difference = float((made - reference).abs().mean() / reference.std())
    if difference <= LATENTS_LIMITS[dtype]:
        return ""
    return _(
        "An image with {name} differs from one with the trained layers by {difference:.2g}, where {limit:g} is "
        "rounding. Please report this.",
        name=file.name,
        difference=difference,
        limit=LATENTS_LIMITS[dtype],
    )


def _add_to_library(library: LoraLibrary, file: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """Its name there; the one that it has where it is there already, as after a kill in the last moment. Or why not.

    The same LoRA written again is not the same bytes: safetensors puts its metadata in any order.
    """
    own, digest = _identity(file), _digest_of_weights(file)
    for known in library.names():
        other = library.find(known)
        if own and _identity(other) == own and _digest_of_weights(other) == digest:
            return known, ()
    try:
        return library.add(file, name=name).name, ()
    except (LoraError, WeightsFileError) as error:
        return "", (_("{name} is not in the library. {error}", name=file.name, error=error),)


def _identity(file: Path) -> tuple[str | None, ...]:
    """What a file tells of its weights and of the run that made it; nothing of one that cannot be read."""
    try:
        metadata = read_header(file).metadata
    except WeightsFileError:
        return ()
    return tuple(metadata.get(name) for name in ("sshs_model_hash", "ss_output_name", "ss_training_started_at"))


def _digest_of_weights(file: Path) -> str:
    """Of what follows the header: a copy that was damaged on its way says the same of itself, and is another."""
    content = read_file(file, max_bytes=None)
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
