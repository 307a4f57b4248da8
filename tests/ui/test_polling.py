"""What the page asks about while only a job goes on, and how it comes to know the rest."""

from collections.abc import Iterator

import gradio as gr
import pytest

from studio.ui.parts import Update
from studio.ui.polling import Polling, timer_states

Parts = dict[str, Update]


@pytest.fixture
def parts() -> Parts:
    """What the page should show: the step changes all the time, the pictures now and then."""
    return {"step": "1", "pictures": "a", **timer_states(ours=False, job="train", lively=["train"])}


@pytest.fixture
def polling(parts: Parts) -> Iterator[Polling]:
    with gr.Blocks():
        yield Polling(lambda: parts, {"step": gr.HTML(), "pictures": gr.HTML()}, {"train": ["step"]})


def test_only_a_job_s_own_parts_are_asked_about(polling: Polling, parts: Parts) -> None:
    step, pictures, quick, slow, seen, lively = polling.refresh(None)
    assert (step, pictures, lively) == ("1", "a", {})
    assert (quick["active"], slow["active"]) == (False, True)
    assert polling.following("train")(seen, lively)[:2] == ["1", gr.skip()]
    parts["step"] = "2"
    step, quick, lively = polling.following("train")(seen, lively)
    assert (step, quick) == ("2", gr.skip())
    assert polling.following("train")(seen, lively)[0] == gr.skip()


def test_whatever_else_changes_is_brought_by_one_refresh(polling: Polling, parts: Parts) -> None:
    *_, seen, lively = polling.refresh(None)
    parts["pictures"] = "b"
    _, quick, lively = polling.following("train")(seen, lively)
    assert quick == gr.update(active=True)
    _, pictures, quick, _, seen, lively = polling.refresh(seen)
    assert pictures == "b"
    assert quick == gr.update(active=False), "although the page was told so once already"
    assert polling.following("train")(seen, lively)[1] == gr.skip()


def test_an_answer_that_was_overtaken_hides_no_change(polling: Polling, parts: Parts) -> None:
    *_, seen, lively = polling.refresh(None)
    old = polling.refresh(seen)  # on its way
    parts["pictures"] = "b"
    *_, seen, lively = polling.refresh(seen)
    *_, lively = polling.following("train")(seen, lively)
    seen = old[-2]  # it arrives last, and with it the old picture
    assert polling.following("train")(seen, lively)[1] == gr.update(active=True)


def test_when_the_job_has_ended_both_timers_stop(polling: Polling, parts: Parts) -> None:
    *_, seen, lively = polling.refresh(None)
    parts.update(timer_states(ours=False, job="", lively=["train"]))
    assert polling.following("train")(seen, lively)[1] == gr.update(active=True)
    assert [update["active"] for update in polling.refresh(seen)[2:4]] == [False, False]


def test_the_quick_timer_stands_for_the_others_and_only_the_job_s_own_one_goes() -> None:
    def active(*, ours: bool, job: str) -> list[bool]:
        states = timer_states(ours=ours, job=job, lively=["train", "batch"])
        return [states[name]["active"] for name in ("timer", "train", "batch")]

    assert active(ours=True, job="train") == [True, False, False]
    assert active(ours=False, job="train") == [False, True, False]
    assert active(ours=False, job="batch") == [False, False, True]
    assert active(ours=False, job="") == [False, False, False]
