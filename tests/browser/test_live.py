"""What the page's script keeps true by itself, and what it leaves as a person has it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from studio.jobs.events import EventWriter
from studio.jobs.folder import RunStatus, write_status
from studio.training.folder import RunFolder
from tests.browser.conftest import OpenPage, Profiles
from tests.browser.page_actions import ENGINE_SECONDS, activity, expect_nothing_asked, open_section, open_training
from tests.browser.page_actions import training_state as state
from tests.browser.studio_process import RunningStudio, running_studio
from tests.training.told_runs import make_run, step_event

LINES_OF_A_STEP = 30
# Frames that no script of Gradio's own asked for: those are files, ours are evaluated.
COUNT_OUR_FRAMES = r"""{
  const next = requestAnimationFrame.bind(window);
  const GRADIO = /\/assets\/[^/]+\.js:\d+:\d+\)?$/;
  window.frames_asked = 0;
  window.requestAnimationFrame = (draw) => {
    if (!GRADIO.test(new Error().stack.split("\n")[2])) window.frames_asked += 1;
    return next(draw);
  };
}"""


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that goes on, though nobody trains it."""
    folder = make_run(tmp_path / "runs" / "20261231-000000-live", [])
    report(folder, 1)
    return folder


@pytest.fixture
def studio(run: RunFolder) -> Iterator[RunningStudio]:
    with running_studio(run.root.parent.parent) as running:
        yield running


def report(run: RunFolder, step: int, *, state: str = "running") -> None:
    """One more step."""
    EventWriter(run.events).report(step_event(step))
    with run.log.open("a", encoding="utf-8") as log:
        log.writelines(f"step {step}, line {line}\n" for line in range(LINES_OF_A_STEP))
    write_status(run, RunStatus.model_validate({"state": state, "step": step, "num_steps": 100}))


def test_who_reads_is_left_in_place_while_more_is_told(
    run: RunFolder, studio: RunningStudio, open_page: OpenPage
) -> None:
    page = open_page(studio, ready=False)
    open_training(page)
    open_section(page, "Log")
    log = page.locator("#training-log pre")
    expect(log).to_contain_text("step 1, line 29")
    log.evaluate("log => { log.scrollTop = 40; log.focus(); }")
    report(run, 2)
    expect(log).to_contain_text("step 2, line 29")
    assert log.evaluate("log => log.scrollTop") == 40
    expect(log).to_be_focused()
    report(run, 3, state="finished")
    expect(state(page)).to_contain_text("Finished.")
    expect(page.locator("#training-stop")).to_be_hidden()
    expect(activity(page)).to_have_text("ready", timeout=1000 * ENGINE_SECONDS)
    expect_nothing_asked(page)


def test_the_page_goes_on_by_itself_on_its_tab_when_its_studio_is_started_again(
    run: RunFolder, studio: RunningStudio, open_page: OpenPage
) -> None:
    page = open_page(studio, ready=False)
    open_training(page)
    expect(state(page)).to_contain_text("step 1 of 100")
    studio.process.kill()
    studio.process.wait()
    gone = page.get_by_role("alert").filter(has_text="The studio does not answer")
    expect(gone).to_be_visible()
    expect(page.locator("#training-pause")).to_have_css("pointer-events", "none")
    report(run, 2)
    with running_studio(run.root.parent.parent, port=studio.port):
        expect(state(page)).to_contain_text("step 2 of 100")
        expect(gone).to_have_count(0)
        report(run, 3)
        expect(state(page)).to_contain_text("step 3 of 100")


def test_a_page_where_nothing_goes_on_draws_no_frames_of_ours(shared_studio: RunningStudio, profiles: Profiles) -> None:
    shared_studio.make_ready()
    page = profiles(1280, False).new_page()
    try:
        page.add_init_script(COUNT_OUR_FRAMES)
        page.goto(shared_studio.url)
        open_training(page)
        assert page.evaluate("window.frames_asked") > 0, "so this test sees them"
        expect_nothing_asked(page)
        before = page.evaluate("window.frames_asked")
        page.wait_for_timeout(1000)
        assert page.evaluate("window.frames_asked") == before
        moving = "document.getAnimations().filter(animation => animation.playState === 'running').length"
        assert page.evaluate(moving) == 0
    finally:
        page.close()
