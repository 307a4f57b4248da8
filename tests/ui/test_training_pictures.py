"""Validation images as a table of small copies, their scores, and the training images that come nearest."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from studio.datasets.inspection import save_thumbnail, thumbnail_path
from studio.training.events import AnyEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory
from studio.ui.training.images import (
    Thumbnails,
    nearest_of_last,
    samples_html,
    scrubber_html,
    training_picture_url,
)
from tests.training.told_runs import make_run, sample_event
from tests.ui.told_scores import near, reference_event, score_event

HOSTILE = "<img src=x onerror=alert(1)>"


def history_of(*events: AnyEvent) -> RunHistory:
    history = RunHistory()
    for event in events:
        history.apply_event(event)
    return history


@pytest.fixture
def thumbnails(tmp_path: Path) -> Thumbnails:
    return Thumbnails(tmp_path / "run-thumbnails", tmp_path / "dataset-thumbnails")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "runs" / "a", [])


def test_pictures_stand_by_step_beside_the_base_as_addresses_of_small_copies(
    run: RunFolder, thumbnails: Thumbnails
) -> None:
    events = [sample_event(run.root, step) for step in (0, 500, 1000)]
    html = samples_html(run, history_of(*events), thumbnails)
    assert "step 1,000" in html
    assert "step 0" not in html, "there the LoRA is the base"
    assert html.count("gradio_api/file=") == 6
    assert len(html) < 4_000, "what is sent with the page are addresses, no images"
    copies = list(thumbnails.runs.rglob("*.jpg"))
    assert len(copies) == 6
    with Image.open(copies[0]) as copy:
        assert max(copy.size) <= 256
    assert samples_html(run, history_of(*events), thumbnails) == html, "nothing is sent anew where nothing changed"


def test_a_picture_that_is_made_again_has_another_address(run: RunFolder, thumbnails: Thumbnails) -> None:
    event = sample_event(run.root, 500)
    before = samples_html(run, history_of(event), thumbnails)
    file = run.root / str(event.pictures[0])
    Image.new("RGB", (64, 64), "white").save(file)
    assert samples_html(run, history_of(event), thumbnails) != before


def test_prompts_are_text_and_what_is_missing_is_said(run: RunFolder, thumbnails: Thumbnails) -> None:
    event = sample_event(run.root, 500, prompts=(HOSTILE,))
    assert "<img src=x" not in samples_html(run, history_of(event), thumbnails)
    for pictures, words in ((("nothing.png",), "gone"), ((None,), "not valid"), (("../../a.png",), "gone")):
        changed = event.model_copy(update={"pictures": pictures})
        assert words in samples_html(run, history_of(changed), thumbnails)
    (run.root / "broken.png").write_bytes(b"no image")
    broken = event.model_copy(update={"pictures": ("broken.png",)})
    assert "cannot be shown" in samples_html(run, history_of(broken), thumbnails)


def test_of_many_steps_some_are_shown_and_the_rest_are_counted(run: RunFolder, thumbnails: Thumbnails) -> None:
    events = [sample_event(run.root, step) for step in range(100, 1100, 100)]
    html = samples_html(run, history_of(*events), thumbnails)
    assert html.count('scope="col">step') == 6
    assert "4 steps in between are hidden." in html


def test_scores_stand_below_with_the_datasets_own_and_the_picture_that_comes_nearest(
    run: RunFolder, thumbnails: Thumbnails
) -> None:
    save_thumbnail(Image.new("RGB", (32, 32)), thumbnail_path(thumbnails.datasets, f"{1:064x}", "#ffffff"))
    score = score_event(500, 0.7, near("0.png", 1.2), near("1.png", 0.1, likeness="as a copy", mirrored=True))
    history = history_of(sample_event(run.root, 500), reference_event(0.98), score)
    html = samples_html(run, history, thumbnails)
    assert 'white border<span class="reached">dataset 98%' in html
    assert "nearest training image</th>" in html, "the dataset is not compared with itself"
    assert "1.png: as a copy, mirrored, distance 0.10" in html
    assert '<span class="bad">as a copy</span>' in html
    card = nearest_of_last(run, history, thumbnails)
    assert card.index("0.10") < card.index("1.20"), "the nearest first"
    assert card.count("<img") == 1, "the other's small copy is gone"


def test_a_training_picture_is_found_by_its_key_alone(run: RunFolder, thumbnails: Thumbnails) -> None:
    small = thumbnail_path(thumbnails.datasets, f"{0:064x}", "#ffffff")
    save_thumbnail(Image.new("RGB", (32, 32)), small)
    assert training_picture_url(run, "0.png", thumbnails).endswith(f"{0:064x}-ffffff-2.jpg")
    assert training_picture_url(run, "../0.png", thumbnails) == ""
    run.dataset.write_text("damaged", encoding="utf-8")
    assert training_picture_url(run, "0.png", thumbnails) == ""


def test_runs_of_before_the_nearest_was_told_have_the_distance_alone(run: RunFolder, thumbnails: Thumbnails) -> None:
    history = history_of(sample_event(run.root, 500), score_event(500, 0.7))
    assert ">1.50</td>" in samples_html(run, history, thumbnails)
    assert nearest_of_last(run, history, thumbnails) == ""


def shown_steps(html: str) -> set[str]:
    """The steps of which a part is not hidden."""
    return set(re.findall(r'data-of-step="(\d+)">', html))


def test_the_scrubber_has_the_base_and_every_step_and_shows_one(run: RunFolder, thumbnails: Thumbnails) -> None:
    events = [sample_event(run.root, step) for step in (0, 500, 1000)]
    html = scrubber_html(run, history_of(*events), thumbnails)
    assert 'data-steps="[0, 500, 1000]"' in html
    assert shown_steps(html) == {"1000"}
    assert 'max="2" value="2"' in html
    assert html.count("gradio_api/file=") == 6, "two prompts, each of the base and of two steps"
    best = scrubber_html(run, history_of(*events), thumbnails, best=500)
    assert shown_steps(best) == {"500"}
    assert "recommended" in best
    assert "appear here" in scrubber_html(run, history_of(), thumbnails)


def test_of_very_many_steps_the_scrubber_has_some_and_the_best(run: RunFolder, thumbnails: Thumbnails) -> None:
    events = [sample_event(run.root, 100).model_copy(update={"step": step}) for step in range(10, 1010, 10)]
    html = scrubber_html(run, history_of(*events), thumbnails, best=330)
    found = re.search(r'data-steps="(\[[^"]*\])"', html)
    assert found is not None
    steps = json.loads(found.group(1))
    assert len(steps) <= 26
    assert {0, 10, 330, 1000} <= set(steps)


def test_the_scores_of_each_step_say_in_words_how_they_compare_with_the_base(
    run: RunFolder, thumbnails: Thumbnails
) -> None:
    events = [sample_event(run.root, step) for step in (100, 200)]
    scores = (score_event(100, 0.02), score_event(200, 0.7))
    html = scrubber_html(run, history_of(*events, reference_event(0.98), *scores), thumbnails)
    assert 'data-of-step="100" hidden>2% <span class="outcome bad">worse</span>' in html
    assert 'data-of-step="200">70% <span class="outcome good">better</span>' in html
    assert '0.40 <span class="outcome quiet">like base and dataset</span>' in html, "of the sharpness"
    no_white = scrubber_html(run, history_of(*events, reference_event(0.1), *scores), thumbnails)
    reached = scrubber_html(run, history_of(*events, reference_event(0.72), *scores), thumbnails)
    assert '>70% <span class="outcome good">better, like the dataset</span>' in reached
    assert ">better<" not in no_white, "a dataset without white backgrounds does not want them"
