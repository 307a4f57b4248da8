"""“Make it fast” from the press to images in four steps, with the tiny model."""

import re

import pytest
from playwright.sync_api import expect

from studio.training.torch.run import train_run
from tests.browser.conftest import OpenPage
from tests.browser.page_actions import field, open_training, toast, wait_until_ready
from tests.browser.page_actions import training_state as state
from tests.browser.studio_process import running_studio
from tests.browser.test_training import jobs_ended
from tests.faults import conftest as faults
from tests.faults.conftest import Place

place = faults.place
TRAINED_MILLISECONDS = 180_000


@pytest.mark.slow
@pytest.mark.sample
@pytest.mark.timeout(400)
def test_a_finished_run_is_made_fast_and_its_images_drawn_in_four_steps(place: Place, open_page: OpenPage) -> None:
    images = {"num_validation_images": 1, "validation_inference_steps": 2, "validation_guidance_scale": 3.0}
    run = place.begin(name="style", max_train_steps=2, train_batch_size=16, gradient_accumulation_steps=1, **images)
    assert train_run(run, place.user_data) == "finished"
    with (
        jobs_ended(place.user_data),
        running_studio(place.user_data.root, "--model", str(place.model)) as studio,
    ):
        page = open_page(studio)
        open_training(page)
        page.locator(".end-card [data-act=submit]").click()
        expect(toast(page)).to_contain_text("is made fast: its Speed LoRA is in the queue.")
        card = page.locator(".end-card")
        expect(card).to_contain_text("teacher", timeout=TRAINED_MILLISECONDS)
        expect(state(page)).to_contain_text("Finished")
        expect(card.locator("[data-act=submit]")).to_have_count(0)
        card.locator("[data-act=click]").click()
        wait_until_ready(page)
        expect(field(page, "generate-speed")).to_have_value(re.compile(r"^style 4 steps.* \(4 steps\)$"))
        expect(field(page, "generate-guidance-scale")).to_have_value("1")
        page.locator("#run-generate").click()
        record = page.locator("#generate-pictures")
        expect(record.locator("img")).to_be_visible(timeout=60_000)
