"""Training's settings: what they refuse, and that every preset is one of them."""

from typing import get_args

import pytest
from pydantic import ValidationError

from studio.training.presets import PRESETS
from studio.training.settings import TARGET_NAMES, LrSchedulerName, TrainingSettings


def settings(**changes: object) -> TrainingSettings:
    return TrainingSettings.model_validate({"dataset": "shoes", **changes})


def test_the_defaults_are_the_seed_reports() -> None:
    default = settings()
    assert (default.rank, default.lora_alpha, default.targets, default.learning_rate) == (8, 16, "attention", 1e-4)
    assert default.train_batch_size * default.gradient_accumulation_steps == 16
    assert (default.max_train_steps, default.optimizer, default.lr_scheduler) == (3000, "AdamW", "constant")
    assert (default.mixed_precision, default.seed) == ("no", 42)


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_changes_what_it_names_and_nothing_else(name: str) -> None:
    changed, default = settings(**PRESETS[name].changes).model_dump(), settings().model_dump()
    assert {key for key in default if default[key] != changed[key]} == set(PRESETS[name].changes)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rank", 0),
        ("rank", 321),
        ("rank", 1.5),
        ("lora_alpha", 0),
        ("lora_dropout", 0.95),
        ("lora_dropout", -0.1),
        ("targets", "everything"),
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("text_encoder_learning_rate", 0),
        ("optimizer", "SGD"),
        ("weight_decay", -0.1),
        ("max_grad_norm", 0),
        ("lr_scheduler", "polynomial"),
        ("lr_warmup_steps", -1),
        ("lr_num_cycles", 0),
        ("max_train_steps", 0),
        ("train_batch_size", 0),
        ("gradient_accumulation_steps", 0),
        ("seed", -1),
        ("loss_type", "l1"),
        ("huber_c", 0),
        ("huber_schedule", "linear"),
        ("snr_gamma", 0),
        ("noise_offset", 1.1),
        ("prediction_type", "sample"),
        ("caption_dropout", 1.1),
        ("keep_tokens", -1),
        ("crop", "left"),
        ("resolution", 100),
        ("resolution", 32),
        ("bucket_step", 0),
        ("bucket_step", 4),
        ("bucket_step", 20),
        ("bucket_step", 520),
        ("held_out_percent", 51),
        ("prior_loss_weight", -1),
        ("unmasked_weight", 1.5),
        ("ema_decay", 1),
        ("ema_decay", 0),
        ("dataset", ""),
        ("name", "a/b"),
        ("name", ""),
        ("name", "../up"),
        ("learning_rte", 1e-4),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        settings(**{field: value})


def test_each_prompt_needs_a_picture() -> None:
    with pytest.raises(ValidationError, match="each prompt needs an image"):
        settings(validation_prompts=("a", "b"), num_validation_images=1)
    assert settings(validation_prompts=("a", "b"), num_validation_images=2).num_validation_images == 2


def test_regularisation_pictures_must_be_others() -> None:
    with pytest.raises(ValidationError, match="must be other images than the dataset"):
        settings(prior_dataset="shoes")


def test_settings_come_back_from_their_json() -> None:
    for name in PRESETS:
        given = settings(**PRESETS[name].changes, name=name)
        assert TrainingSettings.model_validate_json(given.model_dump_json()) == given


def test_every_setting_says_what_it_is() -> None:
    for name, field in TrainingSettings.model_fields.items():
        assert field.title, name
        assert (field.description or "").endswith("."), name


def test_names_of_choices_are_told_once() -> None:
    assert len(set(TARGET_NAMES)) == 5
    assert len(set(get_args(LrSchedulerName))) == 4
