"""Generate: every image is saved with all that is needed to make it again, and one bad image ends nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studio.core.results import FailedImage, ImagesReport, MadeImage
from studio.core.settings import GenerationSettings, ImagesSettings, LoraChoice
from studio.engine.generation import make_images
from studio.engine.pipeline import PipelineManager
from studio.engine.progress import RunWatcher
from studio.images.files import read_picture_text


def test_pictures_are_saved_with_consecutive_seeds(
    manager: PipelineManager, quick: GenerationSettings, tmp_path: Path
) -> None:
    reported: list[ImagesReport] = []
    report = make_images(
        manager, ImagesSettings(generation=quick, num_images=3), outputs=tmp_path, on_image=reported.append
    )
    assert [len(r.images) for r in reported] == [1, 2, 3]
    assert [r.finished for r in reported] == [False, False, True]
    assert [image.record.settings.seed for image in report.images if isinstance(image, MadeImage)] == [7, 8, 9]
    assert len(list(tmp_path.glob("*/*.png"))) == 3


def test_a_picture_made_again_from_its_own_file_is_the_same(
    manager: PipelineManager, quick: GenerationSettings, tmp_path: Path
) -> None:
    rich = quick.model_copy(
        update={
            "prompt": "(black:1.2) casual shoes, <lora:white-ground:0.3>",
            "negative_prompt": "grass",
            "scheduler": "Euler a",
            "guidance_end": 0.8,
            "loras": (LoraChoice(name="white-ground", strength=0.2),),
        }
    )
    report = make_images(manager, ImagesSettings(generation=rich), outputs=tmp_path)
    first = report.images[0]
    assert isinstance(first, MadeImage)
    taken = read_picture_text(first.path)
    assert taken.settings == rich
    again = manager.generate(taken.settings).picture
    assert np.array_equal(np.asarray(Image.open(first.path)), again)


def test_an_invalid_picture_is_reported_and_the_next_is_made(
    fresh_manager: PipelineManager, quick: GenerationSettings, tmp_path: Path
) -> None:
    calls: list[int] = []

    def spoil(_module: torch.nn.Module, _args: object, output: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        calls.append(1)
        return (output[0] * float("nan"),) if len(calls) == 2 else output

    fresh_manager.components.unet.register_forward_hook(spoil)
    report = make_images(fresh_manager, ImagesSettings(generation=quick, num_images=2), outputs=tmp_path)
    failed, made = report.images
    assert isinstance(failed, FailedImage)
    assert "latents check failed" in failed.error
    assert isinstance(made, MadeImage)
    assert report.finished
    assert len(list(tmp_path.glob("*/*.png"))) == 1


def test_cancel_keeps_what_is_finished(manager: PipelineManager, quick: GenerationSettings, tmp_path: Path) -> None:
    steps: list[int] = []
    watcher = RunWatcher(lambda index, progress: steps.append(index), lambda: len(steps) > 10)
    report = make_images(manager, ImagesSettings(generation=quick, num_images=5), outputs=tmp_path, watcher=watcher)
    assert report.cancelled
    assert report.finished
    assert len(report.images) == 1
    assert len(list(tmp_path.glob("*/*.png"))) == 1


@pytest.mark.parametrize("size", [(64, 64), (136, 200)])
def test_sizes_other_than_the_models_own_are_made(
    size: tuple[int, int], manager: PipelineManager, quick: GenerationSettings
) -> None:
    image = manager.generate(quick.model_copy(update={"width": size[0], "height": size[1]}))
    assert image.picture.shape == (size[1], size[0], 3)
    assert (image.record.width, image.record.height) == size
