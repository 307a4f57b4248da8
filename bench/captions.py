"""From the key that shows the next image to its caption in the box, in a browser, with 2,000 images open."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.browser import PATIENCE_SECONDS, empty_user_data, opened_browser, served_studio
from bench.dataset import make_pictures
from bench.figures import Figure, plain_figure
from bench.settings import BenchSettings
from studio.core.paths import UserData

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NUM_IMAGES, NUM_SWITCHES = 2000, 50  # all on the grid's first page: turning it is another figure
SIDE = 512
SWITCH_LIMIT_SECONDS = 0.05
# A caption is there when a frame has been drawn with it.
_SWITCH = """async () => {
  const area = () => document.querySelector("#dataset-caption textarea");
  const before = area().value;
  const start = performance.now();
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  do await new Promise(requestAnimationFrame);
  while ((area().value === before || !area().value) && performance.now() - start < 10000);
  return (performance.now() - start) / 1000;
}"""


def bench_captions(settings: BenchSettings, user_data: UserData) -> tuple[Figure, ...]:
    """All switches of all runs.

    Raises:
        SkippedError: where Playwright or Chromium is missing.
        StudioError: where the page does not come.
    """
    with opened_browser() as browser, empty_user_data(user_data) as folder:
        source = folder.root / "pictures"
        make_pictures(source, NUM_IMAGES, side=SIDE)
        seconds = measure_switches(browser, source, folder, settings, num_images=NUM_IMAGES, num_switches=NUM_SWITCHES)
    name = f"{NUM_IMAGES:,} images: a caption after its key"
    return (plain_figure(name, seconds, unit="s", limit=SWITCH_LIMIT_SECONDS),)


def measure_switches(
    browser: "Browser",
    source: Path,
    user_data: UserData,
    settings: BenchSettings,
    *,
    num_images: int,
    num_switches: int,
) -> list[float]:
    """Seconds of each switch; the page is opened anew for each run."""
    with served_studio(user_data, cpu=settings.cpu) as (url, _):
        pages = [_opened(browser, url, source, num_images) for _ in range(settings.runs)]
        return [float(page.evaluate(_SWITCH)) for page in pages for _ in range(num_switches)]


def _opened(browser: "Browser", url: str, source: Path, num_images: int) -> "Page":
    """The page with the dataset open, all of it checked, and its first image chosen."""
    page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.set_default_timeout(1000 * PATIENCE_SECONDS)
    page.goto(url)
    page.locator('button[role="tab"][data-tab-id="dataset"]').click()
    page.locator("#dataset-path input").fill(str(source))
    page.locator("#dataset-open").click()
    page.locator("#dataset-summary", has_text=f"{num_images:,} will be trained on").wait_for()
    page.locator("#dataset-grid .thumb").first.click()
    page.wait_for_function("document.querySelector('#dataset-caption textarea').value !== ''")
    return page
