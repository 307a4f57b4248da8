"""The count of files run through: what it counts, when it ends, and its limit for Generate."""

from pathlib import Path

from PIL import Image

from bench.files_run import GENERATE_LIMIT, FilesRun, file_of, files_of_first_step, files_of_generate
from studio.core import text
from studio.core.paths import UserData
from studio.engine.pipeline import PipelineManager

TRAINING = {"resolution": 64, "rank": 2, "max_train_steps": 1, "num_validation_images": 0, "held_out_percent": 0}


def test_a_file_counts_where_a_function_of_it_is_called() -> None:
    run = FilesRun()
    with run.counting():
        text.gigabytes(1)
    text.duration(1)
    assert run.files == {"core/text.py"}


def test_bodies_of_modules_and_functions_of_others_do_not_count() -> None:
    source = "class Body:\n    pass\n"
    assert file_of(compile(source, text.__file__, "exec")) is None
    assert file_of(Path.joinpath.__code__) is None
    assert file_of(text.gigabytes.__code__) == "core/text.py"


def test_what_an_import_calls_does_not_count() -> None:
    run = FilesRun()
    with run.counting():
        exec(compile("import studio.core.text as text; text.gigabytes(1)", text.__file__, "exec"), {})
    assert run.files == set()


def test_generate_runs_through_no_more_files_than_its_limit(manager: PipelineManager, tmp_path: Path) -> None:
    files = files_of_generate(manager, tmp_path)
    assert {"engine/generation.py", "engine/pipeline.py", "engine/denoise.py", "images/files.py"} <= files
    assert len(files) <= GENERATE_LIMIT, sorted(files)


def test_the_first_step_ends_where_it_was_made(tmp_path: Path) -> None:
    (tmp_path / "boots").mkdir()
    for number in range(2):
        Image.new("RGB", (64, 64), (200 * number, 80, 40)).save(tmp_path / "boots" / f"{number}.png")
        (tmp_path / "boots" / f"{number}.txt").write_text("red boots", encoding="utf-8")
    values = {**TRAINING, "dataset": str(tmp_path / "boots"), "cpu": True}
    files = files_of_first_step(values, UserData(tmp_path / "user_data"))
    assert {"training/begin.py", "training/torch/run.py", "training/torch/loop.py"} <= files
    assert "training/torch/finish.py" not in files, "it was counted to the end of the run"
