"""Choosing a path of this machine: what is listed of a folder, what is kept of a drop, and which boxes offer it."""

import os
import re
from pathlib import Path

import gradio as gr
import pytest

from studio.batches.prompt_files import ENDINGS
from studio.core.files import read_text
from studio.core.paths import UserData, assets_folder
from studio.ui.forms import form_hint, setting_control
from studio.ui.shell import path_chooser
from studio.ui.shell.path_chooser import FOLDER, KEPT_ENDINGS, KeptFile, kept_file, listing_of
from tests.ui.test_forms import FORMS

KINDS = list(dict.fromkeys(kind for kind, _, _ in FORMS))
# Texts that tell of folders and are no paths.
NO_PATHS = {"name", "prompts", "attributes", "caption_prefix", "validation_prompts"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("shoe 10", "shoe 2", ".hidden"):
        (tmp_path / "here" / name).mkdir(parents=True)
    for name in ("prompts.TXT", "table.csv", "model.safetensors", "notes.md", ".secret.txt"):
        (tmp_path / "here" / name).write_text("x", encoding="utf-8")
    return tmp_path / "here"


def test_a_folder_is_listed_with_the_files_that_fit_and_no_others(folder: Path) -> None:
    found = listing_of([str(folder)], [".txt", ".csv"], UserData(folder))
    assert (found.path, found.parent, found.problem) == (str(folder), str(folder.parent), "")
    assert found.folders == ("shoe 2", "shoe 10"), "in a person's order, without the hidden one"
    assert found.files == ("prompts.TXT", "table.csv")
    assert listing_of([str(folder)], [FOLDER], UserData(folder)).files == ()


def test_it_opens_where_the_box_leads_else_at_the_next_that_is_there(folder: Path) -> None:
    user_data = UserData(folder)
    opened = [
        listing_of([str(folder / "table.csv"), ""], [FOLDER], user_data),
        listing_of(["shoes-demo", str(folder / "gone" / "a.csv"), str(folder)], [FOLDER], user_data),
        listing_of([f'"{folder}"'], [FOLDER], user_data),
    ]
    assert [found.path for found in opened] == [str(folder)] * 3
    assert listing_of(["shoes-demo", ""], [FOLDER], user_data).path == str(Path.home().resolve())


@pytest.mark.parametrize("typed", ["/nowhere/at all", "relative", "/a\0b"])
def test_what_is_no_folder_is_said(typed: str, tmp_path: Path) -> None:
    found = listing_of([typed], [FOLDER], UserData(tmp_path))
    assert found.problem == f"There is no folder {typed}."
    assert found.path == ""
    assert "Home" in [place.title for place in found.places]


def test_what_the_system_does_not_take_is_said(tmp_path: Path) -> None:
    found = listing_of([f"/{'x' * 5000}"], [FOLDER], UserData(tmp_path))
    assert found.path == ""
    assert found.problem


@pytest.mark.skipif(os.name == "nt", reason="it refuses such names itself")
def test_a_name_that_is_no_text_hides_no_other(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff")).mkdir()
    assert listing_of([str(folder)], [FOLDER], UserData(folder)).folders == ("shoe 2", "shoe 10")


def test_many_names_are_cut_and_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(path_chooser, "MAX_NAMES", 1)
    found = listing_of([str(folder)], [FOLDER, ".txt", ".csv"], UserData(folder))
    assert (found.folders, found.files) == (("shoe 2",), ("prompts.TXT",))
    assert found.more == "Only the first 1 are shown. Type the path of the others."


def test_the_studios_own_folders_are_offered(tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    user_data.datasets.mkdir()
    places = {place.title: place.path for place in listing_of([""], [FOLDER], user_data).places}
    assert places["Datasets"] == str(user_data.datasets)
    assert "Batches" not in places, "it is not there yet"


def _uploaded(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder / "uploads"))
    file = folder / "uploads" / "0" / name
    file.parent.mkdir(parents=True)
    file.write_text("a red shoe", encoding="utf-8")
    return file


def test_a_dropped_text_is_moved_to_where_it_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_data = UserData(tmp_path / "user_data")
    user_data.prompt_files.mkdir(parents=True)
    (user_data.prompt_files / "shoes.txt").write_text("another", encoding="utf-8")
    file = _uploaded(tmp_path, "shoes.txt", monkeypatch)
    kept = user_data.prompt_files / "shoes 2.txt"
    assert kept_file(str(file), user_data) == KeptFile(path=str(kept))
    assert (read_text(kept), file.exists()) == ("a red shoe", False)


def test_nothing_but_a_dropped_text_is_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_data = UserData(tmp_path / "user_data")
    model = _uploaded(tmp_path, "model.safetensors", monkeypatch)
    elsewhere = tmp_path / "mine.txt"
    elsewhere.write_text("mine", encoding="utf-8")
    assert kept_file(str(model), user_data).problem.startswith("Drop a file that ends in .txt")
    for file in (elsewhere, tmp_path / "uploads" / "0" / ".." / ".." / "mine.txt"):
        assert kept_file(str(file), user_data) == KeptFile(problem="mine.txt did not arrive. Drop it again.")
    assert model.exists()
    assert elsewhere.exists()


def test_every_prompt_file_can_be_dropped() -> None:
    assert KEPT_ENDINGS == ENDINGS
    script = read_text(assets_folder() / "chooser.js")
    assert re.findall(r'"(\.\w+)"', script.partition("const KEPT =")[2].partition(";")[0]) == list(ENDINGS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_setting_that_is_a_path_can_be_browsed_for(kind: type) -> None:
    for name, field in kind.model_fields.items():
        if field.annotation is not str or name in NO_PATHS:
            continue
        says_so = re.search(r"(\bfolder|\.\w+ file|\.safetensors)\b", field.description or "")
        assert bool(says_so or name == "model") == bool(form_hint(field).takes), name
        if form_hint(field).takes:
            with gr.Blocks():
                control = setting_control(kind, name, "", elem_id="a-box")
            assert control.stop_btn == "Browse…", name


@pytest.mark.skipif(os.name == "nt", reason="a link takes rights there")
def test_a_link_that_leads_nowhere_hides_no_other(folder: Path, tmp_path: Path) -> None:
    loop = folder / "loop.csv"
    loop.symlink_to(loop)
    listing = listing_of([str(folder)], [FOLDER, ".csv"], UserData(tmp_path / "user_data"))
    assert listing.problem == ""
    assert listing.path == str(folder.resolve())
    assert "loop.csv" not in listing.files
