"""Validation images by step as a table: a row a prompt, the base's first; scores below, with what comes nearest."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from markupsafe import Markup

from studio.core.errors import DatasetError
from studio.core.files import FileStamp, file_stamp
from studio.core.text import template
from studio.datasets.snapshot import read_snapshot
from studio.training.events import NearestReported, SampleEvent
from studio.training.folder import RunFolder
from studio.training.session import RunHistory
from studio.ui.shell.images import run_thumbnail_url, training_thumbnail_url
from studio.ui.shell.parts import paragraph
from studio.ui.training.plot import NEAREST, SCORES, ScoreKind, by_step, reached

_template = template("ui/templates/training.html")

MAX_COLUMNS = 6
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


def samples_html(run: RunFolder | None, history: RunHistory | None, thumbnails: Thumbnails) -> Markup:
    """The table; words where there is no image yet."""
    if run is None or history is None or not history.samples:
        words = "Images of the same prompts and seeds appear here step by step, next to the base."
        return paragraph("quiet", words)
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


def spread_out(samples: Sequence[SampleEvent], most: int) -> list[SampleEvent]:
    """The first, the last, and some evenly in between."""
    if len(samples) <= most:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / (most - 1))] for i in range(most)]


def _prompt_row(
    run: RunFolder, last: SampleEvent, shown: Sequence[SampleEvent], index: int, thumbnails: Thumbnails
) -> tuple[str, list[Markup]]:
    prompt = last.prompts[index % len(last.prompts)]
    # The base's image leads to the last step's, whose base it is.
    base = _picture(run, last.base[index], f"base: {prompt}", (last.step, index), thumbnails)
    return prompt, [base, *(_sample(run, event, index, thumbnails) for event in shown)]


def _sample(run: RunFolder, event: SampleEvent, index: int, thumbnails: Thumbnails) -> Markup:
    """The LoRA's image of a prompt at a step; a resumed run may have had fewer prompts then."""
    if index >= len(event.pictures):
        return Markup()
    words = f"step {event.step:,}: {event.prompts[index]}"
    return _picture(run, event.pictures[index], words, (event.step, index), thumbnails)


def _picture(run: RunFolder, file: str | None, words: str, place: tuple[int, int], thumbnails: Thumbnails) -> Markup:
    """A small image that opens large; `place` is its step and its number."""
    if file is None:
        return _template("no_sample", kind="bad", words="not valid")
    try:
        url = run_thumbnail_url(run.file(file), thumbnails.runs)
    except FileNotFoundError:
        return _template("no_sample", kind="quiet", words="gone")
    except OSError:
        return _template("no_sample", kind="quiet", words="cannot be shown")
    step, picture = place
    column = "base" if words.startswith("base") else step
    return _template("sample", url=url, step=step, picture=picture, column=column, words=words)


def _score_rows(
    run: RunFolder, shown: Sequence[SampleEvent], history: RunHistory, thumbnails: Thumbnails
) -> list[tuple[str, str, list[str]]]:
    """One row a score: its name, what the dataset has, the base's and that of each step."""
    if not history.scores:
        return []
    base = next(iter(history.scores.values())).base
    return [
        (
            kind.title,
            reached(kind, history),
            [kind.words(base), *(_score(run, history, event.step, kind, thumbnails) for event in shown)],
        )
        for kind in SCORES
    ]


def _score(run: RunFolder, history: RunHistory, step: int, kind: ScoreKind, thumbnails: Thumbnails) -> str:
    """A score of a step; of the likeness to training images also which one comes nearest."""
    reported = history.scores.get(step)
    if reported is None:
        return ""
    words = kind.words(reported.scores)
    found = [nearest for nearest in reported.nearest if nearest is not None]
    if kind is not NEAREST or not found:
        return words
    return _nearest(run, min(found, key=lambda near: near.distance), words, thumbnails)


def _nearest(run: RunFolder, nearest: NearestReported, mean: str, thumbnails: Thumbnails) -> Markup:
    """The mean distance, and the training image that comes nearest, small, with its likeness in a word."""
    mirrored = ", mirrored" if nearest.mirrored else ""
    words = f"{nearest.key}: {nearest.likeness}{mirrored}, distance {nearest.distance:.2f}"
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
