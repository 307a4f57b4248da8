"""The engine process is really started, asked, cancelled, killed and started again."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import gradio as gr
import psutil
import pytest
from safetensors.numpy import load_file, save_file

from studio.core.errors import EngineError
from studio.core.paths import UserData
from studio.core.results import MadeImage
from studio.core.settings import (
    CompareSettings,
    GenerationSettings,
    ImagesSettings,
    LoraChoice,
    ModelSettings,
    SmokeSettings,
)
from studio.engine.process import view as view_module
from studio.engine.process.client import EngineClient
from studio.engine.process.messages import EVENTS, Cancel, Load, Smoke, to_line
from studio.engine.process.view import EngineView
from studio.images.tokens import TokenCounter
from studio.jobs.device_lock import DeviceLock
from studio.ui.shell.status import cancel_button

pytestmark = pytest.mark.process

QUICK = SmokeSettings(num_inference_steps=6)
SHOES = GenerationSettings(prompt="casual shoes", num_inference_steps=4)
LONG = SmokeSettings(num_inference_steps=150)


def wait_for(client: EngineClient, condition: Callable[[EngineView], bool], *, seconds: float = 90) -> EngineView:
    """The first view that fulfils the condition."""
    deadline = time.monotonic() + seconds
    while not condition(view := client.view):
        assert time.monotonic() < deadline, f"still {view.phase}: {view.problem}"
        time.sleep(0.02)
    return view


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Engines of tests that run side by side must not fight for the cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EngineClient]:
    """A started engine with the shipped model, shared: each test leaves it ready."""
    client = EngineClient(UserData(tmp_path_factory.mktemp("data")), model=ModelSettings(), cpu_only=True)
    client.start()
    wait_for(client, lambda view: view.phase == "ready")
    yield client
    client.stop()


def test_the_smoke_test_runs_in_the_engine_and_reports_all_the_way(client: EngineClient) -> None:
    previews: set[str] = set()

    def finished(view: EngineView) -> bool:
        previews.update(filter(None, [view.preview_png]))
        return view.report is not None and view.phase == "ready"

    client.run_smoke_test(QUICK)
    assert client.view.active
    view = wait_for(client, finished)
    assert view.report is not None
    assert view.report.report.passed
    assert view.report.report.settings == QUICK
    assert len(view.pictures) == 3
    assert previews, "previews were seen on the way"
    assert not view.active
    assert view.memory is not None


def test_a_busy_engine_says_what_it_is_doing(client: EngineClient) -> None:
    client.run_smoke_test(LONG)
    for ask in (lambda: client.run_smoke_test(QUICK), client.check_device, lambda: client.load(ModelSettings())):
        with pytest.raises(EngineError, match="the smoke test is running"):
            ask()
    client.cancel()
    wait_for(client, lambda view: view.phase == "ready")


def test_cancel_stops_within_a_step_and_keeps_the_report(client: EngineClient) -> None:
    client.run_smoke_test(LONG)
    wait_for(client, lambda view: view.step is not None and view.step.step >= 3)
    asked = time.monotonic()
    client.cancel()
    assert client.view.cancelling
    view = wait_for(client, lambda view: view.phase == "ready")
    assert time.monotonic() - asked < 5
    assert view.report is not None
    assert view.report.report.verdict.startswith("STOPPED: cancelled after 0 of 3 images")
    client._send(Cancel())  # a late one, for the run that is over
    client.run_smoke_test(QUICK)
    view = wait_for(client, lambda view: view.phase == "ready")
    assert view.report is not None
    assert view.report.report.passed, "a late cancel does not stop the next run"


def test_a_cancel_in_the_same_breath_as_the_request_is_heard(client: EngineClient) -> None:
    for _ in range(3):
        client.run_smoke_test(LONG)
        client.cancel()
        view = wait_for(client, lambda view: view.phase == "ready", seconds=20)
        assert view.report is not None
        assert view.report.report.cancelled
        assert not view.cancelling


def test_an_engine_that_does_not_hear_a_cancel_is_ended_by_the_next(
    client: EngineClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_module, "CANCEL_PATIENCE_SECONDS", 0.5)
    client.generate(ImagesSettings(generation=SHOES, num_images=60))
    pid = wait_for(client, lambda view: view.finished_pictures >= 1).pid
    psutil.Process(pid).suspend()
    client.cancel()
    asked = client.view
    assert cancel_button(asked, "generating") == gr.update(value="Cancel", interactive=False)
    client.cancel()
    assert client.view.pid == pid, "at once it is only asked again"
    wait_for(client, lambda view: view.ignores_cancel)
    stops = gr.update(value="Stop now (restarts the engine)", interactive=True)
    assert cancel_button(client.view, "generating") == stops
    client.cancel()
    view = wait_for(client, lambda view: view.phase == "ready")
    assert view.pid != pid
    assert not psutil.pid_exists(pid)
    assert "it was stopped and is starting again" in view.problem
    assert view.images is not None
    assert len(view.images.images) >= 1
    assert cancel_button(view, "generating") == gr.update(value="Cancel", interactive=False)


def test_the_engine_keeps_the_device_while_it_lives(client: EngineClient) -> None:
    lock = DeviceLock(client._user_data.device_lock)
    assert not lock.acquire("a training run")
    assert str(lock.owner()) == f"LoRA Studio's page (process {client.view.pid})"


def test_a_refused_load_changes_nothing(client: EngineClient, tmp_path: Path) -> None:
    client.run_smoke_test(LONG)
    with pytest.raises(EngineError, match="cannot load a model now"):
        client.load(ModelSettings(model=str(tmp_path)))
    pid = client.view.pid
    assert pid is not None
    psutil.Process(pid).kill()
    view = wait_for(client, lambda view: view.phase == "ready" and view.pid != pid)
    assert view.model == "shoes-demo", "it came back with the model it had"


def test_the_device_check_is_told_and_kept(client: EngineClient) -> None:
    client.check_device()
    view = wait_for(client, lambda view: view.phase == "ready")
    assert view.device_check is not None
    assert "no other device" in view.device_check.sentence


def test_a_model_that_fails_while_it_loads_gives_its_place_back(client: EngineClient, model_copy: Path) -> None:
    file = model_copy / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    del weights["conv_in.weight"]
    save_file(weights, file)
    client.load(ModelSettings(model=str(model_copy)))
    view = wait_for(client, lambda view: view.phase != "loading" and view.problem != "")
    assert (view.phase, view.model) == ("ready", "shoes-demo")
    assert view.facts is not None
    assert view.facts.model == "shoes-demo"
    assert "The U-Net in" in view.problem
    assert view.problem.endswith("shoes-demo, which was loaded before, is loaded again.")
    client.run_smoke_test(QUICK)
    view = wait_for(client, lambda view: view.phase == "ready")
    assert view.report is not None
    assert view.report.report.passed
    assert view.problem == ""


def test_an_event_cut_short_by_a_kill_is_left_out(client: EngineClient) -> None:
    code = 'import sys; sys.stdout.write(\'{"kind":"starting"}\\n{"kind":"loa\'); sys.stdout.flush()'
    other = EngineClient(client._user_data, model=ModelSettings(), cpu_only=True)
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    other._process = process
    other._listen(process)
    assert other.view.phase == "gone"
    assert "it ended with code 0" in other.view.problem


def test_a_killed_engine_is_told_of_and_comes_back(client: EngineClient) -> None:
    client.run_smoke_test(LONG)
    queued = ImagesSettings(generation=SHOES)
    client.generate(queued)
    pid = wait_for(client, lambda view: view.step is not None).pid
    assert pid is not None
    psutil.Process(pid).kill()
    view = wait_for(client, lambda view: "stopped" in view.problem)
    assert "The engine stopped during the smoke test: it was killed" in view.problem
    view = wait_for(client, lambda view: view.phase == "ready")
    assert view.pid != pid
    assert view.images is not None
    assert (view.images.settings, len(view.images.images)) == (queued, 1), "what waited behind it is made"
    assert "it was killed" in view.problem
    client.run_smoke_test(QUICK)
    view = wait_for(client, lambda view: view.phase == "ready")
    assert view.report is not None
    assert view.report.report.passed


def test_a_new_client_finds_the_last_report(client: EngineClient) -> None:
    client.run_smoke_test(QUICK)
    report = wait_for(client, lambda view: view.phase == "ready").report
    later = EngineClient(client._user_data, model=ModelSettings(), cpu_only=True)
    assert later.view.report == report


def test_an_engine_that_cannot_start_says_so_and_is_not_started_for_ever(tmp_path: Path) -> None:
    (tmp_path / "device.json").mkdir()  # where the owner of the device is written: the engine fails at once
    client = EngineClient(UserData(tmp_path), model=ModelSettings(), cpu_only=True)
    client.start()
    view = wait_for(client, lambda view: view.phase == "gone")
    assert "it ended with code 1" in view.problem
    time.sleep(0.5)
    assert client.view.phase == "gone"
    (tmp_path / "device.json").rmdir()
    client.start()
    wait_for(client, lambda view: view.phase == "ready")
    client.stop()


def test_a_second_studio_waits_for_the_device_and_says_for_whom(tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    lock = DeviceLock(user_data.device_lock)
    assert lock.acquire("a training run")
    client = EngineClient(user_data, model=ModelSettings(), cpu_only=True)
    client.start()
    view = wait_for(client, lambda view: view.phase == "waiting")
    assert view.owner == f"a training run (process {os.getpid()})"
    lock.release()
    wait_for(client, lambda view: view.phase == "ready")
    client.stop()


def test_stop_ends_the_process(tmp_path: Path) -> None:
    client = EngineClient(UserData(tmp_path), model=ModelSettings(), cpu_only=True)
    client.start()
    pid = client.view.pid
    assert pid is not None
    client.stop()
    assert not psutil.pid_exists(pid)
    assert client.view.phase == "off"


def engine_alone(user_data: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "studio.engine.process.worker", "--user-data", str(user_data), "--cpu"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def test_the_engine_leaves_when_the_page_is_gone_even_in_mid_run(tmp_path: Path) -> None:
    engine = engine_alone(tmp_path)
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdin.write(to_line(Load(settings=ModelSettings())) + to_line(Smoke(settings=LONG)))
    engine.stdin.flush()
    kinds = []
    while "step" not in kinds:
        kinds.append(EVENTS.validate_json(engine.stdout.readline()).kind)
    assert kinds == ["starting", "loading", "loaded", "step"]
    engine.stdin.close()  # what the system does when the page's process dies
    assert engine.wait(timeout=20) == 0


def test_what_libraries_print_does_not_get_among_the_events(tmp_path: Path, model_copy: Path) -> None:
    engine = engine_alone(tmp_path)
    assert engine.stdin is not None
    assert engine.stdout is not None
    engine.stdin.write(to_line(Load(settings=ModelSettings(model=str(model_copy)))))
    engine.stdin.flush()
    assert [EVENTS.validate_json(engine.stdout.readline()).kind for _ in range(3)] == [
        "starting",
        "loading",
        "loaded",
    ]
    rest, _ = engine.communicate(timeout=30)
    assert rest == b""


def test_pictures_are_generated_reported_one_by_one_and_kept(client: EngineClient) -> None:
    seen: set[int] = set()

    def finished(view: EngineView) -> bool:
        seen.add(len(view.images.images) if view.images else -1)
        return view.phase == "ready"

    client.generate(ImagesSettings(generation=SHOES, num_images=2))
    assert client.view.phase == "generating"
    view = wait_for(client, finished)
    assert view.images is not None
    assert view.images.finished
    assert [image.path.is_file() for image in view.images.images if isinstance(image, MadeImage)] == [True, True]
    assert seen >= {0, 2}


def test_cancelling_pictures_keeps_those_that_are_finished(client: EngineClient) -> None:
    client.generate(ImagesSettings(generation=SHOES, num_images=60))
    wait_for(client, lambda view: view.finished_pictures >= 1)
    client.cancel()
    view = wait_for(client, lambda view: view.phase == "ready")
    assert view.images is not None
    assert view.images.cancelled
    assert 1 <= len(view.images.images) < 60
    assert not view.cancelling


def test_an_unknown_lora_is_told_and_the_next_pictures_are_made(client: EngineClient) -> None:
    client.generate(ImagesSettings(generation=SHOES.model_copy(update={"loras": (LoraChoice(name="nosuch"),)})))
    view = wait_for(client, lambda view: view.phase == "ready")
    assert "There is no LoRA named nosuch" in view.problem
    client.generate(ImagesSettings(generation=SHOES))
    assert wait_for(client, lambda view: view.phase == "ready").problem == ""


def test_a_comparison_is_told_as_it_grows_and_found_by_the_next_client(client: EngineClient) -> None:
    settings = CompareSettings(prompts=("boots",), generation=SHOES, right=(LoraChoice(name="white-ground"),))
    counts: set[int] = set()

    def finished(view: EngineView) -> bool:
        counts.add(view.finished_pictures)
        return view.phase == "ready"

    client.compare(settings)
    view = wait_for(client, finished)
    assert view.comparison is not None
    assert view.comparison.report.finished
    assert 1 in counts
    again = EngineClient(client._user_data, model=ModelSettings(), cpu_only=True)
    assert again.view.comparison == view.comparison


def test_a_lora_is_checked_against_the_loaded_model(client: EngineClient) -> None:
    client.check_lora("white-ground")
    client.check_lora("nosuch")
    view = wait_for(client, lambda view: len(view.lora_checks) == 2)
    assert "108 of the U-Net" in view.lora_checks["white-ground"].changes
    assert "There is no LoRA" in view.lora_checks["nosuch"].problem


def test_the_tokenizer_of_the_loaded_model_is_there_for_the_page(client: EngineClient) -> None:
    file = client.view.tokenizer_file
    assert file is not None
    assert TokenCounter(file).count("red canvas sneakers").num_tokens == 3


def test_a_model_that_is_not_found_leaves_the_one_before_loaded(client: EngineClient) -> None:
    client.load(ModelSettings(model="/nowhere"))
    view = wait_for(client, lambda view: view.phase != "loading")
    assert view.phase == "ready"
    assert view.facts is not None
    assert view.facts.model == "shoes-demo"
    assert "There is no model folder or file /nowhere" in view.problem


def test_an_idle_engine_makes_room_for_who_waits_and_comes_back_after(tmp_path: Path) -> None:
    user_data = UserData(tmp_path / "data")
    client = EngineClient(user_data, model=ModelSettings(), cpu_only=True)
    client.start()
    try:
        first = wait_for(client, lambda view: view.phase == "ready").pid
        code = (
            "import sys, time; from pathlib import Path; from studio.jobs.device_lock import DeviceLock\n"
            "lock = DeviceLock(Path(sys.argv[1])); lock.ask_for('training shoes')\n"
            "while not lock.acquire('training shoes'): time.sleep(0.1)\n"
            "lock.withdraw(); print('mine', flush=True); sys.stdin.read()\n"
        )
        trainer = subprocess.Popen(
            [sys.executable, "-c", code, str(user_data.device_lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == b"mine\n"
        waiting = wait_for(client, lambda view: view.phase == "waiting" and view.pid != first)
        assert "training shoes" in waiting.owner
        assert waiting.problem == ""
        trainer.communicate()
        again = wait_for(client, lambda view: view.phase == "ready")
        assert again.pid != first
    finally:
        client.stop()
