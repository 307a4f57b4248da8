"""studio.bench: its arithmetic with values, its report, and each bench's working parts run for real, but small.

No test here asserts how long anything took: that is what the bench itself is for, on a quiet machine.
"""

import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from diffusers import PNDMScheduler

from bench import suite
from bench.cold_start import picture_seconds
from bench.command import run_bench
from bench.figures import Figure, measure_pairs, paired_figure, plain_figure, spread
from bench.generation import PICTURE_LIMIT, Contest, compare, largest_difference, prepare_contest
from bench.memory import measure_peak
from bench.peak_memory import peak_process_bytes
from bench.processes import started_python
from bench.real_size_model import make_scheduler, make_text_encoder, make_unet, make_vae, real_size_model
from bench.report import figure_row, machine_rows, to_markdown
from bench.settings import BENCH_NAMES, BenchSettings
from bench.startup import import_seconds, page_seconds
from bench.suite import BENCHES, Bench, BenchResult, run_benches
from bench.validation_cost import validation_seconds
from studio.core.errors import EngineError, SettingsError, StudioError
from studio.core.paths import UserData, assets_folder
from studio.core.settings import SHIPPED_MODEL, GenerationSettings, SmokeSettings, parse_settings
from studio.jobs.device_lock import DeviceLock

MIB = 2**20


@pytest.fixture(scope="module")
def contest(tmp_path_factory: pytest.TempPathFactory) -> Contest:
    """The shipped model on both sides. Do not break it."""
    return prepare_contest(SHIPPED_MODEL, num_inference_steps=6, cpu=True, rejected=tmp_path_factory.mktemp("rejected"))


@pytest.fixture
def user_data(tmp_path: Path) -> UserData:
    return UserData(tmp_path / "user_data")


@pytest.fixture
def failing_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python that is started ends at once with code 1."""
    false = shutil.which("false")
    assert false is not None
    monkeypatch.setattr(sys, "executable", false)


def kept(limit: float = 2.0) -> Figure:
    return plain_figure("later images", [1.0, 1.5, 1.25], unit="s", limit=limit)


def missed() -> Figure:
    return paired_figure("an image", [3.0], [2.0], peer="plain diffusers", unit="s", limit=1.02)


def test_a_ratio_is_the_median_of_the_pairs_ratios_not_the_ratio_of_the_medians() -> None:
    figure = paired_figure("an image", [1.0, 30.0, 4.0], [2.0, 10.0, 1.0], peer="peer", unit="s", limit=3.0)
    assert figure.peer is not None
    assert figure.peer.ratio == spread([0.5, 3.0, 4.0])
    assert (figure.peer.ratio.median, figure.peer.ratio.least, figure.peer.ratio.greatest) == (3.0, 0.5, 4.0)
    assert (figure.ours.median, figure.peer.theirs.median) == (4.0, 2.0)


def test_a_limit_holds_for_the_ratio_where_there_is_a_peer_and_for_ours_where_there_is_none() -> None:
    assert paired_figure("", [102.0], [100.0], peer="peer", unit="s", limit=1.02).reached
    assert not paired_figure("", [103.0], [100.0], peer="peer", unit="s", limit=1.02).reached
    assert plain_figure("", [2.0], unit="s", limit=2.0).reached
    assert not plain_figure("", [2.01], unit="s", limit=2.0).reached
    assert not plain_figure("", [1.0, 2.01, 3.0], unit="s", limit=2.0).reached
    assert plain_figure("", [1.0, 2.0, 3.0], unit="s", limit=2.0).reached
    assert not plain_figure("", [float("nan")], unit="s", limit=2.0).reached


def test_values_without_a_partner_are_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_figure("", [1.0, 2.0], [1.0], peer="peer", unit="s", limit=1.0)


def test_pairs_take_turns_in_who_goes_first() -> None:
    order: list[str] = []

    def measure(side: str) -> float:
        order.append(side)
        return float(len(order))

    ours, theirs = measure_pairs(lambda: measure("A"), lambda: measure("B"), pairs=3)
    assert "".join(order) == "ABBAAB"
    assert (ours, theirs) == ([1, 4, 5], [2, 3, 6])


def test_settings_run_every_bench_that_was_not_left_out() -> None:
    assert BenchSettings().names == BENCH_NAMES
    assert "real-size" not in BenchSettings(real_size=False).names
    assert BenchSettings(only=("shipped", "startup")).names == ("startup", "shipped")
    assert tuple(BENCHES) == BENCH_NAMES


def test_an_unknown_bench_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(SettingsError, match=r"Only .*'startup'.*'real-size'.*got 'haste'"):
        parse_settings(BenchSettings, {"only": ("haste",)})


def test_a_figure_with_a_peer_is_one_line_of_the_report() -> None:
    assert figure_row("shipped", missed()) == (
        "shipped",
        "an image",
        "3 s",
        "plain diffusers",
        "2 s",
        "1.500 (1.500 to 1.500)",
        "1.02 ×",
        "no",
    )


def test_a_figure_without_a_peer_shows_its_own_spread() -> None:
    row = figure_row("cold-start", kept())
    assert row == ("cold-start", "later images", "1.25 s (1 to 1.5)", "–", "–", "–", "2 s", "yes")


def test_the_page_names_command_machine_figures_and_method() -> None:
    page = to_markdown(
        [BenchResult("shipped", "Both sides | in turns.", (kept(), missed()))],
        BenchSettings(only=("shipped",), runs=7, cpu=True),
        machine=(("Processor", "Some | Processor"),),
        measured_at=datetime(2026, 1, 31),
    )
    assert "`python -m studio bench --only shipped --runs 7 --cpu` wrote this page on 2026-01-31." in page
    assert "| Processor | Some \\| Processor |" in page
    assert "| shipped | an image | 3 s | plain diffusers | 2 s | 1.500 (1.500 to 1.500) | 1.02 × | no |" in page
    assert "- **shipped**: Both sides | in turns." in page


def test_the_machine_is_named() -> None:
    rows = dict(machine_rows(cpu_only=True))
    assert rows["Device"] == "CPU (cpu)"
    assert rows["torch"] == torch.__version__
    assert all(rows[name] for name in ("Processor", "Cores", "Memory", "system", "python", "lora-studio"))


@pytest.mark.parametrize(("figure", "expected"), [(kept(), True), (missed(), False)])
def test_a_run_tells_whether_every_limit_was_kept_and_writes_its_page(
    figure: Figure,
    expected: bool,
    user_data: UserData,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    benches = {"startup": Bench(lambda _settings, _user_data: (kept(), figure), "Not at all.")}
    monkeypatch.setattr(suite, "BENCHES", benches)
    page = tmp_path / "BENCHMARKS.md"
    settings = BenchSettings(only=("startup",), cpu=True)
    assert run_bench(settings, user_data=user_data, output=page) is expected
    assert page.read_text(encoding="utf-8") in capsys.readouterr().out
    assert figure.name in page.read_text(encoding="utf-8")


def test_nothing_is_measured_while_another_process_has_the_device(user_data: UserData) -> None:
    lock = DeviceLock(user_data.device_lock)
    assert lock.acquire("a training")
    with pytest.raises(EngineError, match="in use by a training"):
        run_benches(BenchSettings(), user_data)
    lock.release()


def test_the_real_size_is_that_of_stable_diffusion_1_5() -> None:
    with torch.device("meta"):
        parts = (make_unet(), make_vae(), make_text_encoder())
    sizes = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    assert sizes == [859_520_964, 83_653_863, 123_060_480]
    assert parts[0].config.sample_size == 64
    assert parts[0].config.attention_head_dim == 8
    assert parts[1].config.scaling_factor == 0.18215


def test_the_real_size_has_stable_diffusion_1_5s_scheduler() -> None:
    scheduler = make_scheduler()
    assert isinstance(scheduler, PNDMScheduler)
    assert float(scheduler.alphas_cumprod[-1]) == pytest.approx(0.0046602, rel=1e-4)
    scheduler.set_timesteps(2)
    assert scheduler.timesteps.tolist() == [501, 1, 1]


def test_a_disk_without_room_for_the_real_size_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.real_size_model.NEEDED_BYTES", 2**60)
    with pytest.raises(StudioError, match="--no-real-size"), real_size_model(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_generate_and_plain_diffusers_make_the_same_picture_of_the_shipped_model(contest: Contest) -> None:
    seconds, difference = compare(contest, "shipped model", pairs=1)
    assert seconds.peer is not None
    assert seconds.ours.median > 0
    assert seconds.peer.theirs.median > 0
    assert difference.ours.median <= PICTURE_LIMIT
    assert difference.reached


def test_another_prompt_on_one_side_is_seen_as_another_picture(contest: Contest) -> None:
    other = contest.settings.model_copy(update={"prompt": "a photo of red boots"})
    theirs = Contest(contest.manager, contest.pipeline, other).their_picture()
    assert largest_difference(contest.our_picture(), theirs) > PICTURE_LIMIT


def test_one_level_in_one_channel_is_a_difference() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    other = picture.copy()
    other[3, 4, 1] = 1
    assert largest_difference(picture, picture) == 0
    assert largest_difference(picture, other) == largest_difference(other, picture) == 1 / 255
    assert largest_difference(picture, other[:4]) == float("inf")


def test_validation_is_timed_with_every_check_that_generate_makes(
    contest: Contest, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    names = ("check_latents", "check_decoded", "check_picture", "passed_checks")
    for module in ("bench.validation_cost", "studio.engine.pipeline"):
        for name in names:
            count_calls(monkeypatch, f"{module}.{name}", calls)
    monkeypatch.setattr("bench.validation_cost.REPEATS", 1)
    assert validation_seconds(torch.device("cpu"), num_steps=7, width=128, height=128) > 0
    timed, calls[:] = calls[len(calls) // 2 :], []
    contest.manager.generate(contest.settings.model_copy(update={"num_inference_steps": 7}))
    assert timed == calls


def count_calls(monkeypatch: pytest.MonkeyPatch, target: str, calls: list[str]) -> None:
    """Let the real function run, and note its name."""
    module, _, name = target.rpartition(".")
    function = getattr(sys.modules[module], name)

    def noted(*args: object, **options: object) -> object:
        calls.append(name)
        return function(*args, **options)

    monkeypatch.setattr(target, noted)


def test_a_childs_peak_is_not_its_parents() -> None:
    assert peak_process_bytes() > 250 * MIB, "torch is loaded here"
    program = "from bench.peak_memory import peak_process_bytes; print(peak_process_bytes())"
    assert int(run_python(program)) < 150 * MIB


def test_a_peak_outlasts_the_memory_itself() -> None:
    program = """
from bench.peak_memory import peak_process_bytes
before = peak_process_bytes()
ballast = bytearray(b"x") * 200_000_000
del ballast
print(peak_process_bytes() - before)
"""
    assert 180e6 < int(run_python(program)) < 300e6


def run_python(program: str) -> bytes:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout


def test_the_peak_of_a_picture_is_measured_in_a_process_of_its_own(user_data: UserData) -> None:
    picture = GenerationSettings(prompt="black casual shoes", num_inference_steps=1, width=64, height=64)
    folder = assets_folder() / SHIPPED_MODEL
    peak = measure_peak("diffusers", folder, picture, device_type="cpu", user_data=user_data)
    assert 200 * MIB < peak.process_bytes < 3000 * MIB
    assert peak.accelerator_bytes is None


def test_a_picture_that_was_not_made_has_no_peak(user_data: UserData, failing_python: None) -> None:
    picture = GenerationSettings(prompt="black casual shoes")
    with pytest.raises(StudioError, match=r"studio whose memory is measured was not made \(code 1\)"):
        measure_peak("studio", assets_folder() / SHIPPED_MODEL, picture, device_type="cpu", user_data=user_data)


def test_a_started_program_is_ended_and_no_other() -> None:
    program = "import time; print('up', flush=True); time.sleep(600)"
    with started_python(["-c", program]) as bystander:
        with started_python(["-c", program]) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
        assert process.poll() is not None
        assert bystander.poll() is None


def test_a_page_that_does_not_come_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"  # in place of the folder that the page needs
    file.touch()
    with pytest.raises(StudioError, match="The page did not come"):
        page_seconds(file, cpu=True)
    assert "Not a directory" in capfd.readouterr().err


def test_the_page_and_its_peer_are_timed_and_leave_nothing_running(tmp_path: Path) -> None:
    assert 0 < page_seconds(tmp_path, cpu=True) < 100
    assert processes_about(tmp_path) == []
    assert 0 < import_seconds() < 100


def test_every_picture_after_a_cold_start_is_timed_and_the_engine_ended(tmp_path: Path) -> None:
    seconds = picture_seconds(UserData(tmp_path), cpu=True, smoke=SmokeSettings(num_inference_steps=4))
    assert len(seconds) == 3
    assert min(seconds) > 0
    assert max(seconds) == seconds[0], "the first has the engine's start in it"
    assert processes_about(tmp_path) == []


def test_an_engine_that_cannot_start_is_told(tmp_path: Path, failing_python: None) -> None:
    with pytest.raises(EngineError, match="ended with code 1"):
        picture_seconds(UserData(tmp_path), cpu=True, smoke=SmokeSettings())


def processes_about(folder: Path) -> list[str]:
    """The command lines that name a folder: those of the programs that were started on it, however indirectly."""
    lines = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if str(folder) in line]
