"""A snapshot names every file that is lost to the training; settings that do not fit together begin none."""

from pathlib import Path

import pytest

from studio.core.errors import SettingsError
from studio.core.paths import UserData
from studio.core.rules import label_of
from studio.core.settings import SHIPPED_DATASET
from studio.datasets.library import safe_name
from studio.training.begin import MAX_LOST, assert_consistent, begin_run, take_snapshot
from studio.training.presets import PRESETS
from studio.training.settings import TrainingSettings
from tests.datasets.bad_inputs import PNG


def test_files_that_are_lost_are_named_up_to_a_number(tmp_path: Path) -> None:
    folder, outside = tmp_path / "shoes", tmp_path / "outside.png"
    folder.mkdir()
    for path in (folder / "a.png", outside):
        path.write_bytes(PNG)
    for number in range(MAX_LOST + 2):
        (folder / f"link{number}.png").symlink_to(outside)
    taken = take_snapshot(str(folder), UserData(tmp_path / "user_data"))
    assert [entry.key for entry in taken.snapshot.entries] == ["a.png"]
    assert all("is not used: A link that leads out of the folder" in sentence for sentence in taken.left_out[:-1])
    assert taken.left_out[-1] == "2 more files and rows are not used. Check the dataset for their list."


RESTARTS = {"lr_scheduler": "cosine with restarts", "max_train_steps": 100, "lr_warmup_steps": 40}


@pytest.mark.parametrize(
    ("settings", "name", "legal", "illegal", "names"),
    [
        ({"max_train_steps": 100}, "lr_warmup_steps", 100, 101, ("lr_warmup_steps", "max_train_steps")),
        ({"lr_warmup_steps": 100}, "max_train_steps", 100, 99, ("lr_warmup_steps", "max_train_steps")),
        (RESTARTS, "lr_num_cycles", 30, 31, ("lr_num_cycles", "lr_scheduler", "max_train_steps")),
        ({"trigger_word": "shoe"}, "caption_dropout", 0.99, 1, ("caption_dropout", "trigger_word")),
        ({"train_text_encoder": True}, "caption_dropout", 0.99, 1, ("caption_dropout", "train_text_encoder")),
        ({"prior_dataset": "others"}, "prior_loss_weight", 0.01, 0, ("prior_loss_weight", "prior_dataset")),
        ({"mask_folder": "masks"}, "unmasked_weight", 0.99, 1, ("unmasked_weight", "mask_folder")),
        ({"mask_folder": "./masks/../shoes"}, "dataset", "other", "shoes", ("mask_folder", "dataset")),
    ],
)
def test_settings_that_are_legal_one_by_one_and_not_together_begin_no_training(
    tmp_path: Path, settings: dict[str, object], name: str, legal: object, illegal: object, names: tuple[str, ...]
) -> None:
    defaults = TrainingSettings(dataset="shoes").model_dump()
    assert_consistent(TrainingSettings(**{**defaults, **settings, name: legal}))
    for alone in ({name: illegal}, settings):
        TrainingSettings(**{**defaults, **alone})
    with pytest.raises(SettingsError) as caught:
        begin_run(TrainingSettings(**{**defaults, **settings, name: illegal}), UserData(tmp_path / "user_data"))
    assert not (tmp_path / "user_data").exists()
    ((text, fields),) = caught.value.problems
    assert fields == names
    assert all(label_of(TrainingSettings, field) in text for field in fields[:2])


def test_the_dataset_that_ships_has_a_name_that_is_the_same_on_every_machine(tmp_path: Path) -> None:
    taken = take_snapshot(SHIPPED_DATASET, UserData(tmp_path / "user_data"))
    assert len(taken.snapshot.entries) == 60
    assert safe_name(SHIPPED_DATASET) != SHIPPED_DATASET, "so no dataset of a person can be called so"


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_together(preset: str) -> None:
    assert_consistent(TrainingSettings(**{"dataset": "shoes", **PRESETS[preset].changes}))
