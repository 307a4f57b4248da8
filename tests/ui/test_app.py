"""The whole page as it should be, of two pages that show two runs and two batches."""

import shutil
from pathlib import Path

import gradio as gr
import pytest

from studio.dataset.desk import DatasetDesk
from studio.engine_process.client import EngineClient
from studio.jobs.ahead import JobsAhead
from studio.jobs.batch_desk import BatchDesk
from studio.jobs.preflight_runner import BATCH, PreflightRunner
from studio.jobs.training_desk import TrainingDesk
from studio.loras.library import LoraLibrary
from studio.paths import UserData
from studio.runs.folder import RunFolder, RunStatus, write_status
from studio.settings import ModelSettings
from studio.ui import training_plot
from studio.ui.app import Desks, build_app
from studio.ui.batch_tab import BatchPage
from studio.ui.lean_server import server_built_at_launch
from studio.ui.selection import Selection
from studio.ui.training_page import TrainingPage
from tests.jobs.test_batch_desk import make_batch
from tests.runs.told_runs import make_run, step_event

OLD, NEW = "20261124-220000-old", "20261125-220000-new"


@pytest.fixture
def desks(tmp_path: Path) -> Desks:
    user_data = UserData(tmp_path)
    for name, num_steps in ((OLD, 5), (NEW, 7)):
        make_run(user_data.runs / name, [step_event(step) for step in range(1, num_steps + 1)])
    datasets, library = DatasetDesk(user_data, count_tokens=len), LoraLibrary(user_data.loras)
    return Desks(
        engine=EngineClient(user_data, model=ModelSettings(), cpu_only=True),
        datasets=datasets,
        training=TrainingPage(TrainingDesk(user_data), datasets, PreflightRunner(user_data)),
        batches=BatchPage(BatchDesk(user_data), datasets, library, PreflightRunner(user_data, BATCH)),
        library=library,
        ahead=JobsAhead(user_data),
    )


def run_of(desks: Desks, name: str) -> RunFolder:
    return RunFolder(desks.training.desk.user_data.runs / name)


def test_each_page_shows_the_run_and_the_batch_that_it_chose(desks: Desks) -> None:
    first, second = (make_batch(desks.batches.desk, name).name for name in ("a", "b"))
    for run, batch in ((OLD, first), (NEW, second), (OLD, second)):
        chosen = Selection(run=run, batch=batch)
        page = desks.now(chosen)
        assert page.selection == chosen
        shown = {name: part["value"] for name, part in page.parts.items() if name in ("training-run", "batch-run")}
        assert shown == {"training-run": run, "batch-run": batch}
        assert run in str(page.parts["training-files"])
        assert batch in str(page.parts["batch-files"])


def test_a_page_that_was_shown_the_newest_stays_there_when_another_runs(desks: Desks) -> None:
    shown = desks.now(Selection()).selection
    assert shown.run == NEW
    write_status(run_of(desks, OLD), RunStatus(state="running", step=3, num_steps=9))
    assert desks.now(shown).selection.run == NEW
    assert desks.now(Selection()).selection.run == OLD, "a page that is opened now"


def test_a_page_whose_run_is_gone_says_so_and_shows_no_other(desks: Desks) -> None:
    shutil.rmtree(run_of(desks, OLD).root)
    page = desks.now(Selection(run=OLD))
    assert page.selection.run == OLD
    assert f"There is no run {OLD} any more" in str(page.parts["training-state"])
    assert page.parts["training-run"]["value"] is None
    shutil.rmtree(run_of(desks, NEW).root)
    assert desks.now(Selection(run=OLD)).selection.run == "", "the next that is made will be shown"


def test_curves_are_drawn_as_each_page_was_told_and_once_for_each(
    desks: Desks, monkeypatch: pytest.MonkeyPatch
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
        plots = [desks.now(page).parts["training-plot"] for page in pages]
        assert [OLD in str(plot) for plot in plots] == [False, False, True]
    assert [options.log for options in drawn] == [False, True, False]


def test_the_whole_page_is_laid_out(tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    engine = EngineClient(user_data, model=ModelSettings(), cpu_only=True)
    with server_built_at_launch():
        datasets = DatasetDesk(user_data, count_tokens=len)
        page = build_app(engine, datasets, TrainingDesk(user_data), user_data, cpu_only=True)
    tabs = [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]
    assert {"Inference", "Dataset", "Training", "Batch"} <= set(tabs)
    assert set(user_data.root.rglob("*")) == set(), "nothing is started or written by it"
