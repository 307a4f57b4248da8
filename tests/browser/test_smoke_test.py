"""The smoke test as a person meets it: in a browser, on a real studio, with the shipped model."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Page, expect

from studio.core.results import SmokeReport
from studio.core.settings import SMOKE_PROMPTS
from tests.browser.conftest import OpenPage, Profiles, StartStudio, forget_forms
from tests.browser.page_actions import (
    FEW_STEPS,
    MANY_STEPS,
    activity,
    expect_nothing_asked,
    field_error,
    finish_run,
    go_to_tab,
    open_mode,
    open_panel,
    open_section,
    pictures,
    problem,
    run_to_end,
    set_field,
    start_load,
    start_run,
    verdict,
    wait_until_ready,
)
from tests.browser.studio_process import RunningStudio, wait_for

TABS = ("Inference", "Dataset", "Training", "Batch")


@pytest.fixture
def open_page(open_page: OpenPage) -> OpenPage:
    """Opens pages at the smoke test."""

    def open_one(running: RunningStudio, **options: Any) -> Page:  # noqa: ANN401 - as the fixture that it wraps has them
        page = open_page(running, **options)
        open_mode(page, "Smoke test", idle=False)
        return page

    return open_one


def test_one_button_makes_three_pictures_and_a_verdict_in_words(page: Page) -> None:
    run_to_end(page, "PASS", steps=25)
    expect(verdict(page)).to_contain_text("PASS: 3 of 3 images are valid.")
    expect(pictures(page)).to_have_count(3)
    widths = [picture.evaluate("image => image.complete ? image.naturalWidth : 0") for picture in pictures(page).all()]
    assert widths == [128, 128, 128]
    assert [picture.get_attribute("alt") for picture in pictures(page).all()] == list(SMOKE_PROMPTS)


@dataclass(frozen=True)
class Finished:
    """A page that shows a finished run, and the folder of its report."""

    page: Page
    folder: Path


@pytest.fixture(scope="module")
def finished(shared_studio: RunningStudio, profiles: Profiles) -> Iterator[Finished]:
    """One short run, the first after loading, whose page several tests read; it stays as it is while others run."""
    with profiles(1280, False).new_page() as page:
        shared_studio.make_ready()
        shared_studio.press("load", "shoes-demo", "float32", "auto", False)
        forget_forms(page, shared_studio.url)
        page.goto(shared_studio.url)
        wait_until_ready(page)
        run_to_end(page, "PASS")
        yield Finished(page, latest_report(shared_studio).parent)


def latest_report(studio: RunningStudio) -> Path:
    """The newest `report.json` of a studio."""
    return max(studio.user_data.outputs.glob("*/smoke-*/report.json"))


def test_each_picture_has_a_table_with_its_facts_and_every_check(finished: Finished) -> None:
    for index in range(3):
        rows = finished.page.locator(f"#card-{index} table tr")
        expect(rows).to_have_count(8)
        found = {row.locator("th").inner_text(): row.locator("td").inner_text() for row in rows.all()}
        assert re.fullmatch(r"\d+\.\d\d s" + (r" \(first\)" if index == 0 else ""), found["Time"])
        assert (found["Shape"], found["dtype"]) == ("128 × 128 × 3", "uint8")
        low, high = map(int, found["Range"].split(" to "))
        assert 0 <= low < high <= 255
        assert found["Seed"] == str(42 + index)
        assert {"✓ latents", "✓ decoded", "✓ image"} <= found.keys()


def test_the_time_table_has_mean_least_greatest_and_the_first_picture_apart(finished: Finished) -> None:
    table = finished.page.get_by_role("table", name="Time", exact=True)
    rows = [row.split("\t") for row in table.inner_text().splitlines() if "\t" in row]
    seconds = {name: float(value.split()[0]) for name, value in rows if value[0].isdigit()}
    assert seconds["Minimum"] <= seconds["Mean"] <= seconds["Maximum"]
    assert seconds["Minimum"] <= seconds["First, with warm-up"] <= seconds["Maximum"]
    assert seconds["of which each step"] < seconds["Steady, mean"]


def test_the_tables_tell_memory_device_precision_and_versions(finished: Finished) -> None:
    page = finished.page
    expect(page.get_by_role("table", name="Memory", exact=True)).to_contain_text(re.compile(r"Peak\s*\d+\.\d GB"))
    settings = page.get_by_role("table", name="Settings", exact=True)
    expect(settings).to_contain_text("CPU (cpu)")
    expect(settings).to_contain_text("float32, because")
    expect(settings).to_contain_text(f"Steps{FEW_STEPS}")
    expect(settings).to_contain_text("Guidance7.5")
    versions = page.get_by_role("table", name="Versions", exact=True)
    for name in ("lora-studio", "python", "torch", "diffusers", "gradio"):
        expect(versions).to_contain_text(name)


@pytest.mark.parametrize(("label", "name"), [("Report (Markdown)", "report.md"), ("Report (JSON)", "report.json")])
def test_the_report_is_offered_for_download_as_it_was_saved(
    finished: Finished, tmp_path: Path, label: str, name: str
) -> None:
    with finished.page.expect_download() as download:
        finished.page.get_by_role("link", name=label).click()
    download.value.save_as(tmp_path / name)
    assert download.value.suggested_filename == name
    assert (tmp_path / name).read_bytes() == (finished.folder / name).read_bytes()


def test_the_saved_report_can_be_read_and_its_pictures_lie_beside_it(finished: Finished) -> None:
    report = SmokeReport.model_validate_json((finished.folder / "report.json").read_bytes())
    assert report.passed
    assert report.settings.num_inference_steps == FEW_STEPS
    assert [picture.file for picture in report.valid_pictures] == ["1.png", "2.png", "3.png"]
    assert all((finished.folder / picture.file).is_file() for picture in report.valid_pictures)
    assert (finished.folder / "report.md").read_text(encoding="utf-8").startswith("# Smoke test: PASS")
    expect(finished.page.locator("#downloads")).to_contain_text(str(finished.folder))


def test_the_bar_moves_and_a_preview_appears_while_a_picture_is_made(page: Page) -> None:
    start_run(page)
    bar = page.locator("#card-0").get_by_role("progressbar", name="Steps")
    expect(bar).to_have_attribute("aria-valuemax", str(MANY_STEPS))
    expect(bar).not_to_have_attribute("aria-valuenow", bar.get_attribute("aria-valuenow") or "")
    preview = page.get_by_alt_text("Preview")
    expect(preview).to_be_visible()
    assert preview.evaluate("image => image.naturalWidth") > 0
    expect(verdict(page)).to_contain_text(re.compile(r"Image 1 of 3, step \d+ of 150, .* left"))
    page.locator("#cancel-smoke").click()
    wait_until_ready(page)


def test_edited_prompts_are_used(studio: RunningStudio, page: Page) -> None:
    wanted = ["red boots", "blue sandals, studio light", "a green high heel"]
    for number, prompt in enumerate(wanted, start=1):
        page.get_by_label(f"Prompt {number}", exact=True).fill(prompt)
    run_to_end(page, "PASS")
    assert [card.inner_text() for card in page.locator(".card .prompt").filter(visible=True).all()] == wanted
    report = SmokeReport.model_validate_json(latest_report(studio).read_bytes())
    assert list(report.settings.prompts) == wanted


def test_control_and_enter_run_the_smoke_test_from_a_prompt(page: Page) -> None:
    prompt = page.get_by_label("Prompt 1", exact=True)

    def type_and_run(_page: Page) -> None:
        prompt.fill("typed and sent at once")
        prompt.press("Control+Enter")

    run_to_end(page, "PASS", start=type_and_run)
    expect(page.locator("#card-0 .prompt")).to_have_text("typed and sent at once")


@pytest.mark.parametrize("way", ["button", "Escape"])
def test_a_cancelled_run_says_so_and_the_next_one_works(page: Page, way: str) -> None:
    start_run(page)
    expect(page.get_by_role("progressbar", name="Steps")).to_be_visible()
    if way == "button":
        page.locator("#cancel-smoke").click()
    else:
        page.keyboard.press("Escape")
    expect(verdict(page)).to_contain_text("cancelled after")
    wait_until_ready(page)
    expect(page.locator("#cancel-smoke")).to_be_disabled()
    run_to_end(page, "PASS")


def test_a_page_reloaded_in_mid_run_shows_the_run_at_once_and_then_its_result(page: Page) -> None:
    start_run(page, steps=40)
    expect(page.get_by_role("progressbar", name="Steps")).to_be_visible()
    page.reload()
    # Seconds where nothing else is computed; the other half of the tests runs beside this one.
    expect(verdict(page)).to_contain_text("Running.", timeout=10_000)
    expect(page.locator("#cancel-smoke")).to_be_enabled()
    finish_run(page, "PASS")
    expect(pictures(page)).to_have_count(3)


def test_a_second_tab_sees_the_run_of_the_first_and_its_end(
    studio: RunningStudio, page: Page, open_page: OpenPage
) -> None:
    before = open_page(studio)
    start_run(page)
    during = open_page(studio, ready=False)
    expect(verdict(during)).to_contain_text("Running.")
    before.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # what a browser sends on coming back
    expect(verdict(before)).to_contain_text("Running.")
    expect(activity(before)).to_contain_text("smoke test: image 1 of 3")
    page.locator("#cancel-smoke").click()
    for tab in (before, during):
        expect(verdict(tab)).to_contain_text("cancelled after")
        expect(activity(tab)).to_have_text("ready")


def test_a_killed_engine_is_told_of_and_comes_back_by_itself(studio: RunningStudio, page: Page) -> None:
    start_run(page)
    expect(page.get_by_role("progressbar", name="Steps")).to_be_visible()
    killed = studio.wait_for_engine()
    killed.kill()
    expect(problem(page)).to_contain_text("The engine stopped during the smoke test: it was killed")
    wait_until_ready(page)
    assert studio.wait_for_engine().pid != killed.pid
    run_to_end(page, "PASS")
    expect(problem(page)).to_have_count(0)


def test_the_status_line_is_true_on_every_tab(page: Page) -> None:
    for name in TABS:
        go_to_tab(page, name)
        expect(page.locator("#status-model")).to_contain_text("model shoes-demo")
        expect(page.locator("#status-model")).to_contain_text("CPU · float32")
        expect(activity(page)).to_have_text("ready")
    meter = page.get_by_role("meter", name="Memory in use")
    total, used = (int(meter.get_attribute(name) or 0) for name in ("aria-valuemax", "aria-valuenow"))
    system = psutil.virtual_memory()
    assert total == system.total
    assert abs(used - (system.total - system.available)) < 0.5 * total
    assert re.fullmatch(r"\d+\.\d GB of \d+\.\d GB", meter.get_attribute("aria-valuetext") or "")


def test_the_status_line_follows_a_run_from_another_tab_and_leads_back_to_it(page: Page) -> None:
    start_run(page)
    go_to_tab(page, "Batch")
    expect(activity(page)).to_contain_text(re.compile(r"smoke test: image 1 of 3, step \d+ of 150"))
    activity(page).get_by_text("smoke test").click()
    expect(page.get_by_role("tab", name="Inference")).to_have_attribute("aria-selected", "true")
    page.locator("#cancel-smoke").click()
    wait_until_ready(page)


def test_the_precision_at_the_top_opens_its_reason_which_escape_closes(page: Page) -> None:
    panel = open_panel(page, "device-box")
    paragraph = panel.get_by_text("float32, because").first
    expect(paragraph).to_be_in_viewport(ratio=1)
    page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(page.locator("[data-panel=device-box]")).to_be_focused()


@pytest.mark.parametrize("tab", ["Inference", "Batch"])
def test_the_whole_story_opens_from_any_tab(page: Page, tab: str) -> None:
    story = page.get_by_text("On a Mac Studio (M2 Max), Stable Diffusion 1.5 was asked for three images")
    expect(story).to_be_hidden()
    go_to_tab(page, tab)
    open_panel(page, "device-box")
    open_section(page, "Why float32? The story of the black images")
    expect(story).to_be_visible()


@pytest.mark.parametrize(
    ("seed", "words"), [("-1", "Seed must be at least 0, got -1. -1 is no random seed here"), ("", "Seed")]
)
def test_a_setting_that_breaks_its_rule_is_refused_with_the_rule(page: Page, seed: str, words: str) -> None:
    open_section(page, "Steps, guidance, seed")
    set_field(page, "smoke-seed", seed)
    before = verdict(page).inner_text()
    page.locator("#run-smoke").click()
    expect(field_error(page, "smoke-seed")).to_contain_text(words)
    expect(activity(page)).to_have_text("ready")
    expect(verdict(page)).to_have_text(before)


def test_markup_in_a_prompt_is_text_and_never_runs(page: Page) -> None:
    hostile = [
        '<img src=x onerror="window.ran = true">',
        "</textarea></p><script>window.ran = true</script>",
        '"><svg onload="window.ran = true"> ${window.ran = true} {{window.ran = true}}',
    ]
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for number, prompt in enumerate(hostile, start=1):
        page.get_by_label(f"Prompt {number}", exact=True).fill(prompt)
    run_to_end(page, "PASS")
    assert [card.inner_text() for card in page.locator(".card .prompt").filter(visible=True).all()] == hostile
    assert [picture.get_attribute("alt") for picture in pictures(page).all()] == hostile
    page.reload()
    wait_until_ready(page)
    expect(pictures(page)).to_have_count(3)
    assert page.evaluate("window.ran") is None
    assert not [url for url in asked if url.endswith("/x")]


def test_a_model_that_is_not_there_is_said_and_the_loaded_one_stays(page: Page) -> None:
    name = '/nowhere/<img src=x onerror="window.ran = true">'
    start_load(page, name)
    expect(problem(page)).to_contain_text(f"There is no model folder or file {name}.")
    expect(page.locator("#status-model")).to_contain_text("model shoes-demo")
    assert page.evaluate("window.ran") is None
    run_to_end(page, "PASS")


def test_a_cancel_that_is_not_heard_can_be_pressed_again_to_restart_the_engine(
    studio: RunningStudio, page: Page
) -> None:
    start_run(page, steps=150)
    expect(activity(page)).to_contain_text("step")
    engine = studio.wait_for_engine()
    engine.suspend()
    cancel = page.locator("#cancel-smoke")
    cancel.click()
    expect(cancel).to_be_disabled()
    expect(cancel).to_have_text("Stop now (restarts the engine)")
    expect(cancel).to_be_enabled()
    cancel.click()
    expect(problem(page)).to_contain_text("it was stopped and is starting again")
    wait_until_ready(page)
    assert not engine.is_running()
    run_to_end(page, "PASS")


def test_a_folder_without_a_model_is_said_and_the_loaded_one_stays(page: Page, tmp_path: Path) -> None:
    start_load(page, str(tmp_path))
    expect(problem(page)).to_contain_text(str(tmp_path))
    wait_until_ready(page)
    expect(page.locator("#status-model")).to_contain_text("model shoes-demo")
    start_load(page, "shoes-demo")
    wait_until_ready(page)
    expect(problem(page)).to_have_count(0)
    run_to_end(page, "PASS")


def test_an_invalid_picture_fails_in_words_and_is_not_shown(
    studio: RunningStudio, page: Page, broken_model: Path
) -> None:
    kept = set(studio.user_data.rejected.glob("*"))
    start_load(page, str(broken_model))
    expect(page.locator("#status-model")).to_contain_text("model poisoned-green")
    wait_until_ready(page)
    run_to_end(page, "FAIL")
    expect(verdict(page)).to_contain_text("3 of 3 images are not valid")
    expect(verdict(page)).to_contain_text("The VAE gave NaN or infinite values (green 100%)")
    for index in range(3):
        expect(page.locator(f"#card-{index}")).to_contain_text("invalid, not shown")
        expect(page.locator(f"#card-{index} .bad").first).to_contain_text("green 100%")
    expect(page.locator(".card img").filter(visible=True)).to_have_count(0)
    rejected = [path.name[-len("seed42.json") :] for path in set(studio.user_data.rejected.glob("*.json")) - kept]
    assert sorted(rejected) == ["seed42.json", "seed43.json", "seed44.json"]
    report = SmokeReport.model_validate_json(latest_report(studio).read_bytes())
    assert not report.passed


def test_the_page_asks_for_nothing_when_nothing_runs(page: Page) -> None:
    run_to_end(page, "PASS")
    wait_until_ready(page)
    expect_nothing_asked(page)


def test_the_page_asks_nobody_but_its_own_studio(studio: RunningStudio, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    wait_until_ready(page)
    for name in TABS:
        go_to_tab(page, name)
    go_to_tab(page, "Inference")
    run_to_end(page, "PASS")
    assert len(asked) > 20
    foreign = [url for url in asked if not url.startswith((f"{studio.url}/", "data:", "blob:"))]
    assert foreign == []


@pytest.mark.skipif(not hasattr(psutil.Process, "memory_maps"), reason="this system does not tell what is mapped")
def test_the_process_of_the_page_never_has_torch_in_memory(studio: RunningStudio, page: Page) -> None:
    run_to_end(page, "PASS")
    assert _has_torch(studio.wait_for_engine()), "the engine has it, so this test can see it"
    assert not _has_torch(psutil.Process(studio.pid))


def _has_torch(process: psutil.Process) -> bool:
    return any("torch" in Path(mapped.path).name for mapped in process.memory_maps())


def test_a_second_studio_says_who_has_the_device_and_goes_on_when_the_first_is_killed(
    start_studio: StartStudio, open_page: OpenPage
) -> None:
    first = start_studio("same")
    owner = first.wait_for_engine().pid
    wait_for(lambda: first.user_data.device_lock.with_suffix(".json").is_file(), what="the first to take the device")
    waiting = open_page(start_studio("same"), ready=False)
    expect(verdict(waiting)).to_contain_text(f"LoRA Studio's page (process {owner})")
    expect(activity(waiting)).to_contain_text("waiting for the device")
    expect(waiting.locator("#run-smoke")).to_be_disabled()
    first.process.kill()
    wait_until_ready(waiting)
    assert not psutil.pid_exists(owner)
