"""A run that is asked for while another process has the device: kept, begun when it is free, or taken back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.core.errors import EngineError
from studio.core.paths import UserData
from studio.core.settings import GenerationSettings, ImagesSettings, ModelSettings, SmokeSettings
from studio.engine.process.client import EngineClient
from studio.engine.process.messages import Generate, MakingRoom
from studio.jobs.device_lock import DeviceLock
from tests.engine.process.test_client import wait_for

pytestmark = pytest.mark.process

PICTURE = ImagesSettings(generation=GenerationSettings(prompt="casual shoes", num_inference_steps=3))


@pytest.fixture
def lock(tmp_path: Path) -> Iterator[DeviceLock]:
    """The device, held by this process as a training would."""
    held = DeviceLock(UserData(tmp_path).device_lock)
    assert held.acquire("training shoes")
    yield held
    held.release()


@pytest.fixture
def client(tmp_path: Path, lock: DeviceLock, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineClient]:
    """An engine that waits for the device."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    client = EngineClient(UserData(tmp_path), model=ModelSettings(), cpu_only=True)
    client.start()
    wait_for(client, lambda view: view.phase == "waiting")
    yield client
    client.stop()


def test_it_begins_by_itself_when_the_device_is_free(client: EngineClient, lock: DeviceLock) -> None:
    client.keep_runs()
    assert client.view.takes_runs
    client.generate(PICTURE)
    assert client.view.kept == Generate(settings=PICTURE)
    with pytest.raises(EngineError, match=r"it waits for the device, to generate\. Cancel that first"):
        client.run_smoke_test(SmokeSettings())
    lock.release()
    view = wait_for(client, lambda view: view.images is not None and view.images.finished)
    assert view.images is not None
    assert len(view.images.images) == 1
    assert view.images.settings == PICTURE
    assert view.kept is None
    assert not view.keeps_runs


def test_without_being_asked_to_nothing_is_kept(client: EngineClient) -> None:
    with pytest.raises(EngineError, match="another program is using the device"):
        client.generate(PICTURE)
    assert client.view.kept is None


def test_what_is_kept_can_be_taken_back(client: EngineClient, lock: DeviceLock) -> None:
    client.keep_runs()
    client.generate(PICTURE)
    client.forget_kept()
    assert not client.view.takes_runs
    lock.release()
    wait_for(client, lambda view: view.phase == "ready")
    assert client.view.images is None
    with pytest.raises(EngineError, match="Nothing has to wait"):
        client.keep_runs()


def test_one_that_an_engine_no_longer_heard_as_it_left_is_kept_for_the_next(client: EngineClient) -> None:
    client._begin(Generate(settings=PICTURE))
    client._take_in(MakingRoom(owner="training shoes"))
    assert client.view.phase == "waiting"
    assert client.view.kept == Generate(settings=PICTURE)
