"""The smoke test reports what happened: every image, every check, and an honest verdict."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from studio.core.errors import ModelError
from studio.core.results import InvalidPicture, SmokeReport
from studio.core.settings import SmokeSettings
from studio.engine.generation import SmokeWatcher, run_smoke_test
from studio.engine.pipeline import PipelineManager
from studio.images.smoke_report import JSON_NAME, MARKDOWN_NAME, latest_report

QUICK = SmokeSettings(num_inference_steps=6)


def test_three_valid_pictures_pass_and_are_saved_with_the_report(manager: PipelineManager, tmp_path: Path) -> None:
    saved = run_smoke_test(manager, QUICK, outputs=tmp_path)
    assert saved.report.verdict == "PASS: 3 of 3 images are valid."
    for picture, generation in zip(saved.report.valid_pictures, QUICK.generations(), strict=True):
        pixels = np.asarray(Image.open(saved.folder / picture.file))
        assert np.array_equal(pixels, manager.generate(generation).picture)
        assert (picture.low, picture.high) == (pixels.min(), pixels.max())
    assert SmokeReport.model_validate_json((saved.folder / JSON_NAME).read_bytes()) == saved.report
    assert latest_report(tmp_path) == saved


def test_the_markdown_has_the_tables_of_the_seed_report(manager: PipelineManager, tmp_path: Path) -> None:
    saved = run_smoke_test(manager, QUICK, outputs=tmp_path)
    page = (saved.folder / MARKDOWN_NAME).read_text()
    assert page.startswith("# Smoke test: PASS: 3 of 3 images are valid.")
    for words in ("## Settings", "## Images", "## Checks", "## Time", "## Memory", "## Versions"):
        assert words in page
    assert "128 × 128 × 3 | uint8" in page
    assert "| torch | " + torch.__version__ in page


def test_the_first_picture_is_told_apart(fresh_manager: PipelineManager, tmp_path: Path) -> None:
    saved = run_smoke_test(fresh_manager, QUICK, outputs=tmp_path)
    assert [p.timings.first_call for p in saved.report.valid_pictures] == [True, False, False]
    page = (saved.folder / MARKDOWN_NAME).read_text()
    assert "| First, with warm-up | " in page
    assert "| Steady, mean | " in page


def test_an_invalid_picture_fails_the_test_and_does_not_end_it(fresh_manager: PipelineManager, tmp_path: Path) -> None:
    calls = []

    def spoil_the_second(_module: object, _inputs: object, output: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return output * float("nan") if len(calls) == 2 else output

    fresh_manager.components.vae.decoder.register_forward_hook(spoil_the_second)
    saved = run_smoke_test(fresh_manager, QUICK, outputs=tmp_path)
    assert [p.valid for p in saved.report.pictures] == [True, False, True]
    assert not saved.report.passed
    assert saved.report.verdict.startswith("FAIL: 1 of 3 images are not valid. ")
    assert "The VAE gave NaN" in saved.report.verdict
    assert not (saved.folder / "2.png").exists()
    second = saved.report.pictures[1]
    assert isinstance(second, InvalidPicture)
    assert [(c.name, c.passed) for c in second.checks] == [("latents", True), ("decoded", False)]
    assert SmokeReport.model_validate_json((saved.folder / JSON_NAME).read_bytes()) == saved.report


def test_a_cancelled_test_keeps_what_is_done_and_fails(manager: PipelineManager, tmp_path: Path) -> None:
    done: list[int] = []
    watcher = SmokeWatcher(
        on_picture=lambda index, _record, _folder: done.append(index), cancelled=lambda: len(done) == 1
    )
    saved = run_smoke_test(manager, QUICK, outputs=tmp_path, watcher=watcher)
    assert saved.report.verdict == "STOPPED: cancelled after 1 of 3 images, so there is no verdict."
    assert [p.file for p in saved.report.valid_pictures] == ["1.png"]


def test_the_watcher_hears_of_every_step_of_every_picture(manager: PipelineManager, tmp_path: Path) -> None:
    heard: list[tuple[int, int]] = []
    watcher = SmokeWatcher(on_step=lambda picture, progress: heard.append((picture, progress.step)))
    run_smoke_test(manager, QUICK, outputs=tmp_path, watcher=watcher)
    assert heard == [(picture, step) for picture in range(3) for step in range(1, 7)]


def test_without_a_model_it_says_so(tmp_path: Path) -> None:
    manager = PipelineManager(torch.device("cpu"), rejected_folder=tmp_path)
    with pytest.raises(ModelError, match="No model is loaded"):
        run_smoke_test(manager, QUICK, outputs=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_report_is_passed_over_for_the_one_before(manager: PipelineManager, tmp_path: Path) -> None:
    good = run_smoke_test(manager, QUICK, outputs=tmp_path)
    newer = good.folder.with_name("smoke-999999-000000")
    newer.mkdir()
    (newer / JSON_NAME).write_text("{")
    assert latest_report(tmp_path) == good
