"""The Inference tab in another language: every text is a message, and what files and keys say stays as it is."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.core.language import ENGLISH, speaking
from studio.core.paths import UserData
from studio.core.settings import CompareSettings, GenerationSettings, LoraChoice
from studio.engine.process.view import EngineView
from studio.images.a1111 import parse_parameters, to_parameters
from studio.images.comparison import ComparedPair, ComparedPicture, CompareReport, Difference, SavedComparison
from studio.images.decoding import open_rgb, read_bytes, read_picture
from studio.images.gallery import History
from studio.images.scores.likeness import NearestIndex, describe
from studio.images.scores.subject import find_subject, make_working
from studio.loras.library import LoraLibrary
from studio.loras.votes import count_votes
from studio.ui.inference import compare, compare_view, vote
from studio.ui.inference.generate_form import render_form
from studio.ui.inference.history import PastImages, page_words, strip_html, taken_words
from studio.ui.inference.lora_chips import chips_html, chips_of
from studio.ui.shell.selection import Selection
from tests.images.scores.test_nearest import SHOES
from tests.images.test_a1111 import A1111_TEXT, FULL, make_record
from tests.images.test_gallery import add
from tests.ui.test_compare_view import LEFT, RIGHT, write_picture

pytestmark = pytest.mark.usefixtures("marked")

SHOWN_ATTRIBUTES = re.compile(r'(?:aria-label|title|alt|placeholder)="([^"]*)"')
NAMES = re.compile(r"[\W\d_]*(secret-lora|boots|shoes|x|A1111|v1-5-pruned|a\.png|[\w-]+\.png)?[\W\d_]*")
"""What is no message: signs, numbers, and what users and files are called."""


@pytest.fixture
def saved(tmp_path: Path) -> SavedComparison:
    """One pair, of the base and a LoRA."""
    generation = GenerationSettings(prompt="boots")
    for name, colour in (("left", LEFT), ("right", RIGHT)):
        write_picture(tmp_path / f"{name}.png", colour)
    left, right = (ComparedPicture(settings=generation, file=f"{side}.png") for side in ("left", "right"))
    pair = ComparedPair(left=left, right=right, difference=Difference(pixels=1.5, changed_share=0.25, latents=1))
    settings = CompareSettings(prompts=("boots",), generation=generation, right=(LoraChoice(name="secret-lora"),))
    started = make_record(generation).made_at
    report = CompareReport(started_at=started, settings=settings, model="m", pairs=(pair,), finished=True)
    return SavedComparison(folder=tmp_path, report=report)


def outside(html: str) -> list[str]:
    """What of a piece of the page is in no message and no name."""
    found = []
    for piece in [*SHOWN_ATTRIBUTES.findall(html), *re.sub(r"<[^>]*>", "\n", html).split("\n")]:
        while "⟦" in piece:
            piece, before = re.sub("⟦[^⟦⟧]*⟧", "", piece), piece
            assert piece != before
        found += [] if NAMES.fullmatch(piece) else [piece]
    return found


def test_every_text_of_a_comparison_and_its_vote_is_a_message(saved: SavedComparison) -> None:
    view = EngineView(phase="ready", comparison=saved)
    pieces = [
        compare_view.sentence(view),
        compare_view.captions(saved.report),
        compare_view.captions(None),
        vote.ballot(saved, 0, swapped=False),
        vote.score(saved, [[0, False, 1]]),
        vote.score(saved, [[0, False, 2]]),
    ]
    for piece in pieces:
        assert outside(piece) == []
    assert "1,5 of 255" in compare_view.sentence(view), "numbers follow the language"


def test_every_text_of_chips_and_past_images_is_a_message(tmp_path: Path) -> None:
    image = add(tmp_path / "outputs", "2025-01-02/000001-000000-seed1.png", "shoes")
    past = PastImages(History(tmp_path / "outputs"), tmp_path / "small")
    chips = chips_html(chips_of({"lora_0": "x", "strength_0": 0.5, "prompt": "<lora:shoes:2>"}, ["x"]))
    for piece in (
        chips,
        strip_html(past, Selection()),
        page_words(past.history.page(1, search="nothing"), "shoes"),
        taken_words("a.png", parse_parameters(A1111_TEXT)),
    ):
        assert outside(re.sub(r'src="[^"]*"', "", piece)) == []
    assert 'value="0.5"' in chips, "what a script reads stays as it is"
    assert image.is_file()


def test_choices_have_words_and_keep_their_values(saved: SavedComparison) -> None:
    parts = compare.render(EngineView(phase="ready", comparison=saved), LoraLibrary(), None)
    assert isinstance(parts["compare-left"], dict)
    assert parts["compare-left"]["choices"][0] == ("⟦base⟧", "base")
    rows = render_form(EngineView(), LoraLibrary(), UserData(Path()))["generate-lora-0"]
    assert isinstance(rows, dict)
    assert rows["choices"] == [("⟦none⟧", "none"), "white-ground"]


def test_votes_are_kept_under_the_same_names_in_every_language(saved: SavedComparison) -> None:
    made = vote.make_vote(saved, 0, swapped=False, answer=0)
    assert (made.left, made.right, made.winner) == ("base", "secret-lora", "left")
    assert count_votes([made], left="base", right="secret-lora").num_left == 1


def test_what_is_written_into_an_image_is_the_same_in_every_language() -> None:
    text = to_parameters(make_record(FULL))
    with speaking(ENGLISH):
        assert text == to_parameters(make_record(FULL))
    read = parse_parameters(text)
    assert (read.settings.scheduler, read.settings.loras) == (FULL.scheduler, FULL.loras)
    assert (read.source, read.skipped) == ("A1111", ())


def test_findings_and_likenesses_are_known_by_the_same_words_in_every_language(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    Image.new("RGB", (32, 32)).save(path, format="BMP")
    codes = [problem.code for problem in read_picture(read_bytes(path)[0], path.name, background="#ffffff").problems]
    assert codes == ["wrong ending", "BMP file", "one colour"]
    working = make_working(np.asarray(open_rgb(SHOES[0])))
    assert NearestIndex.build(SHOES[:3]).find(describe(working, find_subject(working))).likeness == "as a copy"


def test_what_is_wrong_with_a_file_is_said_in_the_language_of_whoever_asks(tmp_path: Path) -> None:
    """Files are read once, and what is wrong with them is remembered."""
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / "a.safetensors").write_bytes(b"")
    library = LoraLibrary(tmp_path / "loras", shipped=tmp_path / "none")
    broken = add(tmp_path, "2025-01-02/000001-000000-seed1.png")
    broken.write_bytes(broken.read_bytes()[:-20])
    history = History(tmp_path)

    def told() -> tuple[str, str, str]:
        (card,), (searched,), (page,) = (
            library.cards(),
            history.look(1, search="shoe").unreadable,
            history.look(1).unreadable,
        )
        return card.problem, searched, page

    assert all("⟦" in words for words in told())
    with speaking(ENGLISH):
        assert not any("⟦" in words for words in told())
    assert all("⟦" in words for words in told())
