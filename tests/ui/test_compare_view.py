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
from studio.images.comparison import ComparedPair, ComparedPicture, CompareReport, Difference, SavedComparison
from studio.ui.inference import compare as compare_mode
from studio.ui.inference import compare_view
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
    return Guard().parts({"Compare": lambda: compare_mode.render(view, (), chosen)})


def embedded(html: str) -> list[bytes]:
    return [base64.b64decode(data) for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)]


def first_colours(html: str, tmp_path: Path) -> list[tuple[int, ...]]:
    colours = []
    for content in embedded(html):
        (tmp_path / "seen.png").write_bytes(content)
        colours.append(tuple(np.asarray(Image.open(tmp_path / "seen.png"))[0, 0].tolist()))
    return colours


def test_a_ballot_tells_neither_names_nor_what_the_files_say(saved: SavedComparison) -> None:
    html = compare_view.ballot(saved, 0, swapped=False)
    assert "secret-lora" not in html
    assert len(embedded(html)) == 2
    assert all(b"secret-lora" not in content for content in embedded(html))
    assert b"secret-lora" in (saved.folder / "0-left.png").read_bytes(), "so the test can fail"


def test_a_swapped_ballot_shows_the_right_side_first(saved: SavedComparison, tmp_path: Path) -> None:
    assert first_colours(compare_view.ballot(saved, 0, swapped=False), tmp_path) == [LEFT, RIGHT]
    assert first_colours(compare_view.ballot(saved, 0, swapped=True), tmp_path) == [RIGHT, LEFT]


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
    vote = compare_view.make_vote(saved, 0, swapped=swapped, answer=answer)
    assert (vote.winner, vote.left, vote.right) == (winner, "base", "secret-lora")


def test_every_pair_is_voted_on_once_and_sides_are_shuffled(saved: SavedComparison) -> None:
    ballots = [compare_view.new_ballots(saved, random.Random(seed)) for seed in range(40)]
    assert all(sorted(index for index, _ in ballot) == [0, 1] for ballot in ballots)
    assert {tuple(index for index, _ in ballot) for ballot in ballots} == {(0, 1), (1, 0)}
    assert {swapped for ballot in ballots for _, swapped in ballot} == {True, False}


def test_a_pair_without_one_of_its_files_has_no_slider_and_no_vote(saved: SavedComparison) -> None:
    (saved.folder / "0-right.png").unlink()
    assert compare_view.pair_files(saved, 0) is None
    assert compare_view.pair_files(saved, 1) is not None
    assert [index for index, _ in compare_view.new_ballots(saved, random.Random(0))] == [1]


def test_a_prompt_cannot_be_markup(saved: SavedComparison) -> None:
    view = EngineView(phase="ready", comparison=saved)
    for html in (compare_view.ballot(saved, 0, swapped=False), compare_view.side_by_side(saved, 0, view)):
        assert "<b>boots" not in html
        assert "boots <b>" not in html


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
