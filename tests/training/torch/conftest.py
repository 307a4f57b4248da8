"""What tests of training share: the tiny model, loaded once, small images, and a cache of what was encoded."""

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from studio.core.paths import UserData
from studio.core.settings import ModelSettings
from studio.datasets.snapshot import Snapshot
from studio.engine.models import Components
from studio.engine.pipeline import PipelineManager
from studio.training.begin import take_snapshot
from studio.training.torch.processes import Processes
from tests.training.torch.parts import save_pictures

SIZES = ((80, 80), (100, 60)) * 4  # two buckets, four images of each


@pytest.fixture(scope="session")
def training_manager(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> PipelineManager:
    """The tiny model on the CPU. Nothing is left in it: take `components` to put layers in."""
    manager = PipelineManager(torch.device("cpu"), rejected_folder=tmp_path_factory.mktemp("training-rejected"))
    manager.load(ModelSettings(model=str(tiny_model)))
    return manager


@pytest.fixture
def components(training_manager: PipelineManager) -> Components:
    """A copy of the tiny model's parts, to put layers in and to break."""
    return copy.deepcopy(training_manager.components)


@pytest.fixture(scope="session")
def small_dataset() -> Callable[[Path], Path]:
    """Makes eight small images of two shapes below a folder, with captions in .txt files."""
    return lambda tmp: save_pictures(tmp / "shoes", SIZES)


@pytest.fixture(scope="session")
def snapshot(small_dataset: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """Of the eight small images, taken as a run takes it."""
    folder = small_dataset(tmp_path_factory.mktemp("training-pictures"))
    taken = take_snapshot(str(folder), UserData(tmp_path_factory.mktemp("training-user-data")))
    assert taken.left_out == ()
    return taken.snapshot


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What any test encoded is found by the next; tests that damage it take a folder of their own."""
    return tmp_path_factory.mktemp("training-cache")


@pytest.fixture(scope="session")
def processes() -> Processes:
    """This process alone."""
    return Processes(cpu_only=True, mixed_precision="no")
