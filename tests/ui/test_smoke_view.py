"""The page says what is going on, whatever it still shows of the last run."""

from pathlib import Path

import pytest

from studio.core.paths import UserData
from studio.core.results import SavedReport
from studio.core.settings import SHIPPED_MODEL, SmokeSettings
from studio.core.system import MemorySample
from studio.core.text import duration
from studio.engine.generation import run_smoke_test
from studio.engine.pipeline import PipelineManager
from studio.engine.process.view import EngineView, Phase, size_note
from studio.ui.inference.smoke import card, details, verdict
from studio.ui.shell import engine_panel
from studio.ui.shell.parts import Guard
from studio.ui.shell.status import activity_words, memory_words, model_words


@pytest.fixture(scope="module")
def saved(manager: PipelineManager, tmp_path_factory: pytest.TempPathFactory) -> SavedReport:
    settings = SmokeSettings(num_inference_steps=4)
    return run_smoke_test(manager, settings, outputs=tmp_path_factory.mktemp("outputs"))


PHASES: dict[Phase, str] = {
    "off": "Not running.",
    "starting": "Starting.",
    "waiting": "Waiting.",
    "loading": "Loading.",
    "device check": "Checking.",
    "no model": "No model.",
    "gone": "Stopped.",
}


@pytest.mark.parametrize("phase", PHASES)
def test_the_phase_comes_first_and_the_last_verdict_stays_below(saved: SavedReport, phase: Phase) -> None:
    words = verdict(EngineView(phase=phase, report=saved))
    assert words.index(PHASES[phase]) < words.index("PASS:")


def test_an_old_verdict_is_not_shown_over_a_running_test(saved: SavedReport) -> None:
    words = verdict(EngineView(phase="smoke test", report=saved))
    assert "Running." in words
    assert "PASS" not in words


def test_a_problem_is_told_until_the_next_run(saved: SavedReport) -> None:
    assert "The engine stopped" in verdict(EngineView(phase="ready", report=saved, problem="The engine stopped."))


def test_a_raised_precision_is_told_beside_the_verdict(saved: SavedReport) -> None:
    facts = saved.report.engine
    raised = facts.precision.model_copy(update={"requested": "float16", "reason": "float16 was asked for, but"})
    view = EngineView(phase="ready", facts=facts.model_copy(update={"precision": raised}))
    assert "float16 was asked for, but" in verdict(view)


def test_a_card_shows_the_picture_its_facts_and_its_checks(saved: SavedReport) -> None:
    shown = card(EngineView(phase="ready", report=saved), 1)
    assert 'src="data:image/png;base64,' in shown
    for words in ("128 × 128 × 3", "uint8", "latents", "decoded", "image", "finite through all 4 steps"):
        assert words in shown


def test_a_picture_whose_file_is_gone_is_said_to_be_gone(saved: SavedReport, tmp_path: Path) -> None:
    shown = card(EngineView(phase="ready", report=saved.model_copy(update={"folder": tmp_path})), 0)
    assert "1.png is no longer in its folder" in shown


def test_the_tables_tell_time_memory_settings_and_versions(saved: SavedReport) -> None:
    shown = details(saved)
    for words in ("Mean", "Minimum", "Maximum", "Before loading", "Peak", "Guidance", "diffusers"):
        assert words in shown


def test_the_status_line_tells_model_device_and_precision(saved: SavedReport) -> None:
    view = EngineView(phase="ready", facts=saved.report.engine)
    words = model_words(view)
    assert "shoes-demo" in words
    assert "CPU" in words
    assert "float32" in words
    panel = Guard().parts({"The model": lambda: engine_panel.render(view, UserData(Path("nowhere")))})
    assert "because the CPU computes half precision" in panel["device"]


def test_a_gpus_own_memory_is_told_beside_the_systems(saved: SavedReport) -> None:
    memory = MemorySample(
        process_bytes=1,
        system_available_bytes=1,
        system_total_bytes=2,
        accelerator_allocated_bytes=5 * 2**30,
        accelerator_limit_bytes=24 * 2**30,
    )
    view = EngineView(phase="ready", facts=saved.report.engine, memory=memory)
    assert "GPU <b>5.0 of 24.0 GB</b>" in memory_words(view)
    assert "GPU" not in memory_words(EngineView(phase="ready", facts=saved.report.engine))


def test_the_owner_of_the_device_is_text_and_not_markup() -> None:
    view = EngineView(phase="waiting", owner="<script>")
    assert "<script>" not in verdict(view) + activity_words(view)


def test_who_has_the_device_is_named_once() -> None:
    view = EngineView(phase="waiting", owner="training shoes (process 7)")
    assert "waiting for the device: training shoes (process 7) has it" in activity_words(view)
    assert "engine waits" in activity_words(view, owner_is_told=True)


def test_a_large_size_says_what_it_takes_by_the_pace_of_the_last_image(saved: SavedReport) -> None:
    view = EngineView(phase="ready", model=SHIPPED_MODEL, report=saved)
    own = saved.report.engine.width
    picture = saved.report.valid_pictures[-1]
    num_steps = len(picture.timings.step_seconds)
    said = size_note(view, SHIPPED_MODEL, width=4 * own, height=2 * own, num_steps=3 * num_steps)
    took = 8 * 3 * picture.timings.total_seconds  # eight times the pixels, three times the steps
    assert f"is 8 times the area of the model's own {own} × {own}: an image takes at least {duration(took)}," in said
    assert size_note(view, SHIPPED_MODEL, width=2 * own, height=2 * own - 8, num_steps=4) == ""


def test_without_an_image_to_go_by_a_large_size_says_how_much_more_it_takes() -> None:
    said = size_note(EngineView(), SHIPPED_MODEL, width=512, height=512, num_steps=25)
    assert said == (
        "512 × 512 is 16 times the area of the model's own 128 × 128: an image takes at least 16 times as long, and "
        "about 0.1 GB of memory beside the model (an estimate)."
    )


def test_a_training_says_it_of_its_images_and_leads_to_the_preflight() -> None:
    said = size_note(EngineView(), "stable-diffusion-v1-5/stable-diffusion-v1-5", width=1024, height=1024)
    assert said == (
        "1024 × 1024 is 4 times the area of the model's own 512 × 512: each training image takes at least 4 times the "
        "time and memory of one of that size (an estimate). “Preflight” measures them."
    )
