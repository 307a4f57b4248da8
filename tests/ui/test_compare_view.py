"""What Compare shows: true of what is there, and silent about sides while people vote."""

import base64
import random
import re
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.core.errors import EngineError
from studio.core.settings import CompareSettings, GenerationSettings, LoraChoice
from studio.engine.process.view import EngineView
from studio.images.comparison import (
    ComparedPair,
    ComparedPicture,
    CompareReport,
    Difference,
    PartDifference,
    Parts,
    SavedComparison,
    StripPicture,
)
from studio.loras.library import LoraLibrary
from studio.ui.inference import compare as compare_mode
from studio.ui.inference import compare_view, vote
from studio.ui.shell.parts import Guard, Update
from studio.ui.shell.selection import SelectedPair

LEFT, RIGHT = (10, 20, 30), (200, 210, 220)


def write_picture(path: Path, colour: tuple[int, int, int]) -> None:
    info = PngInfo()
    info.add_text("parameters", "boots <lora:secret-lora:1>")
    Image.new("RGB", (16, 16), colour).save(path, pnginfo=info)


@pytest.fixture
def saved(tmp_path: Path) -> SavedComparison:
    """Two pairs of two asked for; dark is left, bright is right."""
    generation = GenerationSettings(prompt="boots <b>")
    pairs = []
    for i in range(2):
        write_picture(tmp_path / f"{i}-left.png", LEFT)
        write_picture(tmp_path / f"{i}-right.png", RIGHT)
        pairs.append(
            ComparedPair(
                left=ComparedPicture(settings=generation, file=f"{i}-left.png"),
                right=ComparedPicture(settings=generation, file=f"{i}-right.png"),
                difference=Difference(pixels=190, changed_share=1, latents=1),
            )
        )
    settings = CompareSettings(
        prompts=("boots <b>",), num_seeds=2, generation=generation, right=(LoraChoice(name="secret-lora"),)
    )
    report = CompareReport(
        started_at=datetime.now(UTC), settings=settings, model="m", pairs=tuple(pairs), finished=True
    )
    return SavedComparison(folder=tmp_path, report=report)


def shown(view: EngineView, chosen: SelectedPair | None = None) -> dict[str, Update]:
    return Guard().parts({"Compare": lambda: compare_mode.render(view, LoraLibrary(), chosen)})


def embedded(html: str) -> list[bytes]:
    return [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)]


def first_colours(html: str, tmp_path: Path) -> list[tuple[int, ...]]:
    colours = []
    for content in embedded(html):
        (tmp_path / "seen.png").write_bytes(content)
        colours.append(tuple(np.asarray(Image.open(tmp_path / "seen.png"))[0, 0].tolist()))
    return colours


def test_a_ballot_tells_neither_names_nor_what_the_files_say(saved: SavedComparison) -> None:
    html = vote.ballot(saved, 0, swapped=False)
    assert "secret-lora" not in html
    assert len(embedded(html)) == 2
    assert all(b"secret-lora" not in content for content in embedded(html))
    assert b"secret-lora" in (saved.folder / "0-left.png").read_bytes(), "so the test can fail"


def test_a_swapped_ballot_shows_the_right_side_first(saved: SavedComparison, tmp_path: Path) -> None:
    assert first_colours(vote.ballot(saved, 0, swapped=False), tmp_path) == [LEFT, RIGHT]
    assert first_colours(vote.ballot(saved, 0, swapped=True), tmp_path) == [RIGHT, LEFT]


@pytest.mark.parametrize(
    ("swapped", "answer", "winner"),
    [
        (False, 0, "left"),
        (False, 1, "right"),
        (True, 0, "right"),
        (True, 1, "left"),
        (False, 2, "neither"),
        (True, 2, "neither"),
    ],
)
def test_a_vote_is_for_the_side_that_was_seen(saved: SavedComparison, swapped: bool, answer: int, winner: str) -> None:
    made = vote.make_vote(saved, 0, swapped=swapped, answer=answer)
    assert (made.winner, made.left, made.right) == (winner, "base", "secret-lora")


def test_the_score_says_of_each_pair_what_was_what(saved: SavedComparison) -> None:
    html = vote.score(saved, [[0, False, 1], [1, True, 1]])  # the right side, then the left, which lay second
    assert re.findall(r"<b>(\d)</b><span>([^<]*)</span>", html) == [("1", "base"), ("1", "secret-lora")]
    assert re.findall(r'class="taken">.*?<figcaption>✓ ([^<]*)<', html) == ["secret-lora", "base"]
    assert "without a difference" not in html
    html = vote.score(saved, [[0, False, 2], [1, False, 1]])
    assert "1 without a difference" in html
    assert 'class="side wins"><b>1</b><span>secret-lora' in html
    assert "boots &lt;b&gt;" in html


def test_nothing_of_the_score_is_said_before_the_end() -> None:
    html = vote.progress(1, 3)
    assert "Pair 2 of 4" in html
    assert "base" not in html


def test_every_pair_is_voted_on_once_and_sides_are_shuffled(saved: SavedComparison) -> None:
    ballots = [vote.new_ballots(saved, random.Random(seed)) for seed in range(40)]
    assert all(sorted(index for index, *_ in ballot) == [0, 1] for ballot in ballots)
    assert {tuple(index for index, *_ in ballot) for ballot in ballots} == {(0, 1), (1, 0)}
    assert {swapped for ballot in ballots for _, swapped, _ in ballot} == {True, False}


def test_a_pair_without_one_of_its_files_has_no_slider_and_no_vote(saved: SavedComparison) -> None:
    (saved.folder / "0-right.png").unlink()
    assert compare_view.pair_files(saved, 0) is None
    assert compare_view.pair_files(saved, 1) is not None
    assert [index for index, *_ in vote.new_ballots(saved, random.Random(0))] == [1]


def test_a_prompt_cannot_be_markup(saved: SavedComparison) -> None:
    view = EngineView(phase="ready", comparison=saved)
    for html in (vote.ballot(saved, 0, swapped=False), compare_view.side_by_side(saved, 0, view)):
        assert "<b>boots" not in html
        assert "boots <b>" not in html


def test_what_changes_is_said_of_background_and_subject_where_all_pairs_tell_them_apart(
    saved: SavedComparison,
) -> None:
    def said(*parts: Parts | None) -> str:
        pairs = tuple(
            pair.model_copy(update={"difference": Difference(pixels=1, changed_share=0.5, latents=1, parts=part)})
            for pair, part in zip(saved.report.pairs, parts, strict=True)
        )
        report = saved.report.model_copy(update={"pairs": pairs})
        view = EngineView(phase="ready", comparison=saved.model_copy(update={"report": report}))
        return compare_view.sentence(view)

    one, other = (
        Parts(
            background=PartDifference(pixels=9, changed_share=share),
            subject=PartDifference(pixels=1, changed_share=share / 10),
        )
        for share in (1.0, 0.8)
    )
    assert re.findall(r"(\d+)% changed noticeably", said(one, other)) == ["90", "9"]
    assert "Background" not in said(one, None)
    assert "changes 50% of the pixels" in said(one, None)


def with_strengths(saved: SavedComparison, *strengths: float) -> EngineView:
    left = saved.report.pairs[0].left
    strip = tuple(StripPicture(strength=strength, picture=left) for strength in strengths)
    settings = saved.report.settings.model_copy(update={"strip": strengths})
    report = saved.report.model_copy(update={"strip": strip, "settings": settings})
    return EngineView(phase="ready", comparison=saved.model_copy(update={"report": report}))


def test_a_slider_goes_through_the_strengths_that_were_made(saved: SavedComparison) -> None:
    view = with_strengths(saved, 0.0, 0.5, 1.0, 1.25)
    html = compare_view.strip(view.comparison, 0, view)
    assert 'min="0" max="3" step="1" value="2"' in html, "it begins at the strength of the training"
    assert html.count('class="frame zoom"') == 4 + 2
    assert html.count("data:image/png") == 4 + 1, "the large image is that of the row: nothing is sent twice"
    alone = with_strengths(saved, 1.0)
    assert 'type="range"' not in compare_view.strip(alone.comparison, 0, alone)


def test_the_slider_is_of_the_chosen_pair(saved: SavedComparison) -> None:
    made = with_strengths(saved, 0.0, 1.0).comparison
    assert made is not None
    rights = [pair.right for pair in saved.report.pairs if pair.right]
    both = [StripPicture(strength=by, picture=side) for side in rights for by in (0.0, 1.0)]
    report = made.report.model_copy(update={"strip": tuple(both)})
    view = EngineView(phase="ready", comparison=made.model_copy(update={"report": report}))
    write_picture(saved.folder / "1-right.png", LEFT)
    for number, colour in ((0, RIGHT), (1, LEFT)):
        parts = shown(view, SelectedPair(comparison=saved.folder.name, number=number))
        html = str(parts["compare-strip"])
        assert f"{number + 1} · boots" in html
        assert colour in first_colours(html.split('class="strip"')[1], saved.folder)


def test_of_an_older_comparison_the_strip_of_its_first_pair_is_shown(saved: SavedComparison) -> None:
    parts = shown(with_strengths(saved, 0.0, 1.0), SelectedPair(comparison=saved.folder.name, number=1))
    assert "1 · boots" in str(parts["compare-strip"])
    assert "not made" not in str(parts["compare-strip"])


def running(saved: SavedComparison, num_pairs: int) -> EngineView:
    report = saved.report.model_copy(update={"pairs": saved.report.pairs[:num_pairs], "finished": False})
    return EngineView(phase="comparing", comparison=saved.model_copy(update={"report": report}))


def test_while_a_pair_is_made_its_places_are_shown_and_the_slider_keeps_the_pair_before(
    saved: SavedComparison,
) -> None:
    parts = shown(running(saved, 1))
    assert "about to start" in str(parts["compare-side-by-side"])
    assert str(saved.folder / "0-left.png") in str(parts["compare-slider"])
    assert "about to start" not in str(shown(running(saved, 2))["compare-side-by-side"])


def test_a_page_shows_the_pair_that_it_chose_as_long_as_it_is_of_that_comparison(saved: SavedComparison) -> None:
    view = EngineView(phase="ready", comparison=saved)
    for name, number, expected in ((saved.folder.name, 0, 0), (saved.folder.name, 7, 1), ("compare-120000-0", 0, 1)):
        parts = shown(view, SelectedPair(comparison=name, number=number))
        assert parts["compare-pair"]["value"] == expected
        assert str(saved.folder / f"{expected}-left.png") in str(parts["compare-slider"])
    assert parts["compare-of"]["value"] == saved.folder.name


def test_a_press_on_a_comparison_that_another_has_replaced_is_refused(saved: SavedComparison) -> None:
    view = EngineView(phase="ready", comparison=saved)
    assert compare_view.comparison_of(view, saved.folder.name) is saved
    for of in ("compare-120000-0", ""):
        with pytest.raises(EngineError, match="another comparison was started meanwhile"):
            compare_view.comparison_of(view, of)


def test_a_comparison_that_a_crash_ended_does_not_look_as_if_it_ran(saved: SavedComparison) -> None:
    half = saved.report.pairs[0].model_copy(update={"right": None, "difference": None})
    report = saved.report.model_copy(update={"pairs": (half,), "finished": False})
    view = EngineView(phase="ready", comparison=saved.model_copy(update={"report": report}))
    parts = shown(view)
    assert "not made" in str(parts["compare-side-by-side"])
    assert "about to start" not in str(parts["compare-side-by-side"])
