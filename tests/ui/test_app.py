"""The whole page as it should be, of two pages that show two runs and two batches."""

import re
import shutil
from pathlib import Path

import gradio as gr
import pytest
import send2trash
from filelock import FileLock

from studio.batches.session import BatchSession
from studio.core.errors import RunError
from studio.core.paths import UserData
from studio.core.settings import ModelSettings
from studio.datasets.session import DatasetSession
from studio.engine.process.client import EngineClient
from studio.images.gallery import History
from studio.jobs.folder import RunStatus, write_status
from studio.jobs.words import title
from studio.loras.library import LoraLibrary
from studio.training.folder import RunFolder
from studio.training.presets import PRESETS
from studio.training.session import TrainingSession
from studio.ui.batches.tab import BatchPage
from studio.ui.datasets.captioning import caption_jobs
from studio.ui.inference.history import PastImages
from studio.ui.shell.app import Sessions, build_app
from studio.ui.shell.commands import BATCH, CommandRunner, PreflightRunner
from studio.ui.shell.device_busy_box import BlockingJobs
from studio.ui.shell.selection import Selection
from studio.ui.training import plot as training_plot
from studio.ui.training.presets import MeasuredPresets, preset_choices
from studio.ui.training.queue import TrainingPage
from tests.batches.test_session import make_batch
from tests.datasets.bad_inputs import encoded, picture
from tests.training.told_runs import make_run, step_event

OLD, NEW = "20261124-220000-old", "20261125-220000-new"


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    user_data = UserData(tmp_path)
    for name, num_steps in ((OLD, 5), (NEW, 7)):
        make_run(user_data.runs / name, [step_event(step) for step in range(1, num_steps + 1)])
    datasets, library = DatasetSession(user_data, count_tokens=len), LoraLibrary(user_data.loras)
    return Sessions(
        engine=EngineClient(user_data, model=ModelSettings(), cpu_only=True),
        datasets=datasets,
        training=TrainingPage(
            TrainingSession(user_data), datasets, PreflightRunner(user_data), CommandRunner(user_data)
        ),
        batches=BatchPage(BatchSession(user_data), datasets, library, PreflightRunner(user_data, BATCH)),
        library=library,
        blocking_jobs=BlockingJobs(user_data),
        past=PastImages(History(user_data.outputs), user_data.cache / "run-thumbnails"),
        captions=caption_jobs(user_data),
    )


def run_of(sessions: Sessions, name: str) -> RunFolder:
    return RunFolder(sessions.training.session.user_data.runs / name)


def test_each_page_shows_the_run_and_the_batch_that_it_chose(sessions: Sessions) -> None:
    first, second = (make_batch(sessions.batches.session, name).name for name in ("a", "b"))
    for run, batch in ((OLD, first), (NEW, second), (OLD, second)):
        chosen = Selection(run=run, batch=batch)
        page = sessions.now(chosen)
        assert page.selection == chosen
        cards = str(page.parts["training-runs"])
        assert re.findall(r'aria-current="true">\s*<button type="button" data-run="([^"]*)"', cards) == [run]
        assert page.parts["batch-run"]["value"] == batch
        assert run in str(page.parts["training-files"])
        assert batch in str(page.parts["batch-files"])


def test_a_page_that_was_shown_the_newest_stays_there_when_another_runs(sessions: Sessions) -> None:
    shown = sessions.now(Selection()).selection
    assert shown.run == NEW
    write_status(run_of(sessions, OLD), RunStatus(state="running", step=3, num_steps=9))
    assert sessions.now(shown).selection.run == NEW
    assert sessions.now(Selection()).selection.run == OLD, "a page that is opened now"


def test_a_page_whose_run_is_gone_says_so_and_shows_no_other(sessions: Sessions) -> None:
    shutil.rmtree(run_of(sessions, OLD).root)
    page = sessions.now(Selection(run=OLD))
    assert page.selection.run == OLD
    assert f"There is no run {title(run_of(sessions, OLD))} any more" in str(page.parts["training-state"])
    assert "aria-current" not in str(page.parts["training-runs"])
    shutil.rmtree(run_of(sessions, NEW).root)
    assert sessions.now(Selection(run=OLD)).selection.run == "", "the next that is made will be shown"


def test_curves_are_drawn_as_each_page_was_told_and_once_for_each(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[training_plot.PlotOptions] = []
    draw = training_plot.plot_html
    monkeypatch.setattr(
        training_plot,
        "plot_html",
        lambda history, options, others: drawn.append(options) or draw(history, options, others),
    )
    pages = (Selection(run=OLD), Selection(run=OLD, log=True), Selection(run=NEW, compared=(OLD, NEW, "gone")))
    for _ in range(3):
        plots = [sessions.now(page).parts["training-plot"] for page in pages]
        assert ["old · " in str(plot) for plot in plots] == [False, False, True]
    assert [options.log for options in drawn] == [False, True, False]


def test_the_whole_page_is_laid_out(tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    engine = EngineClient(user_data, model=ModelSettings(), cpu_only=True)
    datasets = DatasetSession(user_data, count_tokens=len)
    page = build_app(engine, datasets, TrainingSession(user_data), user_data, cpu_only=True)
    tabs = [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]
    assert {"Inference", "Dataset", "Training", "Batch"} <= set(tabs)
    assert set(user_data.root.rglob("*")) == set(), "nothing is started or written by it"


def test_a_run_is_there_once_it_has_settings_and_until_its_folder_goes(sessions: Sessions) -> None:
    session = sessions.training.session
    new = RunFolder(session.user_data.runs / "20261126-220000-begun")
    new.root.mkdir()
    assert session.view().names == (NEW, OLD)
    shutil.copyfile(run_of(sessions, NEW).settings, new.settings)
    assert session.view().names == (new.name, NEW, OLD)
    shutil.rmtree(run_of(sessions, NEW).root)
    assert session.view().names == (new.name, OLD)


def test_cards_are_shown_by_the_page_and_found_by_their_names(sessions: Sessions) -> None:
    folder = sessions.training.session.user_data.loras
    folder.mkdir(parents=True)
    for number in range(60):
        (folder / f"Style {number:02}.safetensors").write_bytes(b"none")

    def shown(**chosen: object) -> tuple[str, list[str]]:
        html = str(sessions.now(Selection.model_validate(chosen)).parts["lora-cards"])
        return re.findall(r'role="status">([^<]*)', html)[0], re.findall(r"<h3>([^<]*)</h3>", html)

    names = [*(f"Style {number:02}" for number in range(60)), "white-ground"]
    assert shown() == ("61 LoRAs, page 1 of 3", names[:24])
    assert shown(lora_page=3) == shown(lora_page=99) == ("61 LoRAs, page 3 of 3", names[48:])
    assert shown(lora_search="5 STYLE", lora_page=2) == shown(lora_search="style 5")
    assert shown(lora_search="style 5")[1] == [name for name in names[:60] if "5" in name]
    assert shown(lora_search="nothing") == ("No LoRA has such a name or note.", [])


def test_a_run_is_deleted_with_its_job_and_not_while_it_is_worked_on(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_trash(path: Path) -> None:
        raise OSError(13, "There is no trash")

    monkeypatch.setattr(send2trash, "send2trash", no_trash)
    session = sessions.training.session
    run = run_of(sessions, OLD)
    job = session.queue.add("train", run.root, OLD)
    with pytest.raises(RunError, match="waits in the queue"):
        session.delete(run)
    session.queue.stop(job.id)
    with FileLock(run.lock), pytest.raises(RunError, match="is being worked on"):
        session.delete(run)
    assert run.settings.is_file()
    where = session.delete(run)
    assert session.view().names == (NEW,)
    assert session.queue.jobs() == ()
    (kept,) = session.user_data.trash.iterdir()
    assert where == f"in {kept}; delete it there to free its space"
    assert (kept / "settings.json").is_file()


def test_no_list_of_choices_that_changes_is_checked_by_gradio_which_forgets_it_in_a_restart(tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    engine = EngineClient(user_data, model=ModelSettings(), cpu_only=True)
    datasets = DatasetSession(user_data, count_tokens=len)
    page = build_app(engine, datasets, TrainingSession(user_data), user_data, cpu_only=True)
    lists = (gr.Dropdown, gr.Radio)
    refreshes = [event for event in page.fns.values() if event.name == "refresh"]
    changing = {block for event in refreshes for block in event.outputs if isinstance(block, lists)}
    sent = {block for event in page.fns.values() if event.fn for block in event.inputs if isinstance(block, lists)}
    found = {block.elem_id for block in changing & sent}
    assert {"generate-lora-0", "compare-lora-1", "batch-lora-2", "training-dataset"} <= found
    refused = [block.elem_id for block in changing & sent if not getattr(block, "allow_custom_value", False)]
    assert refused == ["training-preset"], "whose labels change, and never its values"
    assert {key for _, key in preset_choices(MeasuredPresets())} == PRESETS.keys()


def test_each_page_has_its_own_dataset_and_keeps_it(sessions: Sessions, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(encoded(picture(), "PNG"))
        sessions.datasets.open_folder(str(tmp_path / name))
    shown = sessions.now(Selection()).selection
    assert shown.dataset == "second", "what was opened last"
    assert sessions.now(Selection(dataset="first")).parts["dataset-names"]["value"] == "first"
    sessions.datasets.show("first")
    page = sessions.now(shown)
    assert (page.selection.dataset, page.parts["dataset-names"]["value"]) == ("second", "second")
    assert str(tmp_path / "second") in str(page.parts["dataset-layout-words"])
    shutil.rmtree(sessions.datasets.library.place("first"))
    gone = sessions.now(Selection(dataset="gone"))
    while gone.look_again_seconds:
        gone = sessions.now(Selection(dataset="gone"))
    assert "There is no dataset gone any more" in str(gone.parts["dataset-problem"])
    assert gone.selection.dataset == "gone"
