"""What people read of a run or a batch: what they called it, else what it is made of; and when it was begun."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from studio.batches.folder import BatchFolder
from studio.batches.settings import BatchSettings
from studio.core.language import speaking
from studio.core.paths import UserData
from studio.core.records import Label
from studio.jobs.folder import JobFolder
from studio.jobs.words import UNNAMED, short_title, titles
from studio.training.session import TrainingSession
from studio.training.settings import TrainingSettings
from tests.training.told_runs import make_run

NOW = datetime(2026, 11, 29, 12, 0)


def folder_of(parent: Path, folder_name: str, **settings: object) -> JobFolder:
    folder = JobFolder(parent / folder_name)
    folder.root.mkdir()
    folder.settings.write_text(json.dumps(settings), encoding="utf-8")
    return folder


def test_the_names_that_nobody_gave_are_those_of_the_settings() -> None:
    assert {kind.model_fields["name"].default for kind in (TrainingSettings, BatchSettings)} == set(UNNAMED)


@pytest.mark.parametrize(
    ("settings", "title"),
    [
        ({"name": "lora", "dataset": "built-in:casual-shoes"}, "casual-shoes"),
        ({"name": "lora", "dataset": "/home/me/white shoes/"}, "white shoes"),
        ({"name": "lora", "dataset": "C:\\images\\boots"}, "boots"),
        ({"name": "batch", "prompts": "# mine\n\n  red shoes on a  table\nboots"}, "red shoes on a table"),
        ({"name": "batch", "prompts": "product photo of {colour} {type}, white background"}, None),
        ({"name": "batch", "prompt_file": "/x/prompts.csv"}, "prompts.csv"),
        ({"name": "batch", "prompts": "x" * 200}, "x" * 39 + "…"),
        ({"name": "lora-2", "dataset": "boots"}, "lora-2"),
        ({"name": "lora"}, "lora-2"),
        ({}, "lora-2"),
    ],
)
def test_what_nobody_named_is_called_by_what_it_is_made_of(
    tmp_path: Path, settings: dict[str, str], title: str | None
) -> None:
    folder = folder_of(tmp_path, "20261129-110000-lora-2", **settings)
    assert short_title(folder) == (title or "product photo of {colour} {type}, white…")
    assert short_title(folder, Label(name="Mine")) == "Mine"


def test_a_damaged_folder_is_called_by_its_own_name(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "20261129-110000-batch")
    folder.settings.write_text("[", encoding="utf-8")
    assert short_title(folder) == "batch"
    assert short_title(JobFolder(tmp_path / "mine")) == "mine"
    assert titles([JobFolder(tmp_path / "20269999-999999-x")], {}, NOW) == {"20269999-999999-x": "x"}


def test_lists_say_when_it_was_begun_and_no_two_are_called_the_same(tmp_path: Path) -> None:
    names = (
        "20261129-093000-a",
        "20261124-093000-a",
        "20261001-093000-b",
        "20261001-113000-b",
        "20261002-093000-c",
        "20261002-093001-c",
        "one",
    )
    folders = [BatchFolder(tmp_path / name) for name in names]
    with speaking("pt-BR"):
        assert list(titles(folders, {names[0]: Label(name="Minha")}, NOW).values()) == [
            "Minha · hoje, 09:30",
            "a · terça-feira 09:30",
            "b · 01/10/2026 09:30",
            "b · 01/10/2026 11:30",
            "c · 02/10/2026 09:30:00",
            "c · 02/10/2026 09:30:01",
            "one",
        ]
    called = {"one": Label(name="a"), "two": Label(name="a")}
    alike = titles([BatchFolder(tmp_path / name) for name in called], called, NOW)
    assert alike == {"one": "a · one", "two": "a · two"}


def test_a_session_says_them_in_the_language_of_each_page_and_anew_when_one_is_named(tmp_path: Path) -> None:
    session = TrainingSession(UserData(tmp_path))
    name = f"{datetime.now():%Y%m%d}-000100-shoes"
    make_run(session.user_data.runs / name, [])
    assert session.view().titles == {name: "shoes · today 00:01"}
    with speaking("pt-BR"):
        assert session.view().titles == {name: "shoes · hoje, 00:01"}
    session.set_label(session.named(name), Label(name="White"))
    assert session.view().titles == {name: "White · today 00:01"}
