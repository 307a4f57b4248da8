"""Captions by a model as a job: which images, resumed, stopped, and taken as an edit that can be undone."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image

from studio.core.errors import DatasetError, ModelError
from studio.core.paths import UserData
from studio.datasets.caption_job import run_captioning
from studio.datasets.captioning import (
    CaptionFolder,
    CaptionSettings,
    begin_captioning,
    dataset_of,
    finished_caption,
    finished_tags,
    latest_of,
    open_dataset,
    read_caption_settings,
    read_captions,
    take_captions,
)
from studio.datasets.library import DatasetLibrary
from studio.datasets.opened import OpenedDataset
from studio.jobs.folder import ask, read_status
from tests.command_line import studio
from tests.datasets.bad_inputs import encoded, picture
from tests.engine.caption_files import IMAGE, WORDS, save_captioner
from tests.engine.tagger_files import save_tagger

KEYS = ("a.png", "b.png", "c.png", "d.png")


@dataclass
class Sayer:
    """Says how large an image is, and does something after each."""

    after: Callable[[int], None] = lambda number: None
    says_tags: bool = False
    seen: list[tuple[int, int]] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)

    def caption(
        self, image: Image.Image, *, prompt: str, num_candidates: int, max_new_tokens: int, seed: int
    ) -> tuple[str, ...]:
        self.seen.append(image.size)
        self.seeds.append(seed)
        self.after(len(self.seen))
        return tuple(f"a photo of {image.width} by {image.height} {number}" for number in range(num_candidates))

    def load(self, settings: CaptionSettings, say: object, should_stop: object) -> "Sayer":
        return self


@pytest.fixture
def place(tmp_path: Path) -> UserData:
    """A dataset `shoes` of four images, of which b has a caption."""
    source = tmp_path / "shoes"
    source.mkdir()
    for number, key in enumerate(KEYS):
        (source / key).write_bytes(encoded(picture(100 + number, 120), "PNG"))
    (source / "b.txt").write_text("a boot\n", encoding="utf-8")
    place = UserData(tmp_path / "data")
    assert dataset_of(str(source), place) == "shoes"
    return place


def begin(place: UserData, **settings: object) -> CaptionFolder:
    return begin_captioning(CaptionSettings.model_validate({"dataset": "shoes", **settings}), place)


def opened(place: UserData) -> OpenedDataset:
    return open_dataset(CaptionSettings(dataset="shoes"), place)


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_only_images_without_a_caption_are_captioned(place: UserData, tmp_path: Path) -> None:
    before = hashes(tmp_path / "shoes")
    folder, sayer = begin(place), Sayer()
    assert run_captioning(folder, place, sayer.load) == "finished"
    assert {key: made.candidates for key, made in read_captions(folder).items()} == {
        "a.png": ("a photo of 100 by 120 0",),
        "c.png": ("a photo of 102 by 120 0",),
        "d.png": ("a photo of 103 by 120 0",),
    }
    assert read_status(folder).state == "finished"
    assert (read_status(folder).step, read_status(folder).num_steps) == (3, 3)
    assert hashes(tmp_path / "shoes") == before
    assert [row.caption for row in opened(place).rows] == ["", "a boot", "", ""]


def test_all_means_all_that_are_not_excluded(place: UserData) -> None:
    opened(place).set_excluded(["c.png"], True)
    folder = begin(place, which="all")
    run_captioning(folder, place, Sayer().load)
    assert set(read_captions(folder)) == {"a.png", "b.png", "d.png"}


def test_captions_that_a_template_makes_are_not_missing(place: UserData) -> None:
    """Not even where it is all measured, and this process has checked no image."""
    library = DatasetLibrary(place.datasets)
    recipe = opened(place).recipe
    library.save_recipe("shoes", recipe.model_copy(update={"template": "{orientation}"}))
    with pytest.raises(DatasetError, match="Every image of shoes has a caption"):
        begin(place)
    folder = begin(place, which="all")
    run_captioning(folder, place, Sayer().load)
    assert take_captions(opened(place), folder) == 4
    library.save_recipe("shoes", recipe)
    opened(place).undo()
    folder = begin(place)
    run_captioning(folder, place, Sayer().load)
    library.save_recipe("shoes", recipe.model_copy(update={"template": "{orientation}"}))
    with pytest.raises(DatasetError, match="no caption to take"):
        take_captions(opened(place), folder)


def test_nothing_to_do_is_said_before_a_job_is_made(place: UserData) -> None:
    opened(place).set_captions(dict.fromkeys(KEYS, "a shoe"), what="all")
    with pytest.raises(DatasetError, match="Every image of shoes has a caption"):
        begin(place)
    assert not place.captions.exists()


def test_taken_captions_are_one_edit_that_is_undone(place: UserData) -> None:
    folder = begin(place, num_candidates=3, prefix="sks", leave_out="a photo of")
    run_captioning(folder, place, Sayer().load)
    dataset = opened(place)
    assert take_captions(dataset, folder) == 3
    assert [row.caption for row in dataset.rows] == [
        "sks 100 by 120 0",
        "a boot",
        "sks 102 by 120 0",
        "sks 103 by 120 0",
    ]
    assert dataset.row("a.png").caption_from == "your edit"
    assert dataset.next_undo == "captions of 3 images by blip-image-captioning-large"
    dataset.undo()
    assert [row.caption for row in dataset.rows] == ["", "a boot", "", ""]


def test_another_candidate_is_taken_for_one_image(place: UserData) -> None:
    folder = begin(place, num_candidates=3)
    run_captioning(folder, place, Sayer().load)
    dataset = opened(place)
    take_captions(dataset, folder)
    assert take_captions(dataset, folder, keys=["c.png"], candidate=2) == 1
    assert dataset.row("c.png").caption == "a photo of 102 by 120 2"
    assert dataset.row("a.png").caption == "a photo of 100 by 120 0"


def test_a_caption_typed_meanwhile_stays(place: UserData) -> None:
    folder = begin(place)
    run_captioning(folder, place, Sayer().load)
    dataset = opened(place)
    dataset.set_caption("a.png", "my own")
    assert take_captions(dataset, folder) == 2
    assert dataset.row("a.png").caption == "my own"


def test_nothing_to_take_is_said(place: UserData) -> None:
    with pytest.raises(DatasetError, match="no caption to take"):
        take_captions(opened(place), begin(place))


@pytest.mark.parametrize(("asked", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_a_job_ends_after_the_image_in_work_and_goes_on_from_there(place: UserData, asked: str, state: str) -> None:
    folder = begin(place, which="all")
    first = Sayer(after=lambda number: ask(folder, asked) if number == 2 else None)  # type: ignore[arg-type]
    assert run_captioning(folder, place, first.load) == state
    assert read_status(folder).state == state
    assert "2 of 4 images are captioned" in read_status(folder).message
    second = Sayer()
    assert run_captioning(folder, place, second.load) == "finished"
    assert [*first.seen, *second.seen] == [(100, 120), (101, 120), (102, 120), (103, 120)]
    assert (read_status(folder).step, read_status(folder).num_steps) == (4, 4)


def test_chance_does_not_depend_on_where_a_job_was_stopped(place: UserData) -> None:
    whole, stopped = begin(place, which="all", seed=5), begin(place, which="all", seed=5)
    first = Sayer()
    run_captioning(whole, place, first.load)
    before = Sayer(after=lambda number: ask(stopped, "stop") if number == 1 else None)
    after = Sayer()
    run_captioning(stopped, place, before.load)
    run_captioning(stopped, place, after.load)
    assert before.seeds + after.seeds == first.seeds
    assert len(set(first.seeds)) == 4


def test_a_line_that_a_kill_cut_off_is_made_again(place: UserData) -> None:
    folder = begin(place)
    run_captioning(folder, place, Sayer().load)
    folder.captions.write_bytes(folder.captions.read_bytes()[:-20])
    sayer = Sayer()
    run_captioning(folder, place, sayer.load)
    assert sayer.seen == [(103, 120)]
    assert set(read_captions(folder)) == {"a.png", "c.png", "d.png"}


def test_an_image_that_cannot_be_read_holds_up_no_other(place: UserData, tmp_path: Path) -> None:
    file = tmp_path / "shoes" / "c.png"
    file.write_bytes(file.read_bytes()[:60])
    folder = begin(place)
    assert run_captioning(folder, place, Sayer().load) == "finished"
    made = read_captions(folder)
    assert made["c.png"].candidates == ()
    assert made["c.png"].problem
    assert "1 image could not be captioned" in read_status(folder).message
    assert take_captions(opened(place), folder) == 2


def test_a_model_that_cannot_be_loaded_is_the_jobs_failure(place: UserData) -> None:
    folder = begin(place)

    def load(settings: CaptionSettings, say: object, should_stop: object) -> Sayer:
        raise ModelError("There is no such model.")

    with pytest.raises(ModelError):
        run_captioning(folder, place, load)
    assert read_status(folder).state == "failed"
    assert read_status(folder).message == "There is no such model."


@pytest.mark.parametrize(
    ("said", "settings", "caption"),
    [
        ("A photo of a red shoe.", {"leave_out": "a photo of"}, "a red shoe"),
        ("arafed red shoe", {"leave_out": "arafed, shoe"}, "red"),
        ("a red shoe", {"prefix": "sks,", "suffix": ", white background"}, "sks, a red shoe, white background"),
        ("sks, a red shoe", {"prefix": "sks,"}, "sks, a red shoe"),
        ("shoes", {"leave_out": "shoe"}, "shoes"),
        ("a shoe", {"leave_out": "a shoe", "prefix": "sks"}, ""),
        ("  \n ", {}, ""),
        ("beige , red shoe .", {}, "beige, red shoe"),
    ],
)
def test_what_becomes_of_what_a_model_says(said: str, settings: dict[str, str], caption: str) -> None:
    assert finished_caption(said, CaptionSettings(dataset="x", **settings)) == caption  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "settings", "caption"),
    [
        ("1girl, red hat, hat, :d, ||_||", {"leave_out": "HAT"}, "1girl, red hat, :d, ||_||"),
        ("1girl, ;)", {"prefix": "sks", "suffix": ", solo, 1girl"}, "sks, 1girl, ;), solo"),
        ("sks, 1girl", {"prefix": "sks,"}, "sks, 1girl"),
        ("hat", {"leave_out": "hat", "prefix": "sks"}, ""),
        ("", {"prefix": "sks"}, ""),
    ],
)
def test_what_becomes_of_tags(said: str, settings: dict[str, str], caption: str) -> None:
    assert finished_tags(said, CaptionSettings(dataset="x", **settings)) == caption  # type: ignore[arg-type]


def test_tags_of_a_job_are_left_out_whole(place: UserData) -> None:
    folder, sayer = begin(place, leave_out="a photo", prefix="sks"), Sayer(says_tags=True)
    run_captioning(folder, place, sayer.load)
    assert read_captions(folder)["a.png"].candidates == ("sks, a photo of 100 by 120 0",)


def test_the_newest_job_of_a_dataset_is_found_and_damaged_ones_are_passed_over(place: UserData) -> None:
    first = begin(place)
    second = begin(place)
    damaged = begin(place)
    damaged.settings.write_text("{", encoding="utf-8")
    folders = CaptionFolder.all_in(place.captions)
    assert latest_of("shoes", folders) == max(first, second, key=lambda folder: folder.name)
    assert latest_of("boots", folders) is None
    with pytest.raises(DatasetError, match="cannot be read"):
        read_caption_settings(damaged)


def test_what_another_process_changed_is_seen(place: UserData) -> None:
    page, command = opened(place), opened(place)
    command.set_caption("a.png", "by the command")
    page.refresh()
    assert page.row("a.png").caption == "by the command"
    page.set_caption("c.png", "by the page")
    command.refresh()
    assert command.row("c.png").caption == "by the page"
    assert page.undo() == "caption of c.png"
    assert page.undo() == "caption of a.png"
    assert [row.caption for row in opened(place).rows] == ["", "a boot", "", ""]


def test_a_folder_becomes_a_dataset_once(place: UserData, tmp_path: Path) -> None:
    assert dataset_of(str(tmp_path / "shoes"), place) == "shoes"
    assert dataset_of("shoes", place) == "shoes"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no image"):
        dataset_of(str(tmp_path / "empty"), place)
    with pytest.raises(DatasetError, match="neither a folder of images nor the name of a dataset"):
        dataset_of("nothing", place)


def test_the_command_captions_a_folder_with_a_real_model(place: UserData, tmp_path: Path) -> None:
    model = save_captioner("blip", tmp_path / "model")
    given = ["--model", str(model), "--max-tokens", "5", "--candidates", "2", "--cpu", "--json"]
    ended = studio("dataset", "caption", str(tmp_path / "shoes"), *given, user_data=place.root)
    assert ended.returncode == 0, ended.stderr
    made = [json.loads(line) for line in ended.stdout.splitlines()]
    assert [line["key"] for line in made] == ["a.png", "c.png", "d.png"]
    assert "3 captions changed" in ended.stderr
    for line in made:
        assert opened(place).row(line["key"]).caption == line["candidates"][0]
        assert set(line["candidates"][0].split()) <= {*WORDS, IMAGE}
    again = studio("dataset", "caption", str(tmp_path / "shoes"), *given, user_data=place.root)
    assert again.returncode == 2
    assert "has a caption" in again.stderr


def test_the_command_tags_a_folder_with_a_real_tagger(place: UserData, tmp_path: Path) -> None:
    for number, colour in enumerate(((255, 0, 0), (0, 0, 255))):
        Image.new("RGB", (100, 100), colour).save(tmp_path / "shoes" / KEYS[2 * number])
    given = ["--model", str(save_tagger(tmp_path / "tagger")), "--character-threshold", "0.6", "--cpu"]
    ended = studio(
        "dataset",
        "caption",
        str(tmp_path / "shoes"),
        *given,
        "--leave-out",
        ":D",
        "--prefix",
        "sks",
        user_data=place.root,
    )
    assert ended.returncode == 0, ended.stderr
    assert opened(place).row("a.png").caption == "sks, hatsune miku, red shoes"
    assert opened(place).row("b.png").caption == "a boot"
    assert opened(place).row("c.png").caption == "sks, hatsune miku, blue shoes"


def test_a_job_is_known_by_its_folder_however_it_is_typed(
    place: UserData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = begin(place, model=str(save_captioner("git", tmp_path / "model")), max_new_tokens=4, cpu=True)
    monkeypatch.chdir(place.root)
    ended = studio("dataset", "caption", f"captions/{folder.name}", "--job", user_data=place.root)
    assert ended.returncode == 0, ended.stderr
    assert read_status(folder).state == "finished"
    assert [path.name for path in place.datasets.iterdir()] == ["shoes"]
    assert opened(place).row("a.png").caption == ""
