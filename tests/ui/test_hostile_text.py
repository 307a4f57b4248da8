"""No text that a user, a file or an error supplies becomes markup: every view is given hostile ones in all places."""

import contextlib
import importlib
import inspect
import pkgutil
import random
import typing
from collections.abc import Callable, Iterator, Mapping
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markupsafe import Markup

import studio.ui
from studio.batches.session import BatchSession
from studio.core.errors import StudioError
from studio.core.paths import UserData
from studio.core.records import Label, label_beside, write_label
from studio.datasets.captioning import CaptionSettings, ImageCaptions, begin_captioning
from studio.datasets.report import DatasetReport, Duplicate, Finding
from studio.datasets.session import DatasetSession
from studio.images.gallery import History
from studio.jobs.folder import RunStatus, write_status
from studio.loras.library import LoraLibrary
from studio.training.session import TrainingSession
from studio.ui.datasets.captioning import CaptionJobs, caption_jobs
from studio.ui.datasets.statistics import doctor_html
from studio.ui.inference.history import PastImages
from studio.ui.shell.commands import Commands
from studio.ui.shell.device_busy_box import BlockingJobs
from studio.ui.shell.parts import Group, Part, Update
from studio.ui.training.queue import TrainingPage
from tests.datasets.bad_inputs import encoded, picture
from tests.images.test_gallery import add
from tests.ui.made_up import HOSTILE, MadeUp

NUM_TRIES = 8
PLAIN_TEXT = ("batch-report",)  # Gradio's Markdown shows it, which takes out what could run
# Views that cannot be given just any value, each with the test that has its own.
ELSEWHERE = {
    "studio.ui.datasets.statistics.doctor_html": "test_what_the_doctor_says_is_text",
    "studio.ui.inference.generate_form.token_words": "one paragraph; it needs a tokenizer",
    "studio.ui.inference.generate_form.prompt_notes_html": "paragraphs; it needs a tokenizer",
    "studio.ui.inference.generate.past_image": "a card and a table; it needs an image that we made",
    "studio.ui.inference.vote.score": "test_the_score_says_of_each_pair_what_was_what",
    "studio.ui.datasets.bulk.preview_words": "one paragraph or table; it needs what a form sends",
    "studio.ui.datasets.recipe.preview_words": "one paragraph or table; it needs what a form sends",
    "studio.ui.training.form.purpose_html": "our own presets",
    "studio.ui.batches.tab.render": "made of the panel, and the form of `tests/ui/test_batch_form.py`",
    "studio.ui.training.panel.render": "made of `studio.ui.training.view` and its siblings",
    "studio.ui.training.tab.render": "made of the panel and the preflight",
}


def views() -> dict[str, Callable[..., object]]:
    """The public functions that give HTML, or the parts of a page, by their full names."""
    packages = pkgutil.walk_packages(studio.ui.__path__, "studio.ui.")
    names = ["studio.training.curves", "studio.training.report.parts", *(found.name for found in packages)]
    found = {}
    for module in map(importlib.import_module, names):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                returned = typing.get_type_hints(function).get("return")
                if returned in (Markup, Markup | None, *(dict[str, kind] for kind in (Update, Part, Group))):  # type: ignore[valid-type]
                    found[f"{module.__name__}.{name}"] = function
    return found


VIEWS = views()


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[type, object]]:
    """What cannot be made up: a dataset and a library whose files have hostile names, and empty queues."""
    folder = tmp_path_factory.mktemp("known") / HOSTILE
    folder.mkdir()
    for name in (HOSTILE, f"{HOSTILE}2"):
        (folder / f"{name}.png").write_bytes(encoded(picture(), "PNG"))
        (folder / f"{name}.txt").write_text(HOSTILE, encoding="utf-8")
    (folder / f"{HOSTILE}.safetensors").write_bytes(b"no LoRA")
    outputs = folder / "outputs"
    write_label(label_beside(add(outputs, "2026-11-25/000001-000000-seed1.png", HOSTILE)), Label(starred=True))
    write_label(label_beside(add(outputs, "2026-11-25/000002-000000-seed2.png")), Label(note=HOSTILE))
    user_data = UserData(folder.parent / "user_data")
    dataset = DatasetSession(user_data, count_tokens=len)
    dataset.open_folder(str(folder))
    training, commands = TrainingSession(user_data), Commands(user_data)
    write_captions(user_data, dataset.opened.name, f"{HOSTILE}.png")
    yield {
        CaptionJobs: caption_jobs(user_data),
        TrainingPage: TrainingPage(training, dataset, commands.preflight, commands.exports),
        DatasetSession: dataset,
        LoraLibrary: LoraLibrary(folder),
        TrainingSession: training,
        BatchSession: BatchSession(user_data),
        BlockingJobs: BlockingJobs(user_data),
        PastImages: PastImages(History(outputs), folder / "thumbnails"),
    }
    dataset.close()


def write_captions(user_data: UserData, dataset: str, key: str) -> None:
    """A caption job of a dataset, of which everything is hostile."""
    folder = begin_captioning(CaptionSettings(dataset=dataset, model=HOSTILE, which="all"), user_data)
    made = ImageCaptions(key=key, candidates=(HOSTILE, f"{HOSTILE}2"))
    folder.captions.write_text(made.model_dump_json() + "\n", encoding="utf-8")
    write_status(folder, RunStatus(state="stopped", message=HOSTILE))


class Seen(HTMLParser):
    """The tags and attributes that a browser finds."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs


def assert_text_is_text(html: str) -> None:
    assert HOSTILE not in html
    for name, value in Seen(html).attributes:
        assert name.replace("-", "").isalnum() and not name.startswith("on"), (name, value)
        assert (name, value) != ("src", "x")


def rendered(made: object) -> object:
    """A view's result, with all that is only made under the page's guard."""
    if callable(made) and not isinstance(made, Markup):
        return rendered(made())
    return {name: rendered(part) for name, part in made.items()} if isinstance(made, Mapping) else made


def htmls(made: object) -> Iterator[str]:
    """What of a view's result is HTML. A part that is a string is live, so that the page's script writes it as HTML."""
    if isinstance(made, Mapping):
        for name, part in made.items():
            if isinstance(part, str) and name not in PLAIN_TEXT:
                assert isinstance(part, Markup) or not part, f"{name} is a string that may not be HTML"
                yield part
            elif isinstance(part, dict) and isinstance(part.get("value"), Markup):
                yield part["value"]
            elif isinstance(part, dict) and "__type__" not in part:  # a group of parts
                yield from htmls(part)
    elif made is not None:
        assert isinstance(made, Markup)
        yield made


@pytest.mark.parametrize("name", sorted(VIEWS.keys() - ELSEWHERE.keys()))
def test_a_text_in_any_place_of_a_view_is_text(
    name: str, tmp_path: Path, known: dict[type, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = []
    for number in range(NUM_TRIES):
        made_up = MadeUp(tmp_path, random.Random(f"{name} {number}"), known)
        arguments = made_up.arguments(VIEWS[name])
        with contextlib.suppress(ValueError, AssertionError, StudioError):  # of values that do not go together
            shown.append(rendered(VIEWS[name](**arguments)))
    assert len(shown) >= NUM_TRIES // 4, "what is made up must go together more often"
    for made in shown:
        for html in htmls(made):
            assert_text_is_text(html)


def test_what_the_doctor_says_is_text(tmp_path: Path, known: dict[type, object]) -> None:
    session = known[DatasetSession]
    assert isinstance(session, DatasetSession)
    keys = [row.key for row in session.opened.rows]
    made_up = MadeUp(tmp_path, random.Random(0), known)
    for number in (1, 40):
        findings = tuple(made_up.value(Finding) for _ in range(number))
        pair = made_up.value(Duplicate).model_copy(update={"first": keys[0], "second": keys[1]})
        update = {"findings": findings, "duplicates": (pair,)}
        html = doctor_html(session, made_up.value(DatasetReport).model_copy(update=update))
        assert (html.count("data-remedy=") and "<details" in html) or number == 1
        assert_text_is_text(html)


def test_only_views_that_are_there_are_tested_elsewhere() -> None:
    assert ELSEWHERE.keys() <= VIEWS.keys()


def test_a_text_that_is_not_escaped_would_be_found() -> None:
    for html in (HOSTILE, f"<p title={HOSTILE}>", '<p title="a"\'&"">', "<img src=x>", "<p onclick=a>"):
        with pytest.raises(AssertionError):
            assert_text_is_text(html)
