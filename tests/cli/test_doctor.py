"""The doctor: each judgement with values, each check on something real that is whole or broken."""

import json
import os
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from typer.testing import CliRunner

from studio.cli import doctor
from studio.cli import doctor_checks as checks
from studio.cli.app import app
from studio.core.paths import CHECKOUT_FOLDER, UserData, assets_folder
from studio.core.results import DeviceCheck, DeviceDifference
from studio.core.settings import SHIPPED_MODEL, ModelSettings
from studio.core.text import GIB
from studio.jobs.device_lock import DeviceLock

# What every model folder in diffusers' layout holds.
MODEL_FILES = [
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer_config.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
]


@pytest.fixture
def whole_model(tmp_path: Path) -> Path:
    """A copy of the shipped model, to be broken."""
    return Path(shutil.copytree(assets_folder() / SHIPPED_MODEL, tmp_path / SHIPPED_MODEL))


class Answer(BaseHTTPRequestHandler):
    """Answers HEAD with the status that its server was given."""

    status = 200

    def do_HEAD(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server that answers HEAD; no proxy stands before it."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()  # a session that another test made has read the proxies already
    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()
    huggingface_hub.close_session()


def closed_address() -> str:
    """An address on this machine where nobody listens."""
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        return f"http://127.0.0.1:{server.server_port}"


def test_python_3_10_is_a_problem_and_3_11_is_not() -> None:
    assert doctor.judge_python((3, 10, 14)).state == "problem"
    assert doctor.judge_python((3, 11, 0)).state == "ok"
    assert doctor.judge_python((4, 0, 0)).state == "ok"


def test_a_missing_package_is_a_problem_that_says_how_to_install_it() -> None:
    missing = doctor.judge_package("torch", doctor.installed_version("torch-of-another-world"), floor="2.10")
    assert missing.state == "problem"
    assert missing.seen == "not installed; 2.10 or newer is needed"
    assert 'pip install "torch>=2.10"' in missing.advice


@pytest.mark.parametrize("installed", ["2.9.1", "2.9.1+cu128", "1.13"])
def test_an_old_package_is_a_problem(installed: str) -> None:
    assert doctor.judge_package("torch", installed, floor="2.10").state == "problem"


@pytest.mark.parametrize("installed", ["2.10", "2.10.0+cpu", "2.13.0", "3.0", "2.11.0rc1"])
def test_a_package_at_or_above_its_floor_is_well(installed: str) -> None:
    assert doctor.judge_package("torch", installed, floor="2.10").state == "ok"


@pytest.mark.process
def test_the_doctor_itself_works_where_packages_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doctor.FLOORS, "torch-of-another-world", "1.0")
    diagnosis = doctor.examine(ModelSettings(), user_data=UserData(tmp_path), cpu_only=True)
    assert [finding.name for finding in diagnosis.findings] == ["System", "Python", *doctor.FLOORS]
    assert diagnosis.sentence == "1 problem: see the items marked ✗."
    program = "import sys, studio.cli.app; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {name.replace("-", "_") for name in doctor.FLOORS} & {*loaded}


def test_the_floors_are_those_of_pyproject() -> None:
    dependencies = tomllib.loads((CHECKOUT_FOLDER / "pyproject.toml").read_text())["project"]["dependencies"]
    floors = {name: rest.partition(",")[0] for name, _, rest in (line.partition(">=") for line in dependencies)}
    assert {name: floors[name] for name in doctor.FLOORS} == doctor.FLOORS


def test_a_cpu_is_a_note_unless_it_was_asked_for() -> None:
    assert checks.judge_device("cpu", "CPU", cpu_only=False).state == "note"
    assert checks.judge_device("cpu", "CPU", cpu_only=True).state == "ok"
    assert checks.judge_device("mps", "Apple GPU", cpu_only=False).state == "ok"


def test_macos_before_14_is_a_note() -> None:
    assert checks.judge_macos("13.7.1").state == "note"
    assert checks.judge_macos("14.0").state == "ok"
    assert checks.judge_macos("26.1").state == "ok"


def device_check(difference: float) -> DeviceCheck:
    return DeviceCheck(
        device="mps",
        device_name="Apple GPU",
        operating_system="macOS 15.1 arm64",
        torch_version="2.13.0",
        checked_at="2026-01-01T00:00:00Z",
        differences=(DeviceDifference(part="UNet steps", difference=difference, limit=1e-2),),
    )


def test_a_device_that_computes_wrongly_is_a_problem_and_an_unchecked_one_a_note() -> None:
    assert checks.judge_device_check("mps", None).state == "note"
    assert checks.judge_device_check("mps", device_check(1e-5)).state == "ok"
    assert checks.judge_device_check("cpu", None).state == "ok"
    wrong = checks.judge_device_check("mps", device_check(float("nan")))
    assert wrong.state == "problem"
    assert "--cpu" in wrong.advice


@pytest.mark.parametrize(
    ("available_gib", "shipped_model", "state"),
    [
        (0.9, True, "problem"),
        (1.1, True, "note"),
        (3.9, True, "note"),
        (3.9, False, "problem"),
        (4.1, False, "note"),
        (8.1, False, "ok"),
        (8.1, True, "ok"),
    ],
)
def test_memory_is_judged_by_the_model_that_is_asked_for(
    available_gib: float, shipped_model: bool, state: doctor.State
) -> None:
    found = checks.judge_memory(
        available_bytes=int(available_gib * GIB), total_bytes=16 * GIB, shipped_model=shipped_model
    )
    assert found.state == state
    assert f"{available_gib:.1f} GB of 16.0 GB" in found.seen


def test_a_full_disk_is_a_problem_and_a_nearly_full_one_a_note(tmp_path: Path) -> None:
    states = [checks.judge_disk(gib * GIB // 2, folder=tmp_path).state for gib in (1, 3, 21)]
    assert states == ["problem", "note", "ok"]


def test_a_folder_that_can_be_written_is_well_and_left_as_it_was(tmp_path: Path) -> None:
    assert checks.check_writable(tmp_path).state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_a_problem(tmp_path: Path) -> None:
    file = tmp_path / "file"  # in place of a folder: root may write into any folder
    file.touch()
    found = checks.check_writable(file)
    assert found.state == "problem"
    assert "--user-data" in found.advice


def test_user_data_that_is_not_made_yet_is_tried_where_it_would_be_made(tmp_path: Path) -> None:
    assert checks.existing_folder(tmp_path / "not" / "yet") == tmp_path
    assert checks.existing_folder(tmp_path) == tmp_path


def test_the_shipped_model_is_whole() -> None:
    assert checks.check_model_files("Shipped model", assets_folder() / SHIPPED_MODEL).state == "ok"


@pytest.mark.parametrize("file", MODEL_FILES)
def test_a_missing_model_file_is_named(whole_model: Path, file: str) -> None:
    (whole_model / file).unlink()
    found = checks.check_model_files("Shipped model", whole_model)
    assert found.state == "problem"
    assert Path(file).name in found.seen


@pytest.mark.parametrize("file", MODEL_FILES)
def test_a_model_file_cut_short_is_named(whole_model: Path, file: str) -> None:
    content = (whole_model / file).read_bytes()
    (whole_model / file).write_bytes(content[:-2])
    found = checks.check_model_files("Shipped model", whole_model)
    assert found.state == "problem"
    assert Path(file).name in found.seen
    assert str(whole_model) in found.advice


def test_a_tokenizer_may_come_in_either_form_and_must_be_whole(whole_model: Path) -> None:
    (whole_model / "tokenizer/tokenizer.json").unlink()
    assert checks.check_model_files("Shipped model", whole_model).state == "ok"
    vocabulary = whole_model / "tokenizer/vocab.json"
    vocabulary.write_bytes(vocabulary.read_bytes()[:-2])
    assert "vocab.json cannot be read" in checks.check_model_files("Shipped model", whole_model).seen
    vocabulary.unlink()
    assert checks.check_model_files("Shipped model", whole_model).seen == "tokenizer/tokenizer.json is missing"


def test_a_model_file_that_git_lfs_left_as_a_pointer_is_named(whole_model: Path) -> None:
    (whole_model / "vae/diffusion_pytorch_model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    found = checks.check_model_files("Shipped model", whole_model)
    assert found.state == "problem"
    assert found.seen.startswith("vae/diffusion_pytorch_model.safetensors cannot be read")


def test_a_model_folder_is_checked_and_a_missing_one_is_a_problem(whole_model: Path) -> None:
    assert checks.check_model(str(whole_model), online=False).state == "ok"
    shutil.rmtree(whole_model)
    assert checks.check_model(str(whole_model), online=True).state == "problem"
    for name in ("no-such-model", "no/such/model", "no/such model"):
        assert checks.check_model(name, online=True).state == "problem"


def test_a_model_that_is_not_downloaded_fails_only_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    name = "nobody/no-such-model"
    assert checks.check_model(name, online=True).state == "note"
    offline = checks.check_model(name, online=False)
    assert offline.state == "problem"
    assert "cannot be reached" in offline.seen


def test_a_hub_that_answers_means_online(loopback: str) -> None:
    found = checks.check_connection(loopback, offline_mode=False)
    assert (found.state, found.seen) == ("ok", f"online: {loopback} answers")


def test_a_hub_out_of_order_is_a_note(loopback: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answer, "status", 503)
    found = checks.check_connection(loopback, offline_mode=False)
    assert found.state == "note"
    assert "503" in found.seen


def test_a_hub_that_does_not_answer_means_offline_and_says_what_still_works() -> None:
    found = checks.check_connection(closed_address(), offline_mode=False)
    assert found.state == "note"
    assert found.seen.startswith("offline: ")
    assert found.advice == "The shipped model and models that are already downloaded work; new downloads do not."


def test_an_address_that_is_none_means_offline() -> None:
    assert checks.check_connection("http://[", offline_mode=False).state == "note"
    assert checks.check_connection("huggingface.co", offline_mode=False).state == "note"
    assert checks.check_connection("http://\0", offline_mode=False).state == "note"


def test_a_proxy_of_an_unknown_kind_means_offline_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks://me:secret@127.0.0.1:9/")
    monkeypatch.setenv("no_proxy", "localhost")
    found = checks.check_connection("http://127.0.0.1:9", offline_mode=False)
    known = "http://, https://, socks5://, socks5h://"
    assert found.seen == f"offline: the proxy in ALL_PROXY must begin with one of {known}, got socks://"
    assert found.advice.startswith("Correct or unset it. The shipped model")


def test_offline_mode_asks_nobody(loopback: str) -> None:
    found = checks.check_connection(loopback, offline_mode=True)
    assert found.state == "note"
    assert "HF_HUB_OFFLINE" in found.seen


def test_a_device_that_another_studio_holds_is_a_note_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "device.lock"
    assert checks.device_holder(path) is None
    lock = DeviceLock(path)
    assert lock.acquire("the other studio")
    found = checks.judge_device_lock(checks.device_holder(path))
    assert (found.state, found.seen) == ("note", f"held by the other studio (process {os.getpid()})")
    lock.release()
    assert checks.judge_device_lock(checks.device_holder(path)).state == "ok"
    assert lock.acquire("again"), "the doctor kept the device"
    lock.release()


def test_the_text_is_aligned_and_ends_with_a_sentence() -> None:
    diagnosis = doctor.Diagnosis(
        findings=(
            doctor.ok("Python", "3.11.7"),
            doctor.note("Connection", "offline", "Go online."),
            doctor.problem("Disk", "full", "Free some."),
        )
    )
    assert doctor.to_text(diagnosis).splitlines() == [
        "✓ Python      3.11.7",
        "! Connection  offline",
        "              Go online.",
        "✗ Disk        full",
        "              Free some.",
        "",
        "1 problem: see the items marked ✗.",
    ]


def test_notes_alone_leave_it_healthy() -> None:
    diagnosis = doctor.Diagnosis(findings=(doctor.note("Connection", "offline", "Go online."),))
    assert diagnosis.healthy
    assert diagnosis.sentence == "Nothing fails; 1 note is marked !."


@pytest.mark.process
def test_doctor_exits_with_0_and_prints_json_where_nothing_fails(tmp_path: Path) -> None:
    """A fresh process, offline by HF_ENDPOINT: all that it needs it imports by itself."""
    command = [sys.executable, "-m", "studio", "doctor", "--json", "--cpu", "--user-data", str(tmp_path)]
    environment = {**os.environ, "HF_ENDPOINT": closed_address()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    states = {finding["name"]: finding["state"] for finding in json.loads(done.stdout)["findings"]}
    assert states["Connection"] == "note"
    assert states["torch"] == states["Shipped model"] == states["User data"] == "ok"
    assert list(tmp_path.iterdir()) == []


def test_doctor_exits_with_1_where_something_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")
    file = tmp_path / "file"
    file.touch()
    done = CliRunner().invoke(app, ["doctor", "--cpu", "--user-data", str(file)])
    assert done.exit_code == 1, done.output
    assert f"✗ User data        {file} cannot be written" in done.output
    assert "1 problem" in done.output
