"""A model from a Hub, through the engine process: its progress is told, cancel is heard, the next attempt goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.core.paths import UserData, assets_folder
from studio.core.settings import SHIPPED_MODEL, ModelSettings
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView
from tests.engine.hub_server import FakeHub, fake_hub, files_of
from tests.engine.process.test_client import wait_for

pytestmark = pytest.mark.process

NAME = "someone/shoes"


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub() as hub:
        hub.add(NAME, files_of(assets_folder() / SHIPPED_MODEL))
        yield hub


@pytest.fixture
def client(hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineClient]:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "huggingface"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    client = EngineClient(UserData(tmp_path / "data"), model=ModelSettings(), cpu_only=True)
    client.start()
    wait_for(client, lambda view: view.phase == "ready")
    yield client
    client.stop()


def test_a_download_is_told_and_loaded_with_its_revision(client: EngineClient) -> None:
    reported: list[EngineView] = []

    def loaded(view: EngineView) -> bool:
        reported.append(view)
        return view.phase == "ready"

    client.load(ModelSettings(model=NAME))
    view = wait_for(client, loaded)
    assert view.problem == ""
    assert view.facts is not None
    assert view.facts.model == NAME
    assert len(view.facts.model_revision) == 40
    assert any(v.download and v.download.total_bytes > 10_000_000 for v in reported)


def test_a_name_that_is_not_on_the_hub_leaves_the_model_before_loaded(client: EngineClient) -> None:
    client.load(ModelSettings(model="someone/else"))
    view = wait_for(client, lambda view: view.phase != "loading")
    assert view.phase == "ready"
    assert "someone/else" in view.problem
