"""The Training tab in another language: every text is a message of a catalogue, and nothing that is looked up is."""

import re
from datetime import datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.core.language import _, for_later, speaking
from studio.core.paths import UserData
from studio.core.text import duration, gigabytes
from studio.datasets.session import DatasetSession
from studio.jobs.events import MemoryEvent, NoteEvent
from studio.jobs.folder import RunRequest, RunState, RunStatus
from studio.training.events import AnyEvent, EffectEvent, HeldOutEvent, ProposalEvent, StepEvent
from studio.training.folder import Offer, Preflight, RunFolder
from studio.training.session import RunHistory, TrainingSession, TrainingView
from studio.training.settings import TrainingSettings
from studio.ui.forms import form_groups, section_slug
from studio.ui.shell.commands import Commands, PreflightState
from studio.ui.shell.selection import SelectedImage, Selection
from studio.ui.training import tab as training_tab
from studio.ui.training.end_card import telling_score, verdict
from studio.ui.training.plot import PlotCache, PlotOptions
from studio.ui.training.queue import TrainingPage
from studio.ui.training.view import differences_html, ready_text, reasons, value_words
from tests.training.told_runs import SETTINGS, make_run, sample_event
from tests.ui.queued import job_line
from tests.ui.told_scores import near, reference_event, score_event

pytestmark = pytest.mark.usefixtures("marked")

GIB = 2**30
SHOWN_ATTRIBUTES = ("aria-label", "title", "alt", "placeholder")
NAMES = re.compile(
    r"[\W\d_]*(a|b|white-shoes|LoRA|0\.png|1\.png|shoes-demo|a white shoe|a red boot, side view|"
    r"nothing new|GB|MB|s|e|/\S*)?[\W\d_]*"
)
"""What is no message: numbers with their units, and what users and files are called."""


class Texts(HTMLParser):
    """All that a person reads or hears of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_data(self, data: str) -> None:
        self.found.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in SHOWN_ATTRIBUTES and value]


def unmarked(text: str) -> str:
    """What of a text is outside of all marks."""
    while "⟦" in text:
        text, before = re.sub(r"⟦[^⟦⟧]*⟧", "", text), text
        assert text != before, text
    return text


def not_messages(texts: list[str]) -> list[str]:
    return [text for text in texts if not NAMES.fullmatch(unmarked(text).strip())]


def history_of(*events: AnyEvent) -> RunHistory:
    history = RunHistory()
    for event in events:
        history.apply_event(event)
    return history


def told(run: RunFolder) -> RunHistory:
    nearest = (near("0.png", 0.1, likeness="as a copy", mirrored=True), near("1.png", 1.2))
    memory = MemoryEvent(
        process_bytes=GIB, peak_process_bytes=2 * GIB, system_available_bytes=GIB, system_total_bytes=32 * GIB
    )
    return history_of(
        *(StepEvent(step=i, loss=1 / i, learning_rate=1e-4, grad_norm=0.5, seconds=0.1) for i in range(1, 301)),
        HeldOutEvent(step=100, held_out_loss=0.5, trained_loss=0.4),
        EffectEvent(step=300, groups={"self-attention, up": 0.01, "text encoder": 0.02}),
        *(sample_event(run.root, step) for step in range(100, 1000, 100)),
        reference_event(0.98),
        *(score_event(step, 0.9, *nearest) for step in (100, 300)),
        ProposalEvent(step=300, sentence="Passo 300: ⟦why⟧", sure=False, lora="l"),
        NoteEvent(message="nothing new"),
        memory,
        memory,
    )


@pytest.fixture
def page(tmp_path: Path) -> TrainingPage:
    user_data = UserData(tmp_path)
    commands = Commands(user_data)
    session = TrainingSession(user_data)
    return TrainingPage(session, DatasetSession(user_data, count_tokens=len), commands.preflight, commands.exports)


def shown(page: TrainingPage, view: TrainingView, selection: Selection) -> dict[str, Any]:
    groups = training_tab.render(page, view, selection)
    parts = {name: part for group in groups.values() for name, part in group().items()}
    return {name: part() if callable(part) else part for name, part in parts.items()}


@pytest.mark.parametrize("state", ["running", "finished"])
def test_every_text_of_a_run_is_a_message(state: RunState, page: TrainingPage) -> None:
    run, other = (make_run(page.session.user_data.runs / name, []) for name in "ab")
    status = RunStatus(state=state, step=300, num_steps=400, seconds_per_step=7.9, remaining_seconds=90)
    jobs = tuple(job_line(run, job_id=i, title="a", position=i) for i in (1, 2))
    jobs += (job_line(other, job_id=3, title="b", position=3, kind="batch"),)
    asked: frozenset[RunRequest] = frozenset(("save", "stop") if state == "running" else ())
    view = TrainingView(("a", "b"), jobs, run, status, told(run), active=True, asked=asked)
    parts = shown(page, view, Selection(run="a", compared=("b",), image=SelectedImage(step=300, picture=0)))
    html = [part for part in parts.values() if isinstance(part, str)]
    assert len("".join(html)) > 10_000
    for part in html:
        assert not_messages(Texts(part).found) == []
    for name, part in parts.items():
        if isinstance(part, dict):
            labels = [label for label, value in part.get("choices", ()) if name != "training-dataset"]
            assert not_messages([*labels, part.get("label", "")]) == [], name
    assert 'class="end-verdict good"' in "".join(html) or state == "running"
    assert 'class="bad"' in "".join(html), "an image is as a copy"
    assert not re.search(r'(?:width:|aria-\w+=")\d+,\d', "".join(html)), "CSS and attributes have points"


def test_every_text_where_nothing_is_yet_is_a_message(page: TrainingPage) -> None:
    for part in shown(page, TrainingView(), Selection()).values():
        if isinstance(part, str):
            assert not_messages(Texts(part).found) == []


def test_every_text_of_a_preflight_is_a_message() -> None:
    floats = ("step_seconds", "encoding_seconds", "pictures_seconds", "held_out_seconds", "total_seconds", "epochs")
    ints = ("batches_per_step", "peak_bytes", "limit_bytes", "disk_bytes", "free_disk_bytes")
    with for_later():  # as the process that measures says it, whatever language is spoken where it is read
        reason = _("Gradient checkpointing is on: only {size} are free.", size=gigabytes(3 * GIB // 2))
        effect = _("{steps:,} steps: {time} less", steps=1500, time=duration(4.25))
    found = Preflight.model_validate(
        {**dict.fromkeys(floats, 2.0), **dict.fromkeys(ints, GIB), "num_steps": 3000, "num_pictures": 1991}
        | {"gradient_checkpointing": False, "reason": reason, "warnings": (reason,)}
        | {"offers": (Offer(changes={}, effect=effect),)}
        | {"curve": [{"percent": p, "seconds": 2 + p / 100, "peak_bytes": (9 - p // 50) * GIB} for p in (0, 50, 100)]}
        | {"num_latents": 7200, "latents_bytes": 2 * GIB}
        | {"variants": {"key": "shoe.png", "num_variants": 14, "jpegs": ["QUJD"] * 12}}
    )
    state = PreflightState(number=1, result_json=found.model_dump_json(), form={"rank": 8})
    parts = training_tab.render_preflight(state)
    words, offer = parts["preflight-words"], parts["preflight-offer-0"]
    assert callable(words)
    assert isinstance(offer, dict)
    assert offer["value"] == "⟦1.500 steps: ⟦4,2 s⟧ less⟧"
    html = words()
    assert html.count("⟦Gradient checkpointing is on: only ⟦1,5 GB⟧ are free.⟧") == 2
    assert not_messages(Texts(html).found) == []
    assert "⟦3.000 ⟦steps⟧⟧ ≈ 2,0 s" in html
    assert "⟦Up to 14 variants of each image: 7.200 latents, 2,0 GB of cache.⟧" in html
    assert "⟦shoe.png as training sees it:⟧" in html
    assert html.count('src="data:image/jpeg;base64,QUJD" alt="⟦Variant ') == 12
    assert "⟦and 2 more⟧" in html
    assert "⟦0% freed: 9,0 GB, 2,0 s a step⟧" in html
    assert "[&#34;rank&#34;, &#34;\\u27e6Rank\\u27e7&#34;, 8]" in html


def made_by_forms(tab: training_tab.TrainingTab) -> set[str]:
    """The ids of what `studio/ui/forms.py` lays out."""
    fields = {f"training-{name.replace('_', '-')}" for name in tab.form.settings.fields if name != "dataset"}
    return fields | {f"training-section-{section_slug(group)}" for group in form_groups(TrainingSettings)}


def test_the_forms_and_the_panels_texts_are_messages_and_their_values_are_not() -> None:
    with gr.Blocks() as app:
        tab = training_tab.build()
    texts = []
    for block in app.blocks.values():
        if (block.elem_id or "") not in made_by_forms(tab):
            texts += [str(getattr(block, name, None) or "") for name in ("label", "info", "placeholder")]
            texts += [str(block.value)] if isinstance(block, gr.Button) else []
            texts += Texts(str(block.value)).found if isinstance(block, gr.HTML) and block.value else []
    assert sum("⟦" in text for text in texts) > 40
    assert not_messages(texts) == []
    window = tab.panel.window
    assert window.choices == [("⟦All steps⟧", "All steps"), ("⟦Last 1,000⟧", "Last 1,000"), ("⟦Last 200⟧", "Last 200")]
    assert window.value == "All steps"
    assert dict(map(reversed, tab.form.preset.choices))["quick-try"].startswith("⟦Quick try⟧\n")


def test_what_scores_say_is_a_key_and_its_words_are_messages() -> None:
    scored = score_event(300, 0.97)
    history = history_of(reference_event(0.98), scored)
    found = telling_score(history, scored)
    assert found is not None
    assert found[1] == "better"
    assert verdict(history, scored)[1] == "⟦white border⟧ 10% → 97%, ⟦better than the base⟧ ⟦(dataset 98%)⟧."


def test_each_language_has_a_plot_of_its_own_which_is_kept() -> None:
    history, cache, options = told_steps(50), PlotCache(), PlotOptions()
    portuguese = cache.html(history, options, {}, running=True)
    with speaking("en"):
        english = cache.html(history, options, {}, running=True)
        assert "⟦" not in english
    assert "⟦Learning rate⟧" in portuguese
    assert cache.html(history, options, {}, running=True) is portuguese
    history.apply_event(StepEvent(step=51, loss=1, learning_rate=1e-4, grad_norm=1, seconds=0.5))
    with speaking("en"):
        assert cache.html(history, options, {}, running=True) != english


def told_steps(number: int) -> RunHistory:
    return history_of(
        *(StepEvent(step=i, loss=1 / i, learning_rate=1e-4, grad_norm=1, seconds=0.5) for i in range(1, number + 1))
    )


@pytest.mark.parametrize(
    ("sentence", "why"),
    [
        ("Step 1,300: loss: lowest.", "loss: lowest."),
        ("Passo 1.300: perda: menor.", "perda: menor."),
        ("lowest.", "lowest."),
        ("its loss: 0.1.", "its loss: 0.1."),
    ],
)
def test_why_a_step_is_proposed_is_found_in_whatever_language_it_was_told(sentence: str, why: str) -> None:
    assert reasons(ProposalEvent(step=1300, sentence=sentence, sure=True, lora="l")) == why


def test_settings_that_differ_are_said_as_the_form_says_them(tmp_path: Path) -> None:
    crops = [SETTINGS.model_copy(update={"crop": crop, "prior_dataset": crop}) for crop in ("centre", "random")]
    html = differences_html([make_run(tmp_path / crops[i].crop, [], settings=crops[i]) for i in (0, 1)], {})
    assert "<td>⟦Crop⟧</td><td>⟦centre⟧</td><td>⟦random⟧</td>" in html
    assert "<td>⟦Regularisation images⟧</td><td>centre</td><td>random</td>" in html


def test_numbers_days_and_truths_are_said_as_the_language_has_them() -> None:
    assert list(map(value_words, (True, 3000, 0.0001))) == ["⟦yes⟧", "3.000", "0,0001"]
    ready = ready_text(datetime(2026, 3, 1, 22, 0), 9.5 * 3600)
    assert ready == "⟦ready ⟦Monday⟧ 07:30⟧"
