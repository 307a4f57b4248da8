"""What a LoRA's file tells of its training, in the words that A1111, kohya's tools and Civitai read."""

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from studio import __version__
from studio.dataset.pictures import open_rgb
from studio.runs.plan import TrainingPlan
from studio.training.training_set import TrainingSet
from studio.training_settings import TrainingSettings

THUMBNAIL_PIXELS = 256
MOST_TAGS = 200


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
    buckets = Counter(item.bucket for item in data.items for _ in range(item.repeats))
    own = [item for item in data.items if not item.is_prior]
    return {
        "ss_v2": "False",
        "ss_base_model_version": "sd_v1",
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(settings.rank),
        "ss_network_alpha": f"{settings.lora_alpha:g}",
        "ss_network_args": json.dumps(conv if "convolutions" in settings.targets else {}),
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
        "lora_studio.version": __version__,
        "lora_studio.dataset_sha256": plan.dataset_digest,
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
    """The same with a small picture of what was learned, where there is one.

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
            counts.update(part.strip() for part in item.caption.split(",") if part.strip())
    return dict(counts.most_common(MOST_TAGS))
