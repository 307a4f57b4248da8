"""Which models are offered: each once, those that are gone not at all, a damaged note of them never in the way."""

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.paths import UserData
from studio.core.settings import SHIPPED_MODEL
from studio.engine.model_choices import MAX_RECENT, STABLE_DIFFUSION, model_choices, read_recent, remember_model


@pytest.fixture
def user_data(tmp_path: Path) -> UserData:
    return UserData(tmp_path / "user_data")


def names(user_data: UserData, cache: Path) -> list[str]:
    return [choice.name for choice in model_choices(user_data, cache=cache)]


def test_a_folder_that_was_loaded_is_offered_until_it_is_gone(user_data: UserData, tmp_path: Path) -> None:
    assert names(user_data, tmp_path) == [SHIPPED_MODEL, STABLE_DIFFUSION]
    folder = tmp_path / "my model"
    folder.mkdir()
    for name in (str(folder), SHIPPED_MODEL, str(folder), "nobody/nothing"):
        remember_model(user_data, name)
    assert read_recent(user_data) == ("nobody/nothing", str(folder), SHIPPED_MODEL)
    assert names(user_data, tmp_path) == [SHIPPED_MODEL, STABLE_DIFFUSION, str(folder)]
    shutil.rmtree(folder)
    assert names(user_data, tmp_path) == [SHIPPED_MODEL, STABLE_DIFFUSION]


def test_whole_models_of_the_hub_s_cache_are_offered_and_others_are_not(user_data: UserData, tmp_path: Path) -> None:
    assets = Path(__file__).parents[2] / "assets" / SHIPPED_MODEL
    for name, commit in (("someone--shoes", "a" * 40), ("someone--half", "b" * 40), ("someone--xl", "c" * 40)):
        snapshot = tmp_path / f"models--{name}" / "snapshots" / commit
        shutil.copytree(assets, snapshot)
        reference = tmp_path / f"models--{name}" / "refs" / "main"
        reference.parent.mkdir()
        reference.write_text(commit)
    shutil.rmtree(tmp_path / "models--someone--half" / "snapshots" / ("b" * 40) / "unet")
    index = tmp_path / "models--someone--xl" / "snapshots" / ("c" * 40) / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionXLPipeline"))
    assert names(user_data, tmp_path) == [SHIPPED_MODEL, STABLE_DIFFUSION, "someone/shoes"]


@given(names=st.lists(st.text(min_size=1), max_size=20))
def test_the_latest_come_first_each_once(names: list[str], tmp_path_factory: pytest.TempPathFactory) -> None:
    user_data = UserData(tmp_path_factory.mktemp("user_data"))
    for name in names:
        remember_model(user_data, name)
    wanted = list(dict.fromkeys(reversed(names)))[:MAX_RECENT]
    assert list(read_recent(user_data)) == wanted


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xfe", b'{"names": [1]}', b"[]"])
def test_a_damaged_list_begins_anew_and_says_so(
    user_data: UserData, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    user_data.root.mkdir(parents=True)
    user_data.recent_models.write_bytes(damage)
    assert read_recent(user_data) == ()
    assert "begins anew" in caplog.text
    remember_model(user_data, "mine")
    assert read_recent(user_data) == ("mine",)
