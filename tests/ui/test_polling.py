"""What the page's script asks about while something goes on, and how it comes to know the rest."""

from collections.abc import Collection, Iterator
from typing import Any

import gradio as gr
import pytest

from studio.ui.shell.app import PageNow, Polling
from studio.ui.shell.parts import Seen, Update
from studio.ui.shell.selection import Selection, read_selection

Parts = dict[str, Update]
REQUEST = gr.Request(session_hash="abc")


@pytest.fixture
def parts() -> Parts:
    """What the page should show: the step is live, the button and the images are Gradio's."""
    return {"step": "1", "pictures": "a", "button": gr.update(interactive=True)}


@pytest.fixture
def polling(parts: Parts) -> Iterator[Polling]:
    with gr.Blocks():
        shown = {"tab": {"pictures": gr.HTML(), "button": gr.Button()}}
        yield Polling(lambda chosen, areas: PageNow(parts, 1.0, chosen), shown)


def rest_of(brought: str) -> str:
    """What the page's script takes from a refresh."""
    area, digest, session, _ = brought.split(" ")
    assert (area, session) == ("tab", "abc")
    return digest


def refresh(polling: Polling, has: Seen | None, selection: str) -> list[Any]:
    return polling.refresh_of("tab")(has, selection, REQUEST)


def live(polling: Polling, has: dict[str, Any], selection: str = "") -> dict[str, Any]:
    return polling.live(has, selection, ["tab"])


def test_a_live_part_is_sent_where_the_page_has_another_and_then_no_more(polling: Polling, parts: Parts) -> None:
    first = live(polling, {"step": ""})
    assert first["parts"]["step"]["html"] == "1"
    has = {"step": first["parts"]["step"]["digest"]}
    assert live(polling, has)["parts"] == {}
    parts["step"] = "2"
    assert live(polling, has)["parts"]["step"]["html"] == "2"


def test_only_parts_that_are_in_the_page_are_sent(polling: Polling) -> None:
    assert live(polling, {})["parts"] == {}
    assert live(polling, {"nosuch": "", "step": 3})["parts"].keys() == {"step"}


def test_whatever_else_changes_is_brought_by_a_refresh(polling: Polling, parts: Parts) -> None:
    pictures, button, seen, brought, _ = refresh(polling, None, "")
    assert (pictures, button) == ("a", gr.update(interactive=True))
    assert live(polling, {})["rest"]["tab"] == rest_of(brought)
    parts["step"] = "2"
    assert live(polling, {})["rest"]["tab"] == rest_of(brought), "which the script writes itself"
    parts["pictures"] = "b"
    assert live(polling, {})["rest"]["tab"] != rest_of(brought)
    pictures, button, seen, brought, _ = refresh(polling, seen, "")
    assert (pictures, button) == ("b", gr.skip())
    assert live(polling, {})["rest"]["tab"] == rest_of(brought)


def test_an_answer_that_was_overtaken_hides_no_change(polling: Polling, parts: Parts) -> None:
    *_, seen, _, _ = refresh(polling, None, "")
    old = refresh(polling, seen, "")  # on its way
    parts["pictures"] = "b"
    refresh(polling, seen, "")
    assert live(polling, {})["rest"]["tab"] != rest_of(old[-2]), "it arrives last, and with it the old image"


def test_the_script_hears_of_every_refresh(polling: Polling) -> None:
    *_, seen, first, _ = refresh(polling, None, "")
    *_, second, _ = refresh(polling, seen, "")
    assert first != second
    assert rest_of(first) == rest_of(second)


def test_the_script_is_told_when_to_ask_again(polling: Polling) -> None:
    assert live(polling, {})["look_again_seconds"] == 1.0


@pytest.fixture
def runs() -> list[str]:
    """The names of all runs, newest first."""
    return ["a"]


@pytest.fixture
def by_run(runs: list[str]) -> Iterator[Polling]:
    """Pages that show their runs' names; one that has chosen none shows the newest."""

    def now(chosen: Selection, areas: Collection[str]) -> PageNow:
        shown = chosen.model_copy(update={"run": chosen.run or runs[0]})
        return PageNow({"name": shown.run, "state": shown.run}, 1.0, shown)

    with gr.Blocks():
        yield Polling(now, {"tab": {"name": gr.HTML()}})


def selected(run: str) -> str:
    return Selection(run=run).model_dump_json()


def test_each_page_is_brought_what_it_has_chosen_and_neither_hides_a_change_from_the_other(by_run: Polling) -> None:
    name_a, seen_a, brought_a, _ = by_run.open(selected("a"), REQUEST)
    name_b, seen_b, brought_b, _ = by_run.open(selected("b"), REQUEST)
    assert (name_a, name_b) == ("a", "b")
    assert live(by_run, {"state": ""}, selected("a"))["parts"]["state"]["html"] == "a"
    assert live(by_run, {"state": ""}, selected("b"))["parts"]["state"]["html"] == "b"
    assert live(by_run, {}, selected("a"))["rest"]["tab"] == rest_of(brought_a)
    assert live(by_run, {}, selected("b"))["rest"]["tab"] == rest_of(brought_b)
    assert live(by_run, {}, selected("b"))["rest"]["tab"] != rest_of(brought_a), (
        "a page that chose anew asks for a refresh"
    )
    assert refresh(by_run, seen_a, selected("a"))[0] == gr.skip()
    assert refresh(by_run, seen_b, selected("a"))[0] == "a"


def test_what_was_chosen_for_a_page_stays_its_own(by_run: Polling, runs: list[str]) -> None:
    _, seen, _, selection = by_run.open("", REQUEST)
    assert read_selection(selection).run == "a"
    runs.insert(0, "b")
    assert refresh(by_run, seen, selection)[0] == gr.skip()
    assert by_run.open(selection, REQUEST)[0] == "a", "after a reload too"
    assert by_run.open("", REQUEST)[0] == "b", "another page"


def test_a_refresh_leaves_a_selection_alone_that_may_have_changed_meanwhile(by_run: Polling) -> None:
    _, seen, _, _ = by_run.open(selected("a"), REQUEST)
    assert refresh(by_run, seen, selected("a"))[-1] == gr.skip()
    assert by_run.open(selected("a"), REQUEST)[-1] == selected("a"), "which its component does not hold yet"


def test_the_first_refresh_of_a_tab_leaves_it_alone_too() -> None:
    with gr.Blocks():
        parts = {"status": {"name": gr.HTML()}, "tab": {"state": gr.HTML()}}
        polling = Polling(lambda chosen, areas: PageNow({"name": "", "state": ""}, 1.0, chosen), parts)
    assert polling.open(selected("a"), REQUEST)[-1] == selected("a")
    assert refresh(polling, None, selected("a"))[-1] == gr.skip(), "one may have pressed a run's card meanwhile"


def test_of_areas_that_nobody_looks_at_nothing_is_made_or_brought() -> None:
    made: list[str] = []

    def now(chosen: Selection, areas: Collection[str]) -> PageNow:
        made.extend(areas)
        return PageNow({area: area for area in areas}, 0, chosen)

    with gr.Blocks():
        polling = Polling(now, {area: {area: gr.HTML()} for area in ("status", "first", "second")})
    status, *_, brought, _ = polling.open("", REQUEST)
    assert (status, brought.split(" ")[0], made) == ("status", "status", ["status"])
    made.clear()
    answer = polling.live({"first": "", "second": ""}, "", ["second", "status", "nosuch"])
    assert made == ["status", "second"]
    assert answer["rest"].keys() == {"status", "second"}
    assert answer["parts"].keys() == {"second"}, "the first tab is in the page and hidden"
