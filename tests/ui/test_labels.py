"""A name and a note: each press is about what its page shows, what is written comes back, and nothing moves."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from gradio.state_holder import SessionState
from markupsafe import escape

from studio.batches.outputs import Provenance, write_provenance
from studio.batches.plan import open_plan
from studio.batches.report import write_report as write_batch_report
from studio.batches.session import BatchSession
from studio.core.errors import LoraError
from studio.core.paths import UserData
from studio.core.records import Label, label_beside, read_label
from studio.core.settings import ModelSettings
from studio.core.text import escape_markdown
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView
from studio.images.gallery import History, picture_name
from studio.jobs.folder import JobFolder, RunStatus, write_status
from studio.jobs.queue import JobQueue
from studio.jobs.words import title
from studio.loras.library import LoraLibrary
from studio.training.folder import RunFolder
from studio.training.report import write_report as write_training_report
from studio.training.session import TrainingSession
from studio.ui.batches import view as batch_view
from studio.ui.datasets.html import summary
from studio.ui.inference.generate import past_image
from studio.ui.inference.history import past_words
from studio.ui.inference.loras import render as render_loras
from studio.ui.shell import item_actions
from studio.ui.shell.app import build_app
from studio.ui.shell.parts import Refusal
from studio.ui.shell.selection import Selection
from studio.ui.training import queue
from studio.ui.training.view import differences_html, state_html
from tests.batches.test_session import make_batch, note
from tests.images.test_gallery import add
from tests.loras.test_library import write_lora
from tests.training.told_runs import SETTINGS, make_run
from tests.ui.test_mutated_user_data import CheckedAtOnce

HOSTILE = "<b>*bold*</b> & “quoted” | [link](x)"
NOTE = "  first line\n\t| second <i>line</i> | é 👩‍👩‍👧\n"
OLD, NEW, GONE = "20261124-220000-old", "20261125-220000-new", "20261123-220000-gone"


def lived_in(folder: Path) -> UserData:
    user_data = UserData(folder / "user_data")
    for name in (OLD, NEW, GONE):
        make_run(user_data.runs / name, [])
    return user_data


@pytest.fixture
def user_data(tmp_path: Path) -> UserData:
    return lived_in(tmp_path)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> UserData:
    """What the page shows, which takes a second to be made."""
    return lived_in(tmp_path_factory.mktemp("pressed"))


@pytest.fixture(scope="module")
def page(place: UserData) -> Iterator[gr.Blocks]:
    datasets = CheckedAtOnce(place, count_tokens=len)
    engine = EngineClient(place, model=ModelSettings(), cpu_only=True)
    yield build_app(engine, datasets, TrainingSession(place), place, cpu_only=True)
    datasets.close()


class Pressed:
    """One page of a browser: what it presses, and what it is told."""

    def __init__(self, page: gr.Blocks, name: str) -> None:
        self._page = page
        self._name = name
        self._state = SessionState(page)
        self.line: dict[str, Any] = {}
        self.by_id: dict[str, Any] = {}

    def press(self, button: str, *values: object, event: str = "click", **data: object) -> dict[str, Any]:
        """What becomes of the parts of the page, by the ends of their ids; `#` stands before a whole id.

        Raises:
            Refusal: where it is refused.
        """
        ids = {block: getattr(component, "elem_id", None) for block, component in self._page.blocks.items()}
        pressed = (button[1:] if button.startswith("#") else f"{self._name}-{button}", event)
        function = next(
            function
            for function in self._page.fns.values()
            if function.fn and pressed in {(ids.get(block), name) for block, name in function.targets}
        )
        answer = asyncio.run(
            self._page.process_api(
                function,
                list(values),
                request=gr.Request(session_hash="abc"),
                state=self._state,
                event_data=gr.EventData(None, data),
            )
        )
        self.by_id = {str(ids[o._id]): value for o, value in zip(function.outputs, answer["data"], strict=True)}
        names = [str(ids[output._id] or "about").rpartition("-")[2] for output in function.outputs]
        return dict(zip(names, answer["data"], strict=True))

    def open(self, *values: object, button: str = "rename", event: str = "click", **data: object) -> dict[str, Any]:
        self.line = self.press(button, *values, event=event, **data)
        return self.line

    def save(self, name: str, note: str, starred: bool = False) -> dict[str, Any]:
        about = self.line["about"]
        return self.press("label-save", about["value"] if isinstance(about, dict) else about, name, note, starred)


def selecting(**chosen: str) -> str:
    return Selection.model_validate(chosen).model_dump_json()


def test_two_pages_name_the_run_that_each_shows_while_it_runs(page: gr.Blocks, place: UserData) -> None:
    one, two = Pressed(page, "training"), Pressed(page, "training")
    for name in (OLD, NEW):
        write_status(RunFolder(place.runs / name), RunStatus(state="running", step=1, num_steps=9))
    opened = one.open(selecting(run=OLD))
    assert (opened["name"]["value"], opened["name"]["label"]) == ("", f"Name of {title(RunFolder(place.runs / OLD))}")
    two.open(selecting(run=NEW))
    assert one.save(HOSTILE, NOTE)["label"]["visible"] is False
    two.save("second", "")
    assert read_label(RunFolder(place.runs / OLD).label) == Label(name=HOSTILE, note=NOTE)
    assert read_label(RunFolder(place.runs / NEW).label) == Label(name="second")
    assert one.open(selecting(run=OLD))["note"]["value"] == NOTE
    assert sorted(path.name for path in place.runs.iterdir()) == [GONE, OLD, NEW], "a folder never moves"


def test_what_is_gone_or_breaks_a_rule_is_refused_in_a_sentence(page: gr.Blocks, place: UserData) -> None:
    one = Pressed(page, "training")
    one.open(selecting(run=GONE))
    for name, words in (("x" * 81, "at most 80 characters"), ("a\x00", r"control characters, such as U\+0000")):
        with pytest.raises(Refusal, match=words):
            one.save(name, "")
    for path in sorted((place.runs / GONE).rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (place.runs / GONE).rmdir()
    with pytest.raises(Refusal, match="There is no run"):
        one.save("a", "")
    assert not (place.runs / GONE).exists()


def test_a_batch_is_named_as_a_run_is(page: gr.Blocks, place: UserData) -> None:
    session = BatchSession(place)
    batch = make_batch(session, "boots", "finished")
    one = Pressed(page, "batch")
    one.open(selecting(batch=batch.name))
    one.save(HOSTILE, NOTE)
    view = session.view(batch.name)
    assert view.labels[batch.name] == read_label(batch.label) == Label(name=HOSTILE, note=NOTE)
    parts = batch_view.render(view)
    choices: Any = parts["batch-run"]
    assert choices["choices"] == [(title(batch), batch.name)]
    assert title(batch).startswith(f"{HOSTILE} · today ")
    assert choices["value"] == batch.name
    for html in (batch_view.state_html(view), batch_view.past_html(view)):
        assert "&lt;b&gt;*bold*&lt;/b&gt; &amp; “quoted”" in html
        assert "<b>*" not in html


def named_run(user_data: UserData, label: Label) -> tuple[TrainingSession, RunFolder]:
    session = TrainingSession(user_data)
    session.set_label(session.named(OLD), label)
    return session, session.named(OLD)


def test_a_name_stands_in_the_head_the_lists_the_queue_and_beside_other_runs(user_data: UserData) -> None:
    session, run = named_run(user_data, Label(name=HOSTILE, note=NOTE))
    JobQueue(user_data).add("train", run.root, run.name)
    view = session.view(OLD)
    assert view.run == run
    head = str(state_html(view))
    assert '<b dir="auto">&lt;b&gt;*bold*' in head
    assert "second &lt;i&gt;line&lt;/i&gt;" in head
    assert escape(title(run)) in queue.queue_html(view.jobs, OLD)
    other = make_run(user_data.runs / "x", [], settings=SETTINGS.model_copy(update={"rank": 64}))
    assert "&lt;b&gt;*bold*" in differences_html([run, other], view.titles)
    assert view.jobs[0].short_title == HOSTILE, "as the line at the top has it"
    assert view.names == (NEW, OLD, GONE)


@pytest.mark.parametrize("content", [b"", b"\xff", b'{"name": 3}', b'{"name": "\\ud800"}', b"[]", b"x" * 200_000])
def test_a_damaged_name_is_said_in_the_head_and_takes_nothing_with_it(user_data: UserData, content: bytes) -> None:
    session, run = named_run(user_data, Label(name="a"))
    run.label.write_bytes(content)
    view = TrainingSession(user_data).view(OLD)
    assert "cannot be read" in state_html(view)
    assert 'role="status"' in state_html(view), "the state is shown all the same"
    assert OLD in view.names
    session.set_label(run, Label(name="b"))
    assert read_label(run.label) == Label(name="b")


def test_a_name_of_another_process_is_seen_at_the_next_look_and_others_are_not_read_again(
    user_data: UserData, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, run = named_run(user_data, Label(name="a"))
    assert session.view().labels == {OLD: Label(name="a")}
    looked_at: list[JobFolder] = []
    label = RunFolder.label.fget
    assert label is not None
    monkeypatch.setattr(RunFolder, "label", property(lambda folder: looked_at.append(folder) or label(folder)))
    session.labels(session.folders())
    assert looked_at == []
    TrainingSession(user_data).set_label(run, Label(name="b"))
    assert session.view().labels == {OLD: Label(name="b")}


def test_reports_take_the_name_and_the_note_of_now_as_text(user_data: UserData) -> None:
    session, batches = TrainingSession(user_data), BatchSession(user_data)
    run, batch = session.named(OLD), make_batch(batches, "boots", "finished")
    write_training_report(run)
    note(batch, 0)
    write_batch_report(batch, open_plan(batch.plan), finished=True)
    verdict_on = batch.report.read_text(encoding="utf-8").partition("\n**")[2]
    for label in (Label(name=HOSTILE, note=f"**1 of 4**\n{NOTE}"), Label(name="b"), Label()):
        session.set_label(run, label)
        batches.set_label(batch, label)
        html = (run.root / "report.html").read_text(encoding="utf-8")
        markdowns = [path.read_text(encoding="utf-8") for path in (run.root / "report.md", batch.report)]
        assert f"<title>Training of {escape(label.name or 'old')}</title>" in html
        assert ('<p class="note"' in html) == bool(label.note)
        assert escape(label.note) in html
        assert markdowns[0].startswith(f"# Training of {escape_markdown(label.name or 'old')}\n")
        assert markdowns[1].startswith(f"# {escape_markdown(label.name or 'boots')}\n")
        for markdown in markdowns:
            for line in filter(str.strip, label.note.splitlines()):
                assert f"\n{escape_markdown(line)}\n" in markdown
        assert markdowns[1].partition("\n**")[2] == verdict_on
        assert batch_view.report_markdown(batches.view(batch.name)).startswith("**1 of 4 images are made")


def test_a_dataset_says_by_its_name_which_batch_it_came_from(user_data: UserData) -> None:
    batches = BatchSession(user_data)
    batch = make_batch(batches, "boots", "finished")
    note(batch, 0)
    origin = Provenance(
        batch=batch.name, model="m", model_revision="", precision="float32", loras=(), plan_sha256="0" * 64
    )
    write_provenance(batch.provenance, origin)
    batches.set_label(batch, Label(name="<i>boots"))
    datasets = CheckedAtOnce(user_data, count_tokens=len)
    datasets.open_folder(str(batch.dataset))
    assert "in the batch &lt;i&gt;boots · today " in summary(datasets, datasets.view)
    datasets.close()


def test_a_lora_is_renamed_and_noted_on_from_its_card(page: gr.Blocks, place: UserData) -> None:
    library = LoraLibrary(place.loras)
    write_lora(place.loras / "shoes.safetensors")
    one, two = Pressed(page, "lora"), Pressed(page, "lora")
    for pressed in (one, two):
        opened = pressed.open(button="cards", event="edit", name="shoes")
        assert opened["name"]["value"] == "shoes"
    assert two.open(button="cards", event="edit", name="white-ground")["name"]["interactive"] is False
    two.save("white-ground", "a shipped one")
    with pytest.raises(Refusal, match="none of them"):
        one.save("a/b", NOTE)
    assert library.notes() == {"white-ground": "a shipped one"}, "what is refused changes nothing"
    one.save("boots", NOTE)
    assert library.names() == ("boots", "white-ground")
    assert library.notes() == {"boots": NOTE, "white-ground": "a shipped one"}
    with pytest.raises(Refusal, match="There is no LoRA named shoes in the library any more"):
        one.save("hats", "")
    with pytest.raises(LoraError, match="There is no LoRA named shoes in the library, which has: boots"):
        library.find("shoes")
    parts: Any = render_loras(EngineView(), library, Selection(lora_search="SECOND"))
    cards = parts["lora-cards"]()
    assert "second &lt;i&gt;line&lt;/i&gt;" in cards
    assert "white-ground" not in cards


def test_an_image_is_noted_on_starred_and_found_by_it(page: gr.Blocks, place: UserData) -> None:
    first, second = (add(place.outputs, f"2026-11-25/00000{i}-000000-seed{i}.png") for i in (1, 2))
    history = History(place.outputs)
    one, two = Pressed(page, "history"), Pressed(page, "history")
    one.open(button="#generate-strip", event="edit", image=picture_name(first))
    two.open(button="#generate-pictures", event="edit", image=picture_name(second))
    one.save("", NOTE, True)
    two.save("", "another")
    assert [past.path for past in history.page(1, search="second ★").pictures] == [first]
    assert [past.path for past in history.page(1, search="ANOTHER").pictures] == [second]
    assert [past.label for past in history.page(1).pictures] == [Label(note="another"), Label(note=NOTE, starred=True)]
    assert "second &lt;i&gt;line&lt;/i&gt;" in past_image(first)
    assert [past_words(past)[:10] for past in history.page(1).pictures] == ["another", "first line"]
    label_beside(first).write_bytes(b"damaged")
    assert "cannot be read" in past_image(first)
    assert len(history.page(1, search="shoe").pictures) == 2
    second.unlink()
    with pytest.raises(Refusal, match="is gone"):
        two.save("", "again")
    outside = place.root / "x.png"
    with pytest.raises(Refusal, match="not one of the studio"):
        one.press("label-save", str(outside), "", "a", False)


def test_the_line_takes_as_many_characters_as_what_is_named_may_have() -> None:
    with gr.Blocks():
        run, lora = item_actions.build_label("run"), item_actions.build_label("lora", names_file=True)
    assert (run.name.max_length, run.note.max_length) == (80, 2000)
    assert (lora.name.max_length, lora.note.max_length) == (None, 2000), "a file of another program may have a long one"
