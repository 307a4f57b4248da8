"""What the Compare mode shows: the pair, the strip, a sentence, the blind vote. From facts to HTML, no gradio."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from studio.core.text import duration, escape
from studio.engine.process.view import EngineView
from studio.images.comparison import ComparedPair, ComparedPicture, CompareReport, SavedComparison, StripPicture
from studio.ui.shell.images import empty_frame, picture_frame, running_frame
from studio.ui.shell.parts import data_url


def pair_name(index: int, pair: ComparedPair) -> str:
    """`1 · red sneakers · seed 42`."""
    settings = pair.left.settings
    prompt = settings.prompt if len(settings.prompt) <= 40 else settings.prompt[:39] + "…"
    return f"{index + 1} · {prompt} · seed {settings.seed}"


def pair_choices(saved: SavedComparison | None) -> list[tuple[str, int]]:
    """Name and number of every finished pair."""
    if saved is None:
        return []
    return [(pair_name(i, pair), i) for i, pair in enumerate(saved.report.pairs) if pair.right is not None]


def pair_files(saved: SavedComparison | None, index: int) -> tuple[str, str] | None:
    """The files of both sides of a pair, for the slider; None where one is missing."""
    if saved is None or index >= len(saved.report.pairs):
        return None
    pair = saved.report.pairs[index]
    files = [saved.folder / side.file for side in (pair.left, pair.right) if side and side.file]
    return (str(files[0]), str(files[1])) if len(files) == 2 and all(f.is_file() for f in files) else None


def finished_pairs(saved: SavedComparison | None) -> int:
    """How many pairs have both sides."""
    return sum(pair.right is not None for pair in saved.report.pairs) if saved else 0


def captions(report: CompareReport | None) -> str:
    """Under both ends of the slider."""
    left, right = (report.left_name, report.right_name) if report else ("base", "LoRA")
    return f'<div class="ends"><span>◀ {escape(left)}</span><span>{escape(right)} ▶</span></div>'


def side_by_side(saved: SavedComparison | None, index: int, view: EngineView) -> str:
    """The pair as two small images, with what each is, its time, and how far they are apart."""
    if saved is None or index >= len(saved.report.pairs):
        return f'<div class="pair">{_pair_to_come(saved, view)}</div>'
    pair, report = saved.report.pairs[index], saved.report
    left = _figure(_frame(saved.folder, pair.left, "left image"), _side_words(report.left_name, pair.left))
    if pair.right is None:
        frame = running_frame(view) if view.phase == "comparing" else empty_frame("·", "not made")
        right = _figure(frame, escape(report.right_name))
    else:
        right = _figure(_frame(saved.folder, pair.right, "right image"), _side_words(report.right_name, pair.right))
    words = f"<p>{escape(report.right_name)} {escape(pair.difference.words)}.</p>" if pair.difference else ""
    return f'<div class="pair">{left}{right}</div>{words}'


def _pair_to_come(saved: SavedComparison | None, view: EngineView) -> str:
    """The pair whose left side is being made; nothing where nothing is."""
    if view.phase != "comparing":
        return ""
    left, right = (saved.report.left_name, saved.report.right_name) if saved else ("left", "right")
    return _figure(running_frame(view), escape(left)) + _figure(empty_frame("·", "not made yet"), escape(right))


def strip(saved: SavedComparison | None, view: EngineView) -> str:
    """The right side at each strength, in a row."""
    if saved is None or not saved.report.settings.strip:
        return ""
    figures = [_strip_figure(saved.folder, picture) for picture in saved.report.strip]
    missing = saved.report.settings.strip[len(figures) :]
    for number, strength in enumerate(missing):
        running = number == 0 and view.phase == "comparing" and saved.report.num_finished >= _num_pair_pictures(saved)
        frame = running_frame(view) if running else empty_frame("·", "not made")
        figures.append(_figure(frame, f"<b>{strength:g}</b>"))
    return f'<h3>By strength</h3><div class="strip">{"".join(figures)}</div>'


def _num_pair_pictures(saved: SavedComparison) -> int:
    return 2 * len(saved.report.settings.pairs())


def _strip_figure(folder: Path, picture: StripPicture) -> str:
    far = f"<br>{picture.difference.pixels:.3g} of 255" if picture.difference else ""
    words = f"<b>{picture.strength:g}</b>{far}"
    return _figure(_frame(folder, picture.picture, f"strength {picture.strength:g}"), words)


def _frame(folder: Path, picture: ComparedPicture, name: str) -> str:
    if not picture.file:
        return empty_frame("✗", "not valid, and so not shown")
    return picture_frame(folder / picture.file, name=name, alt=picture.settings.prompt)


def _side_words(name: str, picture: ComparedPicture) -> str:
    error = f'<span class="bad">{escape(picture.error)}</span>' if picture.error else ""
    return f"<b>{escape(name)}</b> {duration(picture.seconds) if picture.file else ''} {error}"


def _figure(frame: str, words: str) -> str:
    return f'<figure class="card">{frame}<figcaption>{words}</figcaption></figure>'


def sentence(view: EngineView) -> str:
    """What the right side does; empty before the first finished pair."""
    if view.comparison is None or not finished_pairs(view.comparison):
        return ""
    return f'<div class="verdict finding">{escape(view.comparison.report.sentence)}</div>'


def ballot(saved: SavedComparison, index: int, *, swapped: bool) -> str:
    """One pair of the blind vote: nothing tells which side is which."""
    pair = saved.report.pairs[index]
    assert pair.right is not None
    sides = [pair.right, pair.left] if swapped else [pair.left, pair.right]
    frames = [_figure(_bare_frame(saved.folder / side.file, i), f"<b>{i}</b>") for i, side in enumerate(sides, start=1)]
    prompt = escape(pair.left.settings.prompt)
    return f'<p class="quiet">Which is better for “{prompt}”?</p><div class="pair">{"".join(frames)}</div>'


def _bare_frame(path: Path, number: int) -> str:
    """An image without what its file tells of itself: the LoRA's name is among that."""
    with Image.open(path, formats=("PNG",)) as picture:
        buffer = io.BytesIO()
        Image.fromarray(np.asarray(picture.convert("RGB"))).save(buffer, format="PNG")
    return f'<div class="frame"><img src="{data_url(buffer.getvalue(), "image/png")}" alt="Picture {number}"></div>'
