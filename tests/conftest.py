"""What many tests share: their tiers, the shipped model, loaded once, and copies of it that may be broken."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from studio.core.system import prepare_threads

os.environ["STUDIO_LANGUAGE"] = "en"  # whatever this machine speaks
prepare_threads()  # before anything imports torch
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker a core: more threads would fight for them
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from studio.core import language
from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL, GenerationSettings, ModelSettings
from studio.engine.pipeline import PipelineManager
from tests.marked_messages import marked_catalogue
from tests.tiny_model import write_tiny_model

# The same inputs in every run, so that a test is red or green for its code alone. A hunt for new ones:
# `pytest --hypothesis-profile=hunt`.
hypothesis.settings.register_profile("same", max_examples=100, deadline=None, derandomize=True, database=None)
hypothesis.settings.register_profile("hunt", max_examples=5000, deadline=None)
hypothesis.settings.load_profile("same")

# The tiers of launch.py: all tests in these folders, and all that use these fixtures; others have markers.
TIER_FOLDERS = {"bench": "slow", "browser": "browser"}
PROCESS_FIXTURES = {"forks", "studio"}
PYTHONS_KEY = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give tests the marker of their tier."""
    tests = Path(__file__).parent
    for item in items:
        tier = TIER_FOLDERS.get(item.path.relative_to(tests).parts[0])
        if tier:
            item.add_marker(tier)
        elif isinstance(item, pytest.Function) and PROCESS_FIXTURES & set(item.fixturenames):
            item.add_marker("process")


def pytest_configure(config: pytest.Config) -> None:
    """Note each start of a Python from now on. An audit hook sees them all, and stays to the end of the process."""
    started = config.stash[PYTHONS_KEY] = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "subprocess.Popen" and sys.executable in str(arguments[1]):
            started.append(str(arguments[1]))

    sys.addaudithook(note)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Keep the fast tier fast: it starts no processes (of `multiprocessing` nothing is heard here)."""
    yield
    started = item.config.stash[PYTHONS_KEY]
    commands = started.copy()
    started.clear()
    if commands and not any(item.get_closest_marker(tier) for tier in ("process", "browser", "slow")):
        pytest.fail(f"It starts a process, so it needs @pytest.mark.process: {commands[0]:.200}", pytrace=False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder. Copy it to break it."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="session")
def manager(tmp_path_factory: pytest.TempPathFactory) -> PipelineManager:
    """The shipped model on the CPU. Do not break it: use `fresh_manager` for that."""
    manager = PipelineManager(torch.device("cpu"), rejected_folder=tmp_path_factory.mktemp("rejected"))
    manager.load(ModelSettings())
    return manager


@pytest.fixture
def fresh_manager(tmp_path: Path) -> Iterator[PipelineManager]:
    """The shipped model, loaded for one test, to be broken."""
    manager = PipelineManager(torch.device("cpu"), rejected_folder=tmp_path / "rejected")
    manager.load(ModelSettings())
    yield manager
    manager.unload()


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    """A copy of the shipped model's folder, to be broken."""
    return Path(shutil.copytree(assets_folder() / SHIPPED_MODEL, tmp_path / "model"))


@pytest.fixture
def quick() -> GenerationSettings:
    """Eight steps: enough for an image that passes every check."""
    return GenerationSettings(prompt="black casual shoes", num_inference_steps=8, seed=7)


@pytest.fixture
def marked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Portuguese is spoken, and every message in it stands in brackets."""
    monkeypatch.setattr(language, "catalogue", marked_catalogue)
    with language.speaking(language.PORTUGUESE):
        yield
