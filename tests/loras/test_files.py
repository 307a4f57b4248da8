"""A LoRA is renamed with all that lies beside it, acts as it did, and never takes the place of another."""

import errno
import os
import re
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from studio.core.errors import LoraError
from studio.core.records import Label, read_label, write_label
from studio.images.prompts import take_lora_tags
from studio.loras.files import files_beside
from studio.loras.library import LoraLibrary
from studio.loras.votes import Vote, add_vote, count_votes, read_votes, votes_file
from studio.loras.weights_file import adapter_config_of
from tests.loras.test_library import SIGNS, write_lora

CONFIG = '{"peft_type": "LORA", "r": 2, "lora_alpha": 8}'
BESIDE = ("adapter_config.json", "votes.json", "png", "preview.png", "civitai.info", "txt", "label.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "loras"


@pytest.fixture
def library(folder: Path, tmp_path: Path) -> LoraLibrary:
    write_lora(tmp_path / "shipped" / "white-ground.safetensors")
    return LoraLibrary(folder, shipped=tmp_path / "shipped")


def write_beside(path: Path, *endings: str) -> None:
    for ending in endings:
        path.with_name(f"{path.stem}.{ending}").write_text(f"{path.stem} {ending}", encoding="utf-8")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_everything_that_bears_its_name_goes_with_it_and_nothing_of_another(folder: Path, library: LoraLibrary) -> None:
    others = [write_lora(folder / f"{name}.safetensors") for name in ("shoes.v2", "shoes 2")]
    path = write_lora(folder / "shoes.safetensors")
    for each in (*others, path):
        write_beside(each, *BESIDE)
    before = {each: files_beside(each) for each in others}
    assert library.rename("shoes", "boots") == "boots"
    assert names(folder) == sorted(
        f"{stem}.{ending}" for stem in ("boots", "shoes.v2", "shoes 2") for ending in (*BESIDE, "safetensors")
    )
    assert (folder / "boots.preview.png").read_text() == "shoes preview.png"
    assert {each: files_beside(each) for each in others} == before
    assert library.names() == ("boots", "shoes 2", "shoes.v2", "white-ground")


@pytest.mark.parametrize("config", ["shoes.adapter_config.json", "adapter_config.json"])
def test_it_keeps_the_strength_that_pefts_file_gives_it(folder: Path, library: LoraLibrary, config: str) -> None:
    stem = "shoes" if config.startswith("shoes") else "adapter_model"
    write_lora(folder / f"{stem}.safetensors")
    (folder / config).write_text(CONFIG)
    library.rename(stem, "boots")
    write_lora(folder / "another.safetensors")
    found = adapter_config_of(folder / "boots.safetensors")
    assert found is not None
    assert found.read_text() == CONFIG
    assert adapter_config_of(folder / "another.safetensors") is None


def test_a_name_that_would_give_it_anothers_strength_is_refused(folder: Path, library: LoraLibrary) -> None:
    write_lora(folder / "shoes.safetensors")
    write_lora(folder / "hats.safetensors")
    (folder / "adapter_config.json").write_text(CONFIG)
    with pytest.raises(LoraError, match=r"adapter_config\.json would change the strength"):
        library.rename("shoes", "adapter_model")
    assert library.names() == ("hats", "shoes", "white-ground")


@pytest.mark.parametrize("wanted", ["HATS", "hats ", "caf\u00e9", "White-Ground", "hats\u200b"])
def test_a_name_that_another_has_is_refused_also_in_other_letters(
    folder: Path, library: LoraLibrary, wanted: str
) -> None:
    for name in ("shoes", "hats", "cafe\u0301"):
        write_lora(folder / f"{name}.safetensors")
    before = names(folder)
    with pytest.raises(LoraError, match="The library has another LoRA named"):
        library.rename("shoes", wanted)
    assert names(folder) == before


@pytest.mark.parametrize(
    "wanted", ["", "  ", "a/b", "../a", "a:b", "a<b", 'a"', ".a", "a.", "con", "a\nb", "é" * 91, "\ud800"]
)
def test_a_name_that_no_file_can_have_is_refused_as_a_whole(folder: Path, library: LoraLibrary, wanted: str) -> None:
    write_lora(folder / "shoes.safetensors")
    with pytest.raises(LoraError, match="The name of a LoRA must have 1 to 180 bytes"):
        library.rename("shoes", wanted)
    assert names(folder) == ["shoes.safetensors"]


def test_what_lies_there_already_is_never_overwritten(folder: Path, library: LoraLibrary) -> None:
    write_beside(write_lora(folder / "shoes.safetensors"), "png", "adapter_config.json")
    (folder / "boots.png").write_text("of a LoRA that is gone")
    with pytest.raises(LoraError, match=r"boots\.png is in .* already"):
        library.rename("shoes", "boots")
    assert names(folder) == ["boots.png", "shoes.adapter_config.json", "shoes.png", "shoes.safetensors"]
    assert (folder / "boots.png").read_text() == "of a LoRA that is gone"


@pytest.mark.parametrize(("before", "after"), [("shoes", "SHOES"), ("cafe\u0301", "caf\u00e9")])
def test_case_and_the_way_of_writing_an_accent_alone_can_be_changed(
    folder: Path, library: LoraLibrary, before: str, after: str
) -> None:
    write_beside(write_lora(folder / f"{before}.safetensors"), "png", "adapter_config.json")
    assert library.rename(before, after) == after
    assert names(folder) == [f"{after}.{ending}" for ending in ("adapter_config.json", "png", "safetensors")]


def test_where_a_disk_takes_both_names_for_one_file_it_is_renamed_all_the_same(
    folder: Path, library: LoraLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As APFS and NTFS do: the new name “exists”, and is the very same file."""
    write_beside(write_lora(folder / "shoes.safetensors"), "png", "adapter_config.json")

    def folded(path: Path) -> Path:
        return next((each for each in folder.iterdir() if each.name.lower() == path.name.lower()), path)

    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **how: stat(folded(path), **how))
    assert (folder / "SHOES.png").samefile(folder / "shoes.png")
    assert library.rename("shoes", "Shoes") == "Shoes"
    assert names(folder) == ["Shoes.adapter_config.json", "Shoes.png", "Shoes.safetensors"]


def test_one_in_a_sub_folder_stays_there(folder: Path, library: LoraLibrary) -> None:
    write_lora(folder / "a.safetensors")
    write_lora(folder / "old" / "a.safetensors")
    assert library.rename("old/a", "b") == "b"
    assert (folder / "old" / "b.safetensors").is_file()
    assert (folder / "a.safetensors").is_file()


def test_shipped_ones_and_those_that_are_gone_are_refused(library: LoraLibrary) -> None:
    with pytest.raises(LoraError, match="white-ground comes with the studio, so it cannot be renamed"):
        library.rename("white-ground", "mine")
    with pytest.raises(LoraError, match="There is no LoRA named nothing"):
        library.rename("nothing", "mine")


def test_a_disk_that_refuses_leaves_everything_as_it_was(
    folder: Path, library: LoraLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_beside(write_lora(folder / "shoes.safetensors"), "adapter_config.json", "png")
    before = names(folder)

    def full(path: Path, target: Path) -> Path:
        raise OSError(errno.EACCES, "in use", str(path))

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="in use"):
        library.rename("shoes", "boots")
    assert names(folder) == before


def test_wherever_it_ends_early_the_lora_acts_as_it_did(
    folder: Path, library: LoraLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lora(folder / "shoes.safetensors")
    write_beside(path, "png")
    path.with_name("shoes.adapter_config.json").write_text(CONFIG)
    replace = Path.replace

    def cut_off(before: Path, target: Path) -> Path:
        if before.name.startswith("shoes."):
            raise OSError(errno.EIO, "cut off", str(before))
        return replace(before, target)

    monkeypatch.setattr(Path, "replace", cut_off)
    with pytest.raises(OSError, match="cut off"):
        library.rename("shoes", "boots")
    (name, *_) = library.names()
    config = adapter_config_of(library.find(name))
    assert config is not None
    assert config.read_text() == CONFIG


def test_its_votes_count_on_under_the_new_name(folder: Path, library: LoraLibrary) -> None:
    write_lora(folder / "shoes.safetensors")
    for left, right in (("base", "shoes 0.8 + sketch"), ("shoes 0.5", "shoes"), ("shoes v2", "my shoes 1")):
        vote = Vote(
            left=left, right=right, winner="right", prompt="p", seed=1, voted_at=datetime(2026, 1, 1, tzinfo=UTC)
        )
        add_vote(folder, "shoes", vote)
    library.rename("shoes", "boots")
    votes = read_votes(folder, "boots")
    sides = [(vote.left, vote.right) for vote in votes]
    assert sides == [("base", "boots 0.8 + sketch"), ("boots 0.5", "boots"), ("shoes v2", "my shoes 1")]
    assert count_votes(votes, left="base", right="boots 0.8 + sketch").num_right == 1
    votes_file(folder, "boots").write_bytes(b"damaged")
    assert library.rename("boots", "hats") == "hats", "damaged votes do not hold it up"
    assert votes_file(folder, "hats").read_bytes() == b"damaged"


def test_a_note_is_kept_with_it_found_and_goes_with_it(folder: Path, library: LoraLibrary) -> None:
    write_lora(folder / "shoes.safetensors")
    for name in ("shoes", "white-ground"):
        write_label(library.label_file(library.path_of(name)), Label(note=f"on {name}"))
    assert library.notes() == {"shoes": "on shoes", "white-ground": "on white-ground"}
    assert names(folder) == ["shoes.label.json", "shoes.safetensors", "white-ground.label.json"]
    library.rename("shoes", "boots")
    assert read_label(library.label_file(library.path_of("boots"))) == Label(note="on shoes")
    assert library.names() == ("boots", "white-ground")


@settings(max_examples=40)
@given(st.text(SIGNS, max_size=12) | st.sampled_from(["CON", "靴" * 99, "cafe\u0301"]))
def test_whatever_it_is_called_it_is_found_by_it_and_by_its_tag_or_nothing_changes(
    tmp_path_factory: pytest.TempPathFactory, wanted: str
) -> None:
    folder = tmp_path_factory.mktemp("renamed")
    library = LoraLibrary(folder, shipped=folder / "nothing")
    path = write_lora(folder / "shoes.safetensors")
    content = path.read_bytes()
    assume(wanted.strip() != "shoes")
    try:
        name = library.rename("shoes", wanted)
    except LoraError as error:
        assert re.search(r"[.]$", str(error))
        name = "shoes"
    else:
        assert name == unicodedata.normalize("NFC", wanted.strip())
        _, (choice,) = take_lora_tags(f"a shoe <lora:{name}:0.5>")
        assert library.find(choice.name) == library.find(name)
    assert library.find(name).read_bytes() == content
    assert os.listdir(folder) == [f"{name}.safetensors"]  # noqa: PTH208 - the very characters
