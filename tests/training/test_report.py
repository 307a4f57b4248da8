"""The report of a training: its facts in both forms, of runs in every state, with strangers' text in them."""

import math
import re
import shlex
import statistics
import time
from datetime import datetime
from gettext import NullTranslations
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path

import pytest

from studio.core import language
from studio.core.text import escape_markdown
from studio.jobs.events import EventWriter, ResumedEvent, StateEvent
from studio.jobs.folder import RunStatus
from studio.training.events import AnyEvent, CheckpointEvent, EffectEvent, StepEvent
from studio.training.folder import RunFolder
from studio.training.presets import settings_from
from studio.training.report import standalone_html, write_report
from studio.training.report.facts import worked_seconds
from studio.training.report.outcome import LossChange
from studio.training.report.sections import changed_settings, repeat_command, spread
from studio.training.settings import TrainingSettings
from tests.marked_messages import marked_catalogue
from tests.training.told_runs import (
    GIB,
    SETTINGS,
    at,
    held_out_event,
    long_run_events,
    make_run,
    memory_event,
    sample_event,
    step_event,
)
from tests.ui.told_scores import score_event

STYLE = resources.files("studio").joinpath("training/templates/report.css").read_text(encoding="utf-8")
HOSTILE = "<script>alert(1)</script> | `rm -rf` \"x\" 'y' &lt; <img src=x onerror=alert(2)>"


class Page(HTMLParser):
    """What a browser makes of a page: its tags with their attributes, and its text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def written(run: RunFolder) -> tuple[str, Page]:
    """Both forms, read again."""
    markdown, page = write_report(run)
    assert (markdown, page) == (run.root / "report.md", run.root / "report.html")
    return markdown.read_text(encoding="utf-8"), Page(page.read_text(encoding="utf-8"))


def assert_both_tell(run: RunFolder, *facts: str) -> None:
    markdown, page = written(run)
    for fact in facts:
        assert escape_markdown(fact) in markdown, fact
        assert fact in page.text, fact


def begun(*events: AnyEvent) -> list[AnyEvent]:
    return [StateEvent(at=at(0), state="preparing"), *events]


def test_both_forms_begin_with_what_came_out(tmp_path: Path) -> None:
    steps = [step_event(step) for step in range(1, 401)]
    events = begun(held_out_event(0, 0.2, 0.2), *steps, held_out_event(400, 0.18, 0.15))
    run = make_run(tmp_path / "run", [*events, StateEvent(at=at(3200), state="finished")])
    assert_both_tell(
        run, "Finished: 400 of 400 steps are done, in 53 min 20 s.", "−10.0%", "−25.0%", "Both losses improved"
    )
    assert written(run)[0].splitlines()[2].startswith("Finished: 400 of 400")


@pytest.mark.parametrize(
    ("held_out", "trained", "meaning"),
    [
        (0.18, 0.15, "Both losses improved"),
        (0.2004, 0.15, "Only the training loss improved: the run is memorising"),
        (0.25, 0.15, "Only the training loss improved and the held-out loss got worse: the run is memorising"),
        (0.2003, 0.1999, "Neither loss changed by more than 0.5%"),
        (0.25, 0.21, "Both losses got worse"),
        (0.18, 0.2, "Only the held-out loss improved"),
        (0.2, 0.22, "Nothing got better, and one side got worse"),
        (math.nan, math.nan, "the run diverged"),
        (None, 0.15, "nothing was held out"),
    ],
)
def test_losses_are_told_by_what_they_mean(
    tmp_path: Path, held_out: float | None, trained: float, meaning: str
) -> None:
    first = None if held_out is None else 0.2
    run = make_run(tmp_path / "run", [held_out_event(0, first, 0.2), held_out_event(400, held_out, trained)])
    assert_both_tell(run, meaning)


def test_a_change_is_a_share_of_the_first_loss() -> None:
    change = LossChange(0.2, 0.15)
    assert change.share == pytest.approx(-0.25)
    assert change.words == "from 0.2000 to 0.1500 (−25.0%)"


def test_an_earlier_better_step_is_named_with_its_nearest_checkpoint(tmp_path: Path) -> None:
    looks = [held_out_event(0, 0.2, 0.2), held_out_event(300, 0.15, 0.16), held_out_event(400, 0.18, 0.12)]
    saved = [
        CheckpointEvent(step=s, folder=f"checkpoints/step-{s:06}", num_bytes=1, seconds=0.1) for s in (150, 250, 400)
    ]
    run = make_run(tmp_path / "run", [*looks, *saved])
    for kept in (150, 400):  # that of step 250 was removed
        (run.checkpoints / f"step-{kept:06}").mkdir(parents=True)
    assert_both_tell(
        run,
        "The held-out loss was lowest at step 300 (0.1500), +20.0% since then. "
        "The nearest checkpoint on the disk is that of step 400.",
    )


def test_figures_are_those_of_the_events(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    events = long_run_events(folder, 400, accelerator=True)
    steps = [event for event in events if isinstance(event, StepEvent)]
    run = make_run(folder, events)
    markdown, _ = written(run)
    least, most = min(s.loss for s in steps), max(s.loss for s in steps)
    first, last = statistics.mean(s.loss for s in steps[:40]), statistics.mean(s.loss for s in steps[-40:])
    assert f"| Training loss | {first:.4f} | {last:.4f} | {least:.4f} | {most:.4f} |" in markdown
    peak = max(e.peak_process_bytes for e in events if e.kind == "memory")
    peaks = [e.peak_accelerator_bytes or 0 for e in events if e.kind == "memory"]
    drawn = f"Peak: {peak / GIB:.1f} GB of the process, {max(peaks) / GIB:.1f} GB on the accelerator."
    assert_both_tell(run, drawn, "24.0 GB", "Apple M3 Max (mps)", "2.10.0", "1,594,368 parameters")


def test_settings_that_differ_stand_first_and_all_are_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", begun())
    markdown, page = written(run)
    differing, everything = markdown.split("### All settings")
    differing = differing.split("### Settings that differ")[1]
    assert "| Noise offset | noise\\_offset | 0.1 | 0 |" in differing
    assert "learning\\_rate" not in differing
    for name in TrainingSettings.model_fields:
        assert escape_markdown(name) in everything
        assert name in page.text
    assert page.all("details")


def test_the_dataset_is_told(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", begun(), captions=tuple(f"shoe {i}" for i in range(20)))
    assert_both_tell(
        run, "casual shoes", "/pictures/casual", "448 × 576 pixels", "shoe 0", "shoe 19", "Held out, to measure: 1."
    )
    assert "shoe 1 |" not in written(run)[0]  # a few examples, not all


def test_a_snapshot_that_was_changed_is_not_told_as_if_it_were_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", begun())
    run.dataset.write_bytes(run.dataset.read_bytes().replace(b"a white shoe", b"a green shoe"))
    assert_both_tell(run, "was changed since it was made", "Its snapshot is missing.")
    assert "green" not in written(run)[0]


def test_pictures_are_beside_the_page_in_a_row_each_for_base_and_lora(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = make_run(folder, [sample_event(folder, 0), sample_event(folder, 100, lost=1)])
    markdown, page = written(run)
    sources = [str(image["src"]) for image in page.all("img")]
    assert sources == [
        "samples/base/0-seed42.png",
        "samples/step-000000/0-seed42.png",
        "samples/step-000100/0-seed42.png",
        "samples/base/1-seed43.png",
        "samples/step-000000/1-seed43.png",
    ]
    assert all((folder / source).is_file() and f"]({source})" in markdown for source in sources)
    assert all(image["alt"] and image["width"] == "160" for image in page.all("img"))
    assert "not made: see the problems" in page.text and "not made: see the problems" in markdown


def test_pictures_that_are_gone_or_elsewhere_are_not_linked(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    event = sample_event(folder, 100)
    (tmp_path / "secret.png").write_bytes((folder / "samples/base/0-seed42.png").read_bytes())
    moved = event.model_copy(update={"base": ("../secret.png", str(tmp_path / "secret.png"))})
    (folder / "samples/step-000100/0-seed42.png").unlink()
    _, page = written(make_run(folder, [moved]))
    assert [image["src"] for image in page.all("img")] == ["samples/step-000100/1-seed43.png"]
    assert page.text.count("no longer in the folder") == 3


def test_many_steps_with_pictures_are_thinned_and_it_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = make_run(folder, [sample_event(folder, step) for step in range(0, 1300, 100)])
    assert_both_tell(run, "8 of 13 steps with images are shown, evenly", "Step 0", "Step 1,200")
    columns = re.findall(r"<th scope=\"col\">Step [\d,]+</th>", (folder / "report.html").read_text(encoding="utf-8"))
    assert len(columns) == 8


def test_indices_are_spread_from_the_first_to_the_last() -> None:
    assert spread(3, 8) == [0, 1, 2]
    assert spread(15, 8) == [0, 2, 4, 6, 8, 10, 12, 14]


def test_effects_checkpoints_problems_and_notes_are_told(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run = make_run(folder, long_run_events(folder, 400))
    (run.checkpoints / "step-000400").mkdir(parents=True)
    assert_both_tell(
        run,
        "Cross-attention, up changed most: what was added has 3.4% of the length of its weights.",
        "checkpoints/step-000400",
        "18.4 MB",
        "no longer",
        "TensorBoard could not be written.",
        "The finished LoRA was read back and gives the same.",
        "1 image is trained on, 1 is held out.",
    )
    assert re.search(r"\| 400 \| checkpoints/step-000400 \|.*\| yes \|", written(run)[0])


def test_an_effect_that_is_zero_everywhere_is_no_division_by_zero(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", [EffectEvent(step=1, groups={"ends": 0.0})])
    assert_both_tell(run, "Ends changed most")


def test_strangers_text_is_text_in_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = TrainingSettings(dataset=HOSTILE, validation_prompts=(HOSTILE,), trigger_word=HOSTILE)
    events: list[AnyEvent] = [
        StateEvent(state="failed", message=HOSTILE),
        sample_event(folder, 100, prompts=(HOSTILE,)),
    ]
    status = RunStatus(state="failed", step=1, num_steps=400, message=HOSTILE)
    run = make_run(folder, events, settings=settings, status=status, captions=(HOSTILE, "b"))
    _, page = written(run)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "link", "form"}
    assert not [key for _, attributes in page.tags for key in attributes if key.startswith("on")]
    assert len(page.all("img")) == 2
    assert page.text.count(HOSTILE) >= 4
    assert HOSTILE in str(page.all("img")[0]["alt"])


def test_strangers_text_does_not_break_markdown_tables(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", begun(), captions=(HOSTILE + "\n| a | b |\n# head", "b"))
    markdown, _ = written(run)
    assert not re.search(r"(?<!\\)<(script|img)", markdown)
    assert "\n# head" not in markdown
    for block in re.findall(r"(?:^\|.*\n)+", markdown, flags=re.MULTILINE):
        lines = block.splitlines()
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in lines}) == 1, block
    assert not [line for line in markdown.splitlines() if line.startswith("|") and re.search(r"(?<!\\)`", line)]


@pytest.mark.parametrize("text", ["- a", "1. a", "# a", "---", "===", "+ a", "> a", "12) a"])
def test_text_begins_no_list_and_no_heading(text: str) -> None:
    assert re.match(r"\d*\\", escape_markdown(text))


def test_numbers_stay_readable_in_markdown() -> None:
    assert escape_markdown("0.15 of 3,000 (−7.2%)") == "0.15 of 3,000 (−7.2%)"


def test_half_a_pair_of_surrogates_is_written_as_a_question_mark(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", begun())
    run.events.write_bytes(b'{"kind":"note","message":"left \\ud800 half"}\n{"kind":"note","message":"whole"}\n')
    markdown, page = written(run)
    assert "whole" in markdown and "whole" in page.text


def test_the_page_asks_for_nothing_from_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    _, page = written(make_run(folder, long_run_events(folder, 400)))
    assert page.all("svg")
    links = [str(value) for _, tag in page.tags for key, value in tag.items() if key in ("src", "href", "xlink:href")]
    assert links
    assert all(link.startswith(("samples/", "#")) for link in links)
    assert "url(" not in STYLE and "@import" not in STYLE
    policies = [m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in str(policies[0]["content"])


def test_a_folder_with_nothing_in_it_has_a_report_that_says_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.root.mkdir()
    assert_both_tell(
        run,
        "Not started: no step is done.",
        "events.jsonl is not there or empty",
        "settings.json is not there",
        "plan.json is not there",
        "dataset.jsonl is not there",
    )


@pytest.mark.parametrize("name", ["settings.json", "plan.json", "status.json", "dataset.jsonl", "prior-dataset.jsonl"])
def test_a_damaged_file_is_named_and_all_else_is_told(tmp_path: Path, name: str) -> None:
    run = make_run(tmp_path / "run", begun(step_event(1), StateEvent(at=at(9), state="stopped")))
    (run.root / name).write_bytes(b'{"cut off')
    markdown, page = written(run)
    assert "Missing information" in page.text and name in markdown
    assert "1 of 400 steps are done, in" in page.text
    assert ("Stopped early" in page.text) == (name == "status.json")  # the last state that was told


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("failed", "Failed: 3 of 400 steps are done, in 24 s. The run says: out of room"),
        ("stopped", "Stopped early: 3 of 400"),
        ("paused", "Paused: 3 of 400"),
        ("running", "Still running when this was written: 3 of 400"),
    ],
)
def test_runs_in_every_state_have_a_report(tmp_path: Path, state: str, words: str) -> None:
    status = RunStatus.model_validate({"state": state, "step": 3, "num_steps": 400, "message": "out of room"})
    run = make_run(tmp_path / "run", begun(*(step_event(i) for i in (1, 2, 3))), status=status)
    assert_both_tell(run, words, "The loss of fixed images was not measured", "No finished LoRA came out yet")


def test_steps_told_before_a_resume_at_an_earlier_step_do_not_count(tmp_path: Path) -> None:
    before = [step_event(i, loss=9.0 if i > 2 else 1.0) for i in range(1, 6)]
    after: list[AnyEvent] = [
        ResumedEvent(at=at(1000), step=2),
        *(step_event(i, loss=2.0, reported_at=1000 + 8 * i) for i in (3, 4)),
    ]
    run = make_run(tmp_path / "run", begun(*before, *after), status=RunStatus(state="paused", step=4, num_steps=400))
    markdown, page = written(run)
    assert "| Training loss | 1.0000 | 2.0000 | 1.0000 | 2.0000 |" in markdown
    assert "Paused: 4 of 400" in page.text
    assert "Resumed at step 2 " in page.text and "Resumed at step 2 " in markdown


def test_time_between_sessions_is_no_work() -> None:
    def seconds(*events: AnyEvent) -> float:
        return worked_seconds(events)[-1]

    first = begun(step_event(1, reported_at=10), step_event(2, reported_at=20))
    again: list[AnyEvent] = [
        StateEvent(at=at(5000), state="preparing"),
        ResumedEvent(at=at(5003), step=2),
        step_event(3, reported_at=5010),
    ]
    assert seconds(*first, StateEvent(at=at(25), state="paused"), *again) == 25 + 10
    assert seconds(*first, *again) == 20 + 10  # killed: nobody told of an end
    assert seconds(*first, *again[1:]) == 20 + 7
    waiting = [StateEvent(at=at(30), state="waiting"), StateEvent(at=at(900), state="running")]
    assert seconds(*first, *waiting, step_event(3, reported_at=910)) == 30 + 10
    assert seconds(step_event(1, reported_at=0), step_event(2, reported_at=8)) == 8  # its first line was lost
    naive = StepEvent(at=datetime(2026, 3, 2), step=3, loss=1, learning_rate=1, grad_norm=1, seconds=1)
    assert seconds(*first, naive) >= 0


def test_of_two_looks_at_one_step_the_later_counts(tmp_path: Path) -> None:
    looks = [held_out_event(0, 0.2, 0.2), held_out_event(400, 0.9, 0.9), held_out_event(400, 0.1, 0.1)]
    assert_both_tell(make_run(tmp_path / "run", looks), "from 0.2000 to 0.1000 (−50.0%)")


def test_memory_is_drawn_with_its_peak(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", begun(*(memory_event(60 * i, (4 + i % 3) * GIB) for i in range(30))))
    assert_both_tell(run, "Peak: 6.2 GB of the process.", "minutes of work")
    assert "on the accelerator." not in written(run)[0]


def test_losses_that_are_no_numbers_are_counted(tmp_path: Path) -> None:
    steps = [step_event(i, loss=math.nan if i == 5 else 0.1) for i in range(1, 10)]
    assert_both_tell(make_run(tmp_path / "run", begun(*steps)), "1 step had no finite value.")


def test_the_command_gives_the_same_settings_again() -> None:
    settings = TrainingSettings(
        dataset="my 'best' shoes",
        name="a b",
        snr_gamma=5.0,
        keep_every_steps=None,
        use_ema=True,
        validation_prompts=('a, "b"', "c"),
        num_validation_images=2,
        trigger_word="$(reboot) `x`",
    )
    words = shlex.split(repeat_command(settings))
    assert words[:6] == ["python", "-m", "studio", "train", "--dataset", "my 'best' shoes"]
    assert set(words[6::2]) == {"--set"}
    assert settings_from(None, {"dataset": words[5]}, words[7::2]) == settings
    assert {word.partition("=")[0] for word in words[7::2]} == set(changed_settings(settings)) - {"dataset"}


def test_a_prompt_that_the_command_cannot_tell_is_said(tmp_path: Path) -> None:
    whole, parted = (SETTINGS.model_copy(update={"validation_prompts": (prompt,)}) for prompt in ("a, b", "a | b"))
    assert "duplicate the run" not in written(make_run(tmp_path / "whole", begun(), settings=whole))[0]
    assert_both_tell(make_run(tmp_path / "parted", begun(), settings=parted), "duplicate the run to keep that prompt")


def test_the_command_stands_whole_in_both_forms(tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"trigger_word": "```\n# x"})
    markdown, page = written(make_run(tmp_path / "run", begun(), settings=settings))
    assert f"````sh\n{repeat_command(settings)}\n````" in markdown
    assert repeat_command(settings) in page.words


def test_text_can_be_read_on_its_ground_in_light_and_dark() -> None:
    schemes = [dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", part)) for part in STYLE.split("@media (prefers-color", 1)]
    assert len(schemes) == 2
    for colours in schemes:
        for ink in ("ink", "quiet", "link", "good", "bad"):
            for ground in ("ground", "panel"):
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        for line in ("main", "second", "third"):
            assert contrast(colours[line], colours["panel"]) >= 3, line


def contrast(one: str, other: str) -> float:
    """WCAG's ratio."""

    def luminance(colour: str) -> float:
        channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_a_long_run_has_a_small_report_soon(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", begun())
    lines = [step_event(i, loss=0.1 + (i * 7919 % 1000) / 5000).model_dump_json() for i in range(1, 20_001)]
    lines += [memory_event(8.0 * i, (4 + i % 3) * GIB).model_dump_json() for i in range(20_000)]
    run.events.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    started = time.process_time()
    _, page = write_report(run)
    assert time.process_time() - started < 2
    content = page.read_text(encoding="utf-8")
    assert "600 of 20,000 drawn" in content
    assert len(content) < 200_000


def test_an_older_report_is_replaced_whole(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", begun(step_event(1)))
    written(run)
    EventWriter(run.events).report(step_event(2))
    assert_both_tell(run, "2 of 400")
    assert not list(run.root.glob(".report*"))


def test_a_report_that_is_saved_elsewhere_has_its_pictures_inside(tmp_path: Path) -> None:
    root = tmp_path / "run"
    run = make_run(root, [sample_event(root, 200), sample_event(root, 400, lost=0)])
    page = Page(standalone_html(run))
    sources = [str(image["src"]) for image in page.all("img")]
    assert len(sources) == 5, "two of the base, which stand for both steps, and three of the LoRA"
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not [link for link in page.all("a") if not str(link["href"]).startswith("#")], "it leads nowhere else"
    assert "not made: see the problems" in page.text
    (root / "samples/base/0-seed42.png").write_bytes(b"no image")
    assert "cannot be read" in Page(standalone_html(run)).text
    assert all(str(image["src"]).startswith("samples/") for image in written(run)[1].all("img")), "the one beside them"


@pytest.mark.parametrize(("white", "classes"), [(0.9, 'class="state finished"'), (0.02, 'class="state"')])
def test_a_report_compares_with_the_base_and_is_green_only_where_nothing_got_worse(
    white: float, classes: str, tmp_path: Path
) -> None:
    run = make_run(tmp_path / "run", [*[step_event(step) for step in (1, 2)], score_event(2, white)])
    html = standalone_html(run)
    assert classes in html
    assert (
        f"Compared with the base at step 2: white backgrounds got {'better' if white > 0.5 else 'worse'}: 10% →" in html
    )


def test_a_report_is_in_the_language_of_whoever_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "catalogue", marked_catalogue)
    folder = tmp_path / "run"
    run = make_run(folder, [*long_run_events(folder, 400, accelerator=True), score_event(2, 0.02)])
    with language.speaking(language.PORTUGUESE):
        markdown, page = written(run)
    assert page.all("html") == [{"lang": "pt-BR"}]
    told = [tag for name, tag in page.tags if name != "img" and (tag.get("aria-label") or "").startswith("⟦")]
    assert len(told) == len([tag for name, tag in page.tags if name != "img" and "aria-label" in tag])
    for head in re.findall(r"^#+ (.*)$", markdown, flags=re.MULTILINE):
        assert head.startswith("⟦") or re.match(r"\d+\\\.", head), f"{head} is no prompt, and not translated"
    assert "⟦white backgrounds⟧ got worse" in markdown and 'class="state"' in (folder / "report.html").read_text(
        "utf-8"
    )
    assert "0,34%" in markdown and "noise_offset=0.1" in markdown, "numbers are the language's, commands are not"


def test_places_in_a_drawing_are_the_same_in_every_language(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(language, "catalogue", lambda tag: NullTranslations())
    folder = tmp_path / "run"
    run = make_run(folder, long_run_events(folder, 400))
    drawn = []
    for tag in language.LANGUAGES:
        with language.speaking(tag):
            _, page = written(run)
        names = ("x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "d", "viewbox")
        drawn.append([[attributes.get(name) for name in names] for _, attributes in page.tags])
    assert drawn[0] == drawn[1]
