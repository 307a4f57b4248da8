"""A folder is scored whole: prompts are found, and each file that cannot be read is named."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from studio.cli.score import score, scores_text
from studio.core.errors import DatasetError
from studio.core.paths import assets_folder
from studio.datasets.scores import FolderScores, prompt_of, score_folder
from studio.images.scores.image import score_picture, summarise_scores
from studio.images.scores.summary import ScoreSummary
from tests.images.scores.drawn import draw

DATASET = assets_folder() / "casual-shoes"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A red image with its prompt inside, a blue one with a .txt, one without, one broken."""
    place = tmp_path / "pictures"
    (place / "below").mkdir(parents=True)
    text = PngImagePlugin.PngInfo()
    text.add_text("parameters", "red shoes, white background\nSteps: 20, Sampler: DDIM, CFG scale: 7, Seed: 1")
    Image.fromarray(draw()).save(place / "red.png", pnginfo=text)
    (place / "red.txt").write_text("green shoes", encoding="utf-8")
    Image.fromarray(draw("grey", colour=(48, 104, 190), at=(0.3, 0.5))).save(place / "below" / "blue.png")
    (place / "below" / "blue.txt").write_text("pink shoes\n", encoding="utf-8")
    Image.new("RGB", (64, 64), (255, 255, 255)).save(place / "white.jpg")
    (place / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return place


def test_prompts_come_from_the_picture_else_from_the_text_beside(folder: Path) -> None:
    assert prompt_of(folder / "red.png", folder) == "red shoes, white background"
    assert prompt_of(folder / "below" / "blue.png", folder) == "pink shoes"
    assert prompt_of(folder / "white.jpg", folder) == ""


def test_a_folder_is_scored_and_what_is_broken_is_named(folder: Path) -> None:
    reported = []
    scores = score_folder(folder, on_picture=lambda number, total: reported.append((number, total)))
    assert [picture.name for picture in scores.pictures] == ["below/blue.png", "red.png", "white.jpg"]
    assert [file.name for file in scores.unreadable] == ["broken.png"]
    assert scores.unreadable[0].reason
    assert reported == [(n, 4) for n in (1, 2, 3, 4)]
    summary = scores.summary
    assert (summary.num_pictures, summary.num_white, summary.num_without_subject) == (3, 2, 1)
    assert (summary.num_centred, summary.num_named_right, summary.named_right) == (1, 1, 0.5)
    assert FolderScores.model_validate_json(scores.model_dump_json()) == scores


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(DatasetError, match="not a folder"):
        score_folder(folder / "red.png")


def test_numbers_of_a_summary_are_those_of_its_pictures() -> None:
    scores = [score_picture(draw(at=(x, 0.5)), prompt="red shoes") for x in (0.5, 0.4, 0.35)]
    summary = summarise_scores(scores)
    offsets = [score.centring.offset for score in scores if score.centring]
    assert summary.offset is not None
    assert summary.offset.mean == pytest.approx(np.mean(offsets))
    assert (summary.offset.low, summary.offset.high, summary.offset.count) == (min(offsets), max(offsets), 3)
    assert any("3 of 3 images" in sentence for sentence in summary.sentences)
    assert any("nearest to it" in sentence for sentence in summary.sentences)


def test_a_summary_of_nothing_says_so() -> None:
    summary = summarise_scores([])
    assert summary.sentences == ("There is no image to score.",)
    assert summary.named_right is None
    assert summary.copies is None


def runner_result(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(score)
    result = CliRunner().invoke(app, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout


def test_the_command_prints_lines_and_sentences(folder: Path) -> None:
    code, output = runner_result(str(folder))
    assert code == 1  # one is broken
    assert "red.png: white 100%" in output
    assert "pink ΔE" in output
    assert "rather blue" in output
    assert "white.jpg: white 100% · no subject" in output
    assert "Could not be read (1)\n  broken.png: " in output
    assert "White backgrounds: 2 of 3 images" in output


def test_the_command_compares_with_a_dataset(tmp_path: Path) -> None:
    place = tmp_path / "pictures"
    place.mkdir()
    Image.open(DATASET / "images" / "10005.jpg").save(place / "copy.png")
    code, output = runner_result(str(place), "--dataset", str(DATASET), "--json")
    assert code == 0
    found = json.loads(output[output.index("{") :])
    assert found["pictures"][0]["scores"]["nearest"]["likeness"] == "as a copy"
    assert ScoreSummary.model_validate(found["summary"]).copies == 1


def test_a_dataset_that_is_not_there_is_an_error_in_words(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="dataset must be a folder or the name of a dataset"):
        score(folder, dataset="nothing", user_data=tmp_path)


def test_the_text_names_the_folder(folder: Path) -> None:
    assert scores_text(score_folder(folder)).startswith(str(folder))
