"""“Look closer”: which image is looked at, what stands beside it, and that a page cannot name others."""

from pathlib import Path

import pytest

from studio.core.errors import RunError
from studio.training.events import AnyEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory, TrainingView
from studio.ui.shell.selection import SelectedImage
from studio.ui.training.image_viewer import checked_image, render
from studio.ui.training.images import Thumbnails
from tests.training.told_runs import PROMPTS, make_run, sample_event
from tests.ui.told_scores import near, score_event


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "runs" / "a", [])


@pytest.fixture
def thumbnails(tmp_path: Path) -> Thumbnails:
    return Thumbnails(tmp_path / "runs-small", tmp_path / "datasets-small")


def view_of(run: RunFolder, *events: AnyEvent) -> TrainingView:
    history = RunHistory()
    for event in events:
        history.apply_event(event)
    return TrainingView(names=(run.name,), run=run, history=history)


def three_steps(run: RunFolder) -> TrainingView:
    return view_of(
        run, *(sample_event(run.root, step) for step in (0, 500, 1000)), score_event(500, 0.5, None, near("1.png", 0.3))
    )


def test_base_and_lora_of_the_same_prompt_stand_side_by_side_with_captions(
    run: RunFolder, thumbnails: Thumbnails
) -> None:
    shown = render(SelectedImage(step=500, picture=1), three_steps(run), thumbnails)
    assert shown["closer-box"]["visible"] is True
    base, lora = shown["closer-slider"]["value"]
    assert base == str(run.root / "samples/base/1-seed43.png")
    assert lora == str(run.root / "samples/step-000500/1-seed43.png")
    words = shown["closer-words"]
    assert "◀ base" in words
    assert "LoRA at step 500 ▶" in words
    assert PROMPTS[1] in words
    assert "1.png" in words
    assert "distance 0.30" in words
    assert shown["closer-known"]["value"] == [(500, 2), (1000, 2)]
    assert shown["closer-step"]["choices"] == [("500", 500), ("1,000", 1000)]
    assert [shown[f"closer-{name}"]["interactive"] for name in ("previous-step", "next-step")] == [False, True]
    assert [shown[f"closer-{name}"]["interactive"] for name in ("previous-picture", "next-picture")] == [True, False]


def test_a_picture_that_is_missing_is_said_and_nothing_is_compared(run: RunFolder, thumbnails: Thumbnails) -> None:
    shown = render(SelectedImage(step=500, picture=1), view_of(run, sample_event(run.root, 500, lost=1)), thumbnails)
    assert shown["closer-slider"] == {"__type__": "update", "value": None, "visible": False}
    assert "not valid, or no longer in its folder" in shown["closer-words"]
    outside = sample_event(run.root, 500).model_copy(update={"base": ("../x.png", "../x.png")})
    assert (
        render(SelectedImage(step=500, picture=1), view_of(run, outside), thumbnails)["closer-slider"]["value"] is None
    )


@pytest.mark.parametrize(
    "image",
    [
        None,
        SelectedImage(step=501, picture=0),
        SelectedImage(step=500, picture=2),
        SelectedImage(step=500, picture=-1),
    ],
)
def test_it_is_closed_where_there_is_no_such_picture_any_more(
    run: RunFolder, thumbnails: Thumbnails, image: SelectedImage | None
) -> None:
    assert render(image, three_steps(run), thumbnails)["closer-box"]["visible"] is False


@pytest.mark.parametrize(("step", "picture"), [(501, 0), (500, 2), (500, -1), ("500", 0), (None, None), (500, "../x")])
def test_what_a_page_names_is_checked(run: RunFolder, step: object, picture: object) -> None:
    with pytest.raises(RunError, match="There is no image"):
        checked_image(three_steps(run), step, picture)
    assert checked_image(three_steps(run), 500, 1) == SelectedImage(step=500, picture=1)
