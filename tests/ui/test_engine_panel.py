"""The panel of model and device: what is offered, what arrives, each part of the device check with its verdict."""

import re
from datetime import datetime
from pathlib import Path
from typing import get_args

import pytest
from huggingface_hub import constants

from studio.core.paths import UserData
from studio.core.results import CHECK_FORMAT, AttentionTrial, DeviceCheck, DeviceDifference
from studio.engine.model_choices import STABLE_DIFFUSION
from studio.engine.process.messages import Downloading
from studio.engine.process.view import EngineView, Phase
from studio.ui.shell.engine_panel import render
from studio.ui.shell.parts import Guard
from studio.ui.shell.status import activity_words, phase_words


def trial(seconds: float, *, scores: int, difference: float = 1e-6) -> AttentionTrial:
    return AttentionTrial(
        max_scores=scores,
        contiguous=True,
        head_width=None,
        difference=difference,
        limit=1e-3,
        seconds=seconds,
        memory_bytes=2**30,
    )


def checked() -> DeviceCheck:
    return DeviceCheck(
        device="mps",
        device_name="Apple <M2>",
        operating_system="macOS 15.1 arm64",
        torch_version="2.13.0",
        checked_at=datetime(2026, 11, 28),
        format=CHECK_FORMAT,
        attention=(trial(0.2, scores=2**24), trial(0.1, scores=2**26), trial(0.01, scores=2**28, difference=0.5)),
        differences=(
            DeviceDifference(part="group norm", difference=1e-6, limit=1e-3, seconds=0.005),
            DeviceDifference(
                part="nearest upsampling", difference=1, limit=1e-3, consequence="it is computed on the CPU"
            ),
        ),
    )


def shown(view: EngineView) -> str:
    return str(Guard().parts({"The model": lambda: render(view, UserData(Path()))})["device"])


def test_each_part_has_its_difference_verdict_time_and_memory() -> None:
    html = shown(EngineView(phase="ready", device_check=checked()))
    rows = [row.split("</tr>")[0] for row in html.split("<tr>")]
    used = next(row for row in rows if "attention: chunks of 256 MiB" in row)
    assert all(words in used for words in ("1.0e-06", "correct, used", "100 ms", "1.0 GB"))
    assert "correct, used" not in next(row for row in rows if "chunks of 64 MiB" in row)
    assert ">wrong<" in next(row for row in rows if "chunks of 1024 MiB" in row)
    assert "wrong: it is computed on the CPU" in next(
        row for row in rows if "nearest upsampling" in row and "td" in row
    )


def test_names_of_devices_are_text() -> None:
    html = shown(EngineView(phase="ready", device_check=checked()))
    assert "Apple &lt;M2&gt; matches the CPU" in html
    assert "<M2>" not in html


def test_while_the_device_is_checked_it_says_what_is_being_compared() -> None:
    word, sentence = phase_words(EngineView(phase="loading", model="a model", device_part="group norm"))
    assert word == "Checking."
    assert sentence == "The device is being compared with the CPU, once: group norm."


def test_every_model_is_offered_with_what_a_press_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, user_data = tmp_path / "hub", UserData(tmp_path / "user_data")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    html = choices(EngineView(phase="ready"), user_data)
    assert re.findall('aria-label="(.+?)"', html) == ["Load shoes-demo", "Get Stable Diffusion 1.5"]
    assert "4.0 GB to download" in html
    assert "disabled" not in html
    assert "disabled" in choices(EngineView(phase="generating"), user_data)

    blobs = cache / f"models--{STABLE_DIFFUSION.replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "a.incomplete").write_bytes(bytes(30 * 2**20))
    html = choices(EngineView(phase="no model"), user_data)
    assert "3.9 GB to download, 30 MB arrived" in html
    assert ">Resume</button>" in html


def test_a_model_that_arrives_has_a_bar_and_no_button(tmp_path: Path) -> None:
    arrives = Downloading(file="unet", done_bytes=2**30, total_bytes=2**32, elapsed_seconds=60)
    html = choices(EngineView(phase="loading", model=STABLE_DIFFUSION, download=arrives), UserData(tmp_path))
    assert "1.0 GB of 4.0 GB, 3 min 00 s left" in html
    assert "width:25.0%" in html
    assert "data-model" in html and f'data-model="{STABLE_DIFFUSION}"' not in html


def choices(view: EngineView, user_data: UserData) -> str:
    return str(Guard().parts({"The model": lambda: render(view, user_data)})["model-choices"])


@pytest.mark.usefixtures("marked")
@pytest.mark.parametrize("phase", get_args(Phase))
def test_all_that_is_said_of_a_phase_is_in_the_pages_language(phase: Phase) -> None:
    view = EngineView(phase=phase, owner="7")
    said = [*phase_words(view), re.sub("<[^>]*>", "", activity_words(view))]
    assert all(words.startswith("⟦") for words in said)
    assert [re.sub("⟦[^⟧]*⟧|[:. ]", "", words) for words in said] == ["", "", ""]


@pytest.mark.usefixtures("marked")
def test_numbers_for_a_browser_are_written_as_it_reads_them_in_every_language(tmp_path: Path) -> None:
    arrives = Downloading(file="unet", done_bytes=2**30, total_bytes=2**32, elapsed_seconds=60)
    html = choices(EngineView(phase="loading", model=STABLE_DIFFUSION, download=arrives), UserData(tmp_path))
    assert "⟦1,0 GB of 4,0 GB⟧" in html
    assert "width:25.0%" in html
