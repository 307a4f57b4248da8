"""Validation images by step as a table: a row a prompt, the base's first; scores below, with what comes nearest."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from studio.core.errors import DatasetError
from studio.core.text import counted, escape
from studio.datasets.snapshot import read_snapshot
from studio.training.events import NearestReported, SampleEvent
from studio.training.folder import RunFolder
from studio.training.follower import RunHistory
from studio.ui.shell.images import run_thumbnail_url, training_thumbnail_url
from studio.ui.training.plot import NEAREST, SCORES, ScoreKind, by_step, title_html

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


def samples_html(run: RunFolder | None, history: RunHistory | None, thumbnails: Thumbnails) -> str:
    """The table; words where there is no image yet."""
    if run is None or history is None or not history.samples:
        return '<p class="quiet">Images of the same prompts and seeds appear here step by step, beside the base.</p>'
    trained = [event for event in looked_at_steps(history) if event.step > 0]
    shown = spread_out(trained, MAX_COLUMNS)
    head = "".join(f'<th scope="col">step {event.step:,}</th>' for event in shown)
    last = history.samples[-1]
    rows = "".join(_prompt_row(run, last, shown, index, thumbnails) for index in range(len(last.base)))
    left_out = len(trained) - len(shown)
    note = f" {counted(left_out, 'step')} in between not shown here." if left_out else ""
    return (
        '<div class="table-frame samples-frame" tabindex="0" role="group" aria-label="Validation pictures"><table '
        f'class="samples"><caption>Images by step <span class="quiet">press one to see it large beside the '
        f'base.{note}</span></caption><thead><tr><th scope="col">prompt</th><th scope="col">base</th>{head}</tr>'
        f"</thead><tbody>{rows}{_score_rows(run, shown, history, thumbnails)}</tbody></table></div>"
    )


def spread_out(samples: Sequence[SampleEvent], most: int) -> list[SampleEvent]:
    """The first, the last, and some evenly in between."""
    if len(samples) <= most:
        return list(samples)
    return [samples[round(i * (len(samples) - 1) / (most - 1))] for i in range(most)]


def _prompt_row(
    run: RunFolder, last: SampleEvent, shown: Sequence[SampleEvent], index: int, thumbnails: Thumbnails
) -> str:
    prompt = last.prompts[index % len(last.prompts)]
    # The base's image leads to the last step's, whose base it is.
    base = _picture(run, last.base[index], f"base: {prompt}", (last.step, index), thumbnails)
    cells = "".join(f"<td>{_sample(run, event, index, thumbnails)}</td>" for event in shown)
    return f'<tr><th scope="row" class="prompt">{escape(prompt)}</th><td>{base}</td>{cells}</tr>'


def _sample(run: RunFolder, event: SampleEvent, index: int, thumbnails: Thumbnails) -> str:
    """The LoRA's image of a prompt at a step; a resumed run may have had fewer prompts then."""
    if index >= len(event.pictures):
        return ""
    words = f"step {event.step:,}: {event.prompts[index]}"
    return _picture(run, event.pictures[index], words, (event.step, index), thumbnails)


def _picture(run: RunFolder, file: str | None, words: str, place: tuple[int, int], thumbnails: Thumbnails) -> str:
    """A small image that opens large; `place` is its step and its number."""
    if file is None:
        return '<span class="bad">not valid</span>'
    try:
        url = run_thumbnail_url(run.file(file), thumbnails.runs)
    except FileNotFoundError:
        return '<span class="quiet">gone</span>'
    except OSError:
        return '<span class="quiet">cannot be shown</span>'
    step, picture = place
    column = "base" if words.startswith("base") else step
    return (
        f'<button class="sample" type="button" data-step="{step}" data-picture="{picture}" '
        f'data-focus="{picture} {column}" aria-label="Look closer at {escape(words)}">'
        f'<img src="{escape(url)}" alt="" decoding="async"></button>'
    )


def _score_rows(run: RunFolder, shown: Sequence[SampleEvent], history: RunHistory, thumbnails: Thumbnails) -> str:
    """One row a score."""
    if not history.scores:
        return ""
    base = next(iter(history.scores.values())).base
    rows = []
    for kind in SCORES:
        cells = "".join(f"<td>{_score(run, history, event.step, kind, thumbnails)}</td>" for event in shown)
        title = title_html(kind, history)
        rows.append(f'<tr class="score"><th scope="row">{title}</th><td>{escape(kind.words(base))}</td>{cells}</tr>')
    return "".join(rows)


def _score(run: RunFolder, history: RunHistory, step: int, kind: ScoreKind, thumbnails: Thumbnails) -> str:
    """A score of a step; of the likeness to training images also which one comes nearest."""
    reported = history.scores.get(step)
    if reported is None:
        return ""
    words = escape(kind.words(reported.scores))
    found = [nearest for nearest in reported.nearest if nearest is not None]
    if kind is not NEAREST or not found:
        return words
    return _nearest(run, min(found, key=lambda near: near.distance), words, thumbnails)


def _nearest(run: RunFolder, nearest: NearestReported, mean: str, thumbnails: Thumbnails) -> str:
    """The mean distance, and the training image that comes nearest, small, with its likeness in a word."""
    mirrored = ", mirrored" if nearest.mirrored else ""
    words = f"{nearest.key}: {nearest.likeness}{mirrored}, distance {nearest.distance:.2f}"
    url = training_picture_url(run, nearest.key, thumbnails)
    kind = " class='bad'" if nearest.likeness == "as a copy" else ""
    picture = f'<img src="{escape(url)}" alt="{escape(words)}" title="{escape(words)}">' if url else ""
    return f'<span class="nearest">{mean} {picture}<span{kind}>{escape(nearest.likeness)}</span></span>'


def nearest_of_last(run: RunFolder | None, history: RunHistory | None, thumbnails: Thumbnails) -> str:
    """The training images that come nearest to those of the last step, which tell whether it learns by heart."""
    reported = [event for event in by_step(history.scores) if event.step > 0] if history else []
    found = [nearest for nearest in reported[-1].nearest if nearest is not None] if reported else []
    if run is None or not found:
        return ""
    near = sorted(found, key=lambda nearest: nearest.distance)[:MAX_NEAREST]
    return (
        f'<figure class="chart-figure nearest-figure"><figcaption><b>Nearest training images</b> '
        f'<span class="quiet">at step {reported[-1].step:,}</span></figcaption><div>'
        f"{''.join(_nearest_card(run, nearest, thumbnails) for nearest in near)}</div></figure>"
    )


def _nearest_card(run: RunFolder, nearest: NearestReported, thumbnails: Thumbnails) -> str:
    url = training_picture_url(run, nearest.key, thumbnails)
    picture = f'<img src="{escape(url)}" alt="">' if url else ""
    kind = "bad" if nearest.likeness == "as a copy" else "quiet"
    return (
        f'<p title="{escape(nearest.key)}">{picture}<span>{nearest.distance:.2f}<br>'
        f'<span class="{kind}">{escape(nearest.likeness)}</span></span></p>'
    )


def training_picture_url(run: RunFolder, key: str, thumbnails: Thumbnails) -> str:
    """The small copy of a training image by its key in the run's snapshot; "" where there is none."""
    try:
        known = _training_pictures(run.dataset, run.dataset.stat().st_mtime_ns)
    except OSError:  # its folder was changed
        return ""
    if key not in known:
        return ""
    sha256, background = known[key]
    return training_thumbnail_url(sha256, background, thumbnails.datasets)


@lru_cache(maxsize=4)
def _training_pictures(snapshot: Path, _modified_ns: int) -> dict[str, tuple[str, str]]:
    """sha256 and background of each image of a snapshot, by its key; none of one that is damaged."""
    try:
        read = read_snapshot(snapshot)
    except DatasetError:
        return {}
    return {entry.key: (entry.sha256, read.header.recipe.background) for entry in read.entries}
