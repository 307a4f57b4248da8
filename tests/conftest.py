"""What many tests share: the shipped model, loaded once, and copies of it that may be broken."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.core.system import prepare_threads

prepare_threads()  # before anything imports torch

import torch

from studio.core.paths import assets_folder
from studio.core.settings import SHIPPED_MODEL, GenerationSettings, ModelSettings
from studio.engine.pipeline import PipelineManager


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
