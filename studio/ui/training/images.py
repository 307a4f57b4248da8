"""Validation images over the steps: a scrubber that shows one step at a time, and a table of several side by side.

The scrubber begins with the base; below its images stand the scores of the step. In the table each prompt has a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from markupsafe import Markup

from studio.core.errors import DatasetError, RunError, SettingsError
from studio.core.files import FileStamp, file_stamp
from studio.core.language import N_, _
from studio.core.text import template
from studio.datasets.snapshot import read_snapshot
from studio.training.begin import read_run_settings
from studio.training.events import NearestReported, SampleEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory
from studio.ui.shell.images import run_thumbnail_url, training_thumbnail_url
from studio.ui.shell.parts import paragraph
from studio.ui.training.plot import (
    NEAREST,
    NOT_MEASURED,
    OUTCOME_KINDS,
    OUTCOME_WORDS,
    SCORES,
    Outcome,
    ScoreKind,
    by_step,
    reached,
)

_template = template("ui/templates/training.html")
T = TypeVar("T")

MAX_COLUMNS = 6
MAX_SCRUBBED = 24
MAX_MARKS = 7
BASE_STEP = 0
MAX_NEAREST = 3

# Gradio's HTML takes clicks of its own; which image was pressed goes with ours.
PICTURE_CLICKS = """element.addEventListener("click", (event) => {
  const picture = event.target.closest("button.sample");
  if (picture) trigger("click", { step: Number(picture.dataset.step), picture: Number(picture.dataset.picture) });
});"""


@dataclass(frozen=True)
class Thumbnails:
    """The folders of small copies: of runs' images, and of the datasets' that were checked."""

    runs: Path
    datasets: Path


def looked_at_steps(history: RunHistory) -> list[SampleEvent]:
    """The steps whose images are worth a look: at step 0 the LoRA is the base."""
    samples = list(history.samples)
    return [event for event in samples if event.step > 0] or samples


def is_speed_run(run: RunFolder) -> bool:
    """Whether it made a Speed LoRA, beside which its teacher stands in place of the base."""
    try:
        return read_run_settings(run).makes_speed_lora
    except (RunError, SettingsError):  # its settings are damaged: said elsewhere
        return False


def scrubber_html(
    run: RunFolder | None, history: RunHistory | None, thumbnails: Thumbnails, *, best: int | None = None
) -> Markup:
    """The images of the base and of each step, of which the page shows one; words where there is no image yet.

    Args:
        best: the step to show first, of a run that ended; else the last.
    """
    if run is None or history is None or not history.samples:
        words = _("Images of the same prompts and seeds appear here step by step, next to the base.")
        return paragraph("quiet samples-empty", words)
    trained = [event for event in looked_at_steps(history) if event.step > 0]
    events = _scrubbed(trained, best)
    last, steps = history.samples[-1], [BASE_STEP, *(event.step for event in events)]
    shown = best if best in steps else steps[-1]
    prompts = [last.prompts[index % len(last.prompts)] for index in range(len(last.base))]
    return _template(
        "scrubber",
        run=run.name,
        steps=steps,
        shown=shown,
        marks=spread_out(steps, MAX_MARKS),
        best=best,
        columns=1 if len(prompts) == 1 else 2 if len(prompts) <= 4 else 3 if len(prompts) <= 9 else 4,
        prompts=[(prompt, _shots(run, last, events, index, thumbnails)) for index, prompt in enumerate(prompts)],
        scores=_scrubbed_scores(history, events),
        left_out=len(trained) - len(events),
        is_speed=is_speed_run(run),
    )


def _scrubbed(trained: Sequence[SampleEvent], best: int | None) -> list[SampleEvent]:
    """As many as a page takes, the best among them."""
    kept = {event.step for event in spread_out(trained, MAX_SCRUBBED)} | {best}
    return [event for event in trained if event.step in kept]


def _shots(
    run: RunFolder, last: SampleEvent, events: Sequence[SampleEvent], index: int, thumbnails: Thumbnails
) -> list[tuple[int, Markup]]:
    """The images of one prompt, each with its step, the base's first."""
    prompt = last.prompts[index % len(last.prompts)]
    words = _("Enlarge base: {prompt}", prompt=prompt)
    base = _picture(run, last.base[index], words, (last.step, index), thumbnails, column="base")
    enlarge = N_("Enlarge step {step:,}: {prompt}")
    trained = (
        (event.step, _sample(run, event, index, thumbnails, says=enlarge))
        for event in events
        if index < len(event.pictures)
    )
    return [(BASE_STEP, base), *trained]


def _scrubbed_scores(
    history: RunHistory, events: Sequence[SampleEvent]
) -> list[tuple[str, str, str, list[tuple[int, Markup]]]]:
    """Of each score its name, the base's and the dataset's; of each step the number, and how it compares."""
    if not history.scores:
        return []
    reference = history.reference.scores if history.reference is not None else None
    scored = [history.scores[event.step] for event in events if event.step in history.scores]
    base = next(iter(history.scores.values())).base
    rows = []
    for kind in SCORES:
        cells = [
            (e.step, _cell(kind.words(e.scores), kind.verdict(e, reference), reached=kind.reaches(e, reference)))
            for e in scored
        ]
        if any(kind.words(event.scores) != NOT_MEASURED for event in scored):
            rows.append((_(kind.title), kind.words(base), reached(kind, history), cells))
    return rows


def samples_html(run: RunFolder | None, history: RunHistory | None, thumbnails: Thumbnails) -> Markup:
    """The table; empty where there is no image yet."""
    if run is None or history is None or not history.samples:
        return Markup()
    trained = [event for event in looked_at_steps(history) if event.step > 0]
    shown = spread_out(trained, MAX_COLUMNS)
    last = history.samples[-1]
    return _template(
        "samples",
        steps=[event.step for event in shown],
        rows=[_prompt_row(run, last, shown, index, thumbnails) for index in range(len(last.base))],
        scores=_score_rows(run, shown, history, thumbnails),
        left_out=len(trained) - len(shown),
    )


def spread_out(samples: Sequence[T], most: int) -> list[T]:
    """The first, the last, and some evenly in between."""
    if len(samples) <= most:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / (most - 1))] for i in range(most)]


def _prompt_row(
    run: RunFolder, last: SampleEvent, shown: Sequence[SampleEvent], index: int, thumbnails: Thumbnails
) -> tuple[str, list[Markup]]:
    prompt = last.prompts[index % len(last.prompts)]
    # The base's image leads to the last step's, whose base it is.
    words = _("Open base: {prompt}", prompt=prompt)
    base = _picture(run, last.base[index], words, (last.step, index), thumbnails, column="base")
    open_it = N_("Open step {step:,}: {prompt}")
    return prompt, [base, *(_sample(run, event, index, thumbnails, says=open_it) for event in shown)]


def _sample(run: RunFolder, event: SampleEvent, index: int, thumbnails: Thumbnails, *, says: str) -> Markup:
    """The LoRA's image of a prompt at a step; a resumed run may have had fewer prompts then."""
    if index >= len(event.pictures):
        return Markup()
    words = _(says, step=event.step, prompt=event.prompts[index])
    return _picture(run, event.pictures[index], words, (event.step, index), thumbnails)


def _picture(
    run: RunFolder, file: str | None, words: str, place: tuple[int, int], thumbnails: Thumbnails, *, column: str = ""
) -> Markup:
    """A small image that opens large; `place` is its step and its number, `column` where it stands if not there."""
    if file is None:
        return _template("no_sample", kind="bad", words=_("not valid"))
    try:
        url = run_thumbnail_url(run.file(file), thumbnails.runs)
    except FileNotFoundError:
        return _template("no_sample", kind="quiet", words=_("gone"))
    except OSError:
        return _template("no_sample", kind="quiet", words=_("cannot be shown"))
    step, picture = place
    return _template("sample", url=url, step=step, picture=picture, column=column or step, words=words)


def _score_rows(
    run: RunFolder, shown: Sequence[SampleEvent], history: RunHistory, thumbnails: Thumbnails
) -> list[tuple[str, str, list[Markup]]]:
    """One row a score: its name, what the dataset has, the base's and that of each step."""
    if not history.scores:
        return []
    base = next(iter(history.scores.values())).base
    return [
        (
            _(kind.title),
            reached(kind, history),
            [_cell(kind.words(base)), *(_score(run, history, event.step, kind, thumbnails) for event in shown)],
        )
        for kind in SCORES
    ]


def _cell(words: str, outcome: Outcome = "", *, reached: bool = False) -> Markup:
    told = _(OUTCOME_WORDS[outcome])
    if reached and outcome == "like the base":
        told = _("like base and dataset")
    elif reached:
        told = _("{outcome}, like the dataset", outcome=told)
    return _template("score", words=words, told=told, kind=OUTCOME_KINDS[outcome])


def _score(run: RunFolder, history: RunHistory, step: int, kind: ScoreKind, thumbnails: Thumbnails) -> Markup:
    """A score of a step and how it compares; of the likeness to training images also which one comes nearest."""
    reported = history.scores.get(step)
    if reported is None:
        return Markup()
    words = kind.words(reported.scores)
    found = [nearest for nearest in reported.nearest if nearest is not None]
    if kind is not NEAREST or not found:
        return _cell(words, kind.verdict(reported, history.reference.scores if history.reference else None))
    return _nearest(run, min(found, key=lambda near: near.distance), words, thumbnails)


def _nearest(run: RunFolder, nearest: NearestReported, mean: str, thumbnails: Thumbnails) -> Markup:
    """The mean distance, and the training image that comes nearest, small, with its likeness in a word."""
    likeness = [_(nearest.likeness), *([_("mirrored")] if nearest.mirrored else [])]
    words = _(
        "{image}: {likeness}, distance {distance:.2f}",
        image=nearest.key,
        likeness=", ".join(likeness),
        distance=nearest.distance,
    )
    url = training_picture_url(run, nearest.key, thumbnails)
    return _template("nearest_score", mean=mean, nearest=nearest, url=url, words=words)


def nearest_of_last(run: RunFolder | None, history: RunHistory | None, thumbnails: Thumbnails) -> Markup:
    """The training images that come nearest to those of the last step, which tell whether it learns by heart."""
    reported = [event for event in by_step(history.scores) if event.step > 0] if history else []
    found = [nearest for nearest in reported[-1].nearest if nearest is not None] if reported else []
    if run is None or not found:
        return Markup()
    near = sorted(found, key=lambda nearest: nearest.distance)[:MAX_NEAREST]
    with_urls = [(nearest, training_picture_url(run, nearest.key, thumbnails)) for nearest in near]
    return _template("nearest_figure", step=reported[-1].step, found=with_urls)


def training_picture_url(run: RunFolder, key: str, thumbnails: Thumbnails) -> str:
    """The small copy of a training image by its key in the run's snapshot; "" where there is none."""
    try:
        known = _training_pictures(run.dataset, file_stamp(run.dataset))
    except OSError:  # its folder was changed
        return ""
    if key not in known:
        return ""
    sha256, background = known[key]
    return training_thumbnail_url(sha256, background, thumbnails.datasets)


@lru_cache(maxsize=4)
def _training_pictures(snapshot: Path, _stamp: FileStamp) -> dict[str, tuple[str, str]]:
    """sha256 and background of each image of a snapshot, by its key; none of one that is damaged."""
    try:
        read = read_snapshot(snapshot)
    except DatasetError:
        return {}
    return {entry.key: (entry.sha256, read.header.recipe.background) for entry in read.entries}
