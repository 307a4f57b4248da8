"""The library shows every LoRA as its file tells of itself, takes in only what it can use, and overwrites nothing."""

import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import send2trash
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from studio.core.errors import LoraError, WeightsFileError
from studio.images.prompts import take_lora_tags
from studio.loras.keys import scale_rules
from studio.loras.library import THUMBNAIL_LIMIT, LoraLibrary, check_kind, read_card, shipped_loras
from studio.loras.weights_file import read_header, weights_hash

LAYER = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
JPEG = "data:image/jpeg;base64,/9j/4AAQSkZJRg=="


def write_lora(path: Path, *, value: float = 1.0, rank: int = 2, metadata: Mapping[str, str] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{LAYER}.lora_down.weight": torch.full((rank, 4), float(value)),
        f"{LAYER}.lora_up.weight": torch.full((4, rank), float(value)),
        f"{LAYER}.alpha": torch.tensor(1.0),
    }
    save_file(tensors, path, metadata=dict(metadata or {}))
    return path


def write_named(path: Path, *names: str, width: int = 4) -> Path:
    save_file({name: torch.zeros(2, width) for name in names}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "loras"


@pytest.fixture
def library(folder: Path, tmp_path: Path) -> LoraLibrary:
    """A library without any LoRA, shipped ones neither."""
    return LoraLibrary(folder, shipped=tmp_path / "shipped")


@pytest.fixture
def dropped(tmp_path: Path) -> Path:
    """A good LoRA that lies elsewhere."""
    return write_lora(tmp_path / "downloads" / "shoes.safetensors")


# Cards


def test_without_files_there_are_no_cards(library: LoraLibrary) -> None:
    assert (library.cards(), library.names()) == ((), ())


def test_a_card_has_what_the_file_tells(folder: Path, library: LoraLibrary) -> None:
    metadata = {
        "modelspec.title": "Shoes",
        "ss_output_name": "not this",
        "modelspec.description": "Draws shoes.",
        "modelspec.trigger_phrase": "a shoe",
        "ss_sd_model_name": "sd-v1-5",
        "modelspec.thumbnail": JPEG,
    }
    path = write_lora(folder / "a.v2.safetensors", rank=3, metadata=metadata)
    (card,) = library.cards()
    assert library.usable_names() == ("a.v2",)
    assert (card.name, card.path, card.size_bytes, card.problem) == ("a.v2", path, path.stat().st_size, "")
    assert (card.title, card.description, card.trigger) == ("Shoes", "Draws shoes.", "a shoe")
    assert (card.base_model, card.rank, card.thumbnail) == ("sd-v1-5", 3, JPEG)


def test_a_card_of_a_silent_file_is_empty(folder: Path, library: LoraLibrary) -> None:
    write_lora(folder / "a.safetensors")
    (card,) = library.cards()
    assert {card.title, card.description, card.trigger, card.base_model, card.thumbnail, card.problem} == {""}


@pytest.mark.parametrize("nothing", ["", "None"])
def test_where_the_first_word_is_nothing_the_next_is_taken(folder: Path, library: LoraLibrary, nothing: str) -> None:
    write_lora(folder / "a.safetensors", metadata={"modelspec.title": nothing, "ss_output_name": "shoes"})
    assert library.cards()[0].title == "shoes"


def test_long_words_are_cut(folder: Path, library: LoraLibrary) -> None:
    write_lora(folder / "a.safetensors", metadata={"modelspec.title": "x" * 10_000})
    assert library.cards()[0].title == "x" * 200


def test_the_greatest_rank_is_told(folder: Path) -> None:
    folder.mkdir()
    sizes = {"conv_in": 4, "conv_out": 16, "mid": 8}
    tensors = {f"unet.{name}.lora_A.weight": torch.zeros(rank, 40) for name, rank in sizes.items()}
    save_file(tensors, folder / "a.safetensors")
    assert read_card("a", folder / "a.safetensors").rank == 16


def test_cards_are_in_order_whatever_the_case(folder: Path, library: LoraLibrary) -> None:
    for name in ("b", "C", "a"):
        write_lora(folder / f"{name}.safetensors")
    assert [card.name for card in library.cards()] == ["a", "b", "C"]
    assert library.names() == ("a", "b", "C")


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_picture_is_a_thumbnail(folder: Path, library: LoraLibrary, kind: str) -> None:
    url = f"data:image/{kind};base64,iVBORw0KGgo="
    write_lora(folder / "a.safetensors", metadata={"modelspec.thumbnail": url})
    assert library.cards()[0].thumbnail == url


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "data:image/svg+xml;base64,PHN2Zz48L3N2Zz4=",
        "data:text/html;base64,PGI+",
        "data:image/jpeg;base64,",
        "data:image/jpeg;base64,/9j/\n",
        'data:image/jpeg;base64,/9j/"onerror="alert(1)',
        "data:image/jpeg,/9j/",
        " data:image/jpeg;base64,/9j/",
        "https://example.com/a.jpeg",
        "data:image/jpeg;base64," + "A" * THUMBNAIL_LIMIT,
    ],
)
def test_what_is_surely_no_picture_is_no_thumbnail(folder: Path, library: LoraLibrary, url: str) -> None:
    write_lora(folder / "a.safetensors", metadata={"modelspec.thumbnail": url})
    assert library.cards()[0].thumbnail == ""


def test_bad_files_have_cards_with_their_reasons(folder: Path, library: LoraLibrary) -> None:
    folder.mkdir()
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "folder.safetensors").mkdir()
    (folder / "folder 2.SAFETENSORS").mkdir()
    (folder / "link.safetensors").symlink_to(folder / "nowhere")
    (folder / "page.safetensors").write_bytes(b"<!doctype html><title>404</title>")
    write_named(folder / "xl.safetensors", "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight")
    problems = {card.name: card.problem for card in library.cards()}
    assert list(problems) == ["empty", "folder", "folder 2", "link", "page", "xl"]
    assert "is empty or cut short" in problems["empty"]
    assert "is not a file" in problems["folder"]
    assert "is not a file" in problems["folder 2"]
    assert "There is no file" in problems["link"]
    assert "is a web page" in problems["page"]
    assert "is a LoRA for Stable Diffusion XL" in problems["xl"]
    assert library.usable_names() == (), "a form offers none of them"


def test_a_card_with_a_problem_tells_its_size(folder: Path, library: LoraLibrary) -> None:
    folder.mkdir()
    (folder / "a.safetensors").write_bytes(b"<html></html>")
    assert library.cards()[0].size_bytes == 13


@pytest.mark.parametrize("name", [".a.safetensors", "a.ckpt", "a.safetensors.part", "a.votes.json"])
def test_hidden_and_other_files_are_no_loras(folder: Path, library: LoraLibrary, name: str) -> None:
    write_lora(folder / name)
    assert library.names() == ()


def test_what_a_kill_left_while_adding_is_no_lora(folder: Path, library: LoraLibrary) -> None:
    write_lora(folder / ".adding-abc" / "copy.safetensors")
    assert library.names() == ()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has names that are no Unicode")
def test_a_file_whose_name_is_no_text_does_not_hide_the_others(folder: Path, library: LoraLibrary) -> None:
    write_lora(folder / "a.safetensors")
    shutil.copyfile(folder / "a.safetensors", os.fsencode(folder) + b"/\xff.safetensors")
    assert [card.name for card in library.cards()] == ["a"]


def test_a_file_that_comes_or_goes_is_seen_at_the_next_look(folder: Path, library: LoraLibrary) -> None:
    """Whatever the age of the folders, and though they are listed once only where nothing changes."""
    below = folder / "styles"
    below.mkdir(parents=True)
    changes = (
        lambda: (folder / "a.safetensors").write_bytes(b""),
        lambda: (below / "b.safetensors").write_bytes(b""),
        lambda: (below / "b.safetensors").rename(folder / "c.safetensors"),
        lambda: (folder / "a.safetensors").unlink(),
        lambda: shutil.rmtree(below),
        lambda: shutil.rmtree(folder),
    )
    expected = (("a",), ("a", "b"), ("a", "c"), ("c",), ("c",), ())
    for age_seconds in (60, 0):
        below.mkdir(parents=True, exist_ok=True)
        for change, names in zip(changes, expected, strict=True):
            for place in (below, folder):
                if age_seconds and place.is_dir():
                    os.utime(place, (1_700_000_000, 1_700_000_000))
            listed = library._files()
            assert library.names() == tuple(sorted(listed))
            change()
            assert library.names() == names


def test_a_users_file_hides_a_shipped_one(folder: Path, tmp_path: Path, library: LoraLibrary) -> None:
    write_lora(tmp_path / "shipped" / "a.safetensors")
    own = write_lora(folder / "a.safetensors", value=2)
    assert [card.path for card in library.cards()] == [own]
    assert library.find("a") == own


def test_the_shipped_library_has_the_white_ground() -> None:
    cards = {card.name: card for card in LoraLibrary().cards()}
    card = cards["white-ground"]
    assert (card.trigger, card.problem) == ("", "")
    assert card.thumbnail.startswith("data:image/")
    assert card.path == shipped_loras() / "white-ground.safetensors"


# Finding


def test_a_lora_is_found_by_its_name(folder: Path, library: LoraLibrary) -> None:
    path = write_lora(folder / "my shoes.v2.safetensors")
    assert library.find("my shoes.v2") == path


@pytest.mark.parametrize("ending", [".safetensors", ".SAFETENSORS"])
def test_a_lora_is_found_by_its_absolute_path(ending: str, dropped: Path, library: LoraLibrary) -> None:
    dropped = dropped.rename(dropped.with_suffix(ending))
    assert library.find(str(dropped)) == dropped


def test_a_lora_is_found_by_a_path_from_home(
    dropped: Path, library: LoraLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(dropped.parent))
    monkeypatch.setenv("USERPROFILE", str(dropped.parent))
    assert library.find("~/shoes.safetensors") == dropped


def test_an_unknown_name_names_those_there_are(folder: Path, library: LoraLibrary) -> None:
    write_lora(folder / "b.safetensors")
    write_lora(folder / "a.safetensors")
    with pytest.raises(LoraError, match=r"no LoRA named x in the library, which has: a, b\. Drop its file to add it"):
        library.find("x")


def test_an_empty_library_is_said_to_have_none(library: LoraLibrary) -> None:
    with pytest.raises(LoraError, match="which has: none"):
        library.find("x")


@pytest.mark.parametrize(
    "name",
    [
        "",
        "shoes",
        "shoes.safetensors",
        "../downloads/shoes",
        "../downloads/shoes.safetensors",
        "/nowhere/x.safetensors",
        "/etc/passwd",
        "~nobody-of-this-name/x.safetensors",
        "/" + "x" * 5000 + ".safetensors",
        "/x\0.safetensors",
    ],
)
def test_other_names_find_nothing(
    dropped: Path, library: LoraLibrary, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dropped.parent)
    with pytest.raises(LoraError, match="There is no LoRA named"):
        library.find(name)


def test_a_folder_is_not_found(tmp_path: Path, library: LoraLibrary) -> None:
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(LoraError, match="There is no LoRA named"):
        library.find(str(tmp_path / "a.safetensors"))


# Adding


def test_adding_copies_the_file(dropped: Path, folder: Path, library: LoraLibrary) -> None:
    card = library.add(dropped)
    assert (card.name, card.path) == ("shoes", folder / "shoes.safetensors")
    assert card.path.read_bytes() == dropped.read_bytes()


def test_adding_leaves_the_lora_alone_in_its_folder(dropped: Path, folder: Path, library: LoraLibrary) -> None:
    library.add(dropped)
    assert [path.name for path in folder.iterdir()] == ["shoes.safetensors"]


def test_a_name_may_be_chosen(dropped: Path, library: LoraLibrary) -> None:
    assert library.add(dropped, name="boots").name == "boots"


def test_the_same_content_is_refused_under_any_name(dropped: Path, library: LoraLibrary) -> None:
    library.add(dropped)
    again = Path(shutil.copy(dropped, dropped.with_name("other.safetensors")))
    with pytest.raises(LoraError, match="is in the library already, as shoes"):
        library.add(again)


def test_a_shipped_lora_is_not_added_again(folder: Path) -> None:
    with pytest.raises(LoraError, match="is in the library already, as white-ground"):
        LoraLibrary(folder).add(shipped_loras() / "white-ground.safetensors")


def test_other_content_of_the_same_size_is_added(dropped: Path, library: LoraLibrary) -> None:
    library.add(dropped)
    other = write_lora(dropped.with_name("b.safetensors"), value=2)
    assert other.stat().st_size == dropped.stat().st_size
    assert library.add(other).name == "b"


def test_a_name_that_is_taken_gets_a_number(dropped: Path, folder: Path, library: LoraLibrary) -> None:
    first = write_lora(folder / "shoes.safetensors", value=2).read_bytes()
    write_lora(folder / "shoes 2.safetensors", value=3)
    assert library.add(dropped).name == "shoes 3"
    assert (folder / "shoes.safetensors").read_bytes() == first


def test_a_shipped_ones_name_is_taken_too(dropped: Path, tmp_path: Path, library: LoraLibrary) -> None:
    write_lora(tmp_path / "shipped" / "shoes.safetensors", value=2)
    assert library.add(dropped).name == "shoes 2"


# On a Mac and on Windows these are the same file.
@pytest.mark.parametrize(("there", "new"), [("SHOES", "shoes"), ("shoes", "Shoes"), ("cafe\u0301", "caf\u00e9")])
def test_a_name_that_differs_only_in_case_or_accents_is_taken(
    dropped: Path, folder: Path, library: LoraLibrary, there: str, new: str
) -> None:
    write_lora(folder / f"{there}.safetensors", value=2)
    assert library.add(dropped, name=new).name == f"{new} 2"


@pytest.mark.parametrize(
    ("name", "clean"),
    [
        ("a<b>:c", "a_b__c"),
        ("a\nb\x00\x1f\x7fc", "a_b___c"),
        ("../../evil", "_.._evil"),
        ("/tmp/evil", "_tmp_evil"),
        ("..\\evil", "_evil"),
        ('a*?"|b', "a____b"),
        (".hidden", "hidden"),
        (" a. ", "a"),
        ("...", "lora"),
        (" ", "lora"),
        ("a\ud800b", "ab"),
        ("étoile 星", "étoile 星"),
    ],
)
def test_a_name_is_made_fit_for_files_and_tags(
    dropped: Path, folder: Path, library: LoraLibrary, name: str, clean: str
) -> None:
    assert library.add(dropped, name=name).name == clean
    assert [path.name for path in folder.iterdir()] == [f"{clean}.safetensors"]


@pytest.mark.parametrize("name", ["x" * 400, "星" * 400, "x" + "星" * 400])
def test_a_name_that_is_too_long_for_a_file_is_cut(dropped: Path, library: LoraLibrary, name: str) -> None:
    card = library.add(dropped, name=name)
    assert name.startswith(card.name)
    assert card.path.is_file()


def test_a_cut_name_gets_a_number_too(dropped: Path, library: LoraLibrary) -> None:
    first = library.add(dropped, name="x" * 400)
    second = library.add(write_lora(dropped.with_name("b.safetensors"), value=2), name="x" * 400)
    assert second.name == f"{first.name} 2"


@pytest.mark.parametrize(
    ("names", "width", "words"),
    [
        (["lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"], 4, "Stable Diffusion XL"),
        (["lora_unet_a_attn2_to_k.lora_down.weight"], 2048, "Stable Diffusion XL"),
        (["lora_unet_a_attn2_to_k.lora_down.weight"], 1024, "Stable Diffusion 2"),
        (["lora_unet_double_blocks_0_img_attn_proj.lora_down.weight"], 4, "Flux"),
        (["emb_params"], 4, "a textual inversion embedding"),
        (["first_stage_model.a", f"{LAYER}.lora_down.weight"], 4, "a whole model, not a LoRA"),
        (["some.weight", "other.weight"], 4, "holds no LoRA that the studio knows: .* such as other.weight"),
        (["some.weight", f"{LAYER}.lora_down.weight"], 4, r"not fully understood: 1 of 2 tensors .*\(some.weight"),
        ([], 4, "holds no tensors"),
    ],
)
def test_what_is_no_lora_for_stable_diffusion_1_is_refused(
    tmp_path: Path, folder: Path, library: LoraLibrary, names: list[str], width: int, words: str
) -> None:
    path = write_named(tmp_path / "a.safetensors", *names, width=width)
    with pytest.raises(LoraError, match=words):
        library.add(path)
    assert not folder.exists()


def test_a_damaged_file_is_refused_and_leaves_nothing(dropped: Path, folder: Path, library: LoraLibrary) -> None:
    dropped.write_bytes(dropped.read_bytes()[:-1])
    with pytest.raises(WeightsFileError, match="is damaged"):
        library.add(dropped)
    assert not folder.exists()


def test_a_pickle_is_refused(tmp_path: Path, library: LoraLibrary) -> None:
    torch.save({}, tmp_path / "a.pt")
    with pytest.raises(WeightsFileError, match="is a pickle"):
        library.add(tmp_path / "a.pt")


def test_a_dangling_link_in_the_library_does_not_hinder_adding(
    dropped: Path, folder: Path, library: LoraLibrary
) -> None:
    folder.mkdir()
    (folder / "link.safetensors").symlink_to(folder / "nowhere")
    assert library.add(dropped).name == "shoes"


def test_a_disk_that_is_full_leaves_nothing(dropped: Path, folder: Path, library: LoraLibrary) -> None:
    folder.mkdir()
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(OSError, match="too large"):
            library.add(dropped)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert list(folder.iterdir()) == []


def test_a_lora_in_a_known_dialect_passes(dropped: Path) -> None:
    check_kind(read_header(dropped))


def test_a_copy_is_found_under_its_name_by_its_content(folder: Path, library: LoraLibrary, tmp_path: Path) -> None:
    mine = write_lora(folder / "mine.safetensors", value=1.0)
    shutil.copyfile(mine, tmp_path / "another name.safetensors")
    assert library.name_of_copy(tmp_path / "another name.safetensors") == "mine"
    other = write_lora(tmp_path / "other.safetensors", value=2.0)
    assert library.name_of_copy(other) is None


# Names and folders


@pytest.mark.parametrize(
    ("file", "asked"),
    [
        ("cafe\u0301", "caf\u00e9"),
        ("caf\u00e9", "cafe\u0301"),
        ("shoes", "sho\u200bes\ufeff"),
        ("my shoes", "my\u00a0shoes"),
        ("sho\u00ades", "shoes"),
        ("\u2764\ufe0f", "\u2764"),
    ],
)
def test_names_that_look_the_same_are_the_same(file: str, asked: str, folder: Path, library: LoraLibrary) -> None:
    path = write_lora(folder / f"{file}.safetensors")
    assert library.find(asked) == path
    assert library.name_of(asked) == file


def test_an_exact_name_goes_before_one_that_looks_the_same(folder: Path, library: LoraLibrary) -> None:
    paths = [write_lora(folder / f"{name}.safetensors", value=i) for i, name in enumerate(["e\u0301", "\u00e9"])]
    assert [library.find(path.stem) for path in paths] == paths


def test_sub_folders_and_other_cases_of_the_ending_are_found(folder: Path, library: LoraLibrary) -> None:
    top = write_lora(folder / "a.SAFETENSORS")
    below = write_lora(folder / "people" / "b.safetensors")
    same = write_lora(folder / "people" / "a.safetensors")
    write_lora(folder / ".hidden" / "c.safetensors")
    assert library.names() == ("a", "b", "people/a")
    assert [library.find(name) for name in ("a", "b", "people/a")] == [top, below, same]


def test_a_number_format_that_nobody_knows_is_named(folder: Path) -> None:
    path = write_lora(folder / "a.safetensors")
    path.write_bytes(path.read_bytes().replace(b'"F32"', b'"F4X"'))
    assert read_card("a", path).problem.startswith(
        "a.safetensors stores numbers as F4X, which the studio does not know"
    )


# peft's folders


def peft_folder(folder: Path, *, alpha: int | None = 8) -> Path:
    """What `save_pretrained` of peft writes."""
    folder.mkdir(parents=True)
    path = folder / "adapter_model.safetensors"
    layer = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file({f"{layer}.lora_A.weight": torch.ones(2, 4), f"{layer}.lora_B.weight": torch.ones(4, 2)}, path)
    if alpha is not None:
        (folder / "adapter_config.json").write_text(f'{{"peft_type": "LORA", "r": 2, "lora_alpha": {alpha}}}')
    return path


def test_pefts_configuration_is_kept_with_the_librarys_copy(folder: Path, library: LoraLibrary, tmp_path: Path) -> None:
    card = library.add(peft_folder(tmp_path / "run"), name="mine")
    assert card.notes == ()
    assert (folder / "mine.adapter_config.json").is_file()
    assert scale_rules(read_header(folder / "mine.safetensors"))["unet"].alpha == 8


def test_a_card_says_which_layers_sd_scripts_drops(folder: Path) -> None:
    """The LoRA that ships has both: without them the border of its images is not white."""
    (note,) = read_card("white-ground", shipped_loras() / "white-ground.safetensors").notes
    assert note.startswith("sd-scripts' own LoRA reader drops conv_in and conv_out; A1111,")
    folder.mkdir()
    for layer, number in {"conv_in": 1, "mid_block_resnets_0_conv1": 0}.items():
        down, up = torch.ones(2, 4, 3, 3), torch.ones(4, 2, 1, 1)
        names = {"lora_down.weight": down, "lora_up.weight": up, "alpha": torch.ones(())}
        save_file({f"lora_unet_{layer}.{name}": tensor for name, tensor in names.items()}, folder / "a.safetensors")
        assert len(read_card("a", folder / "a.safetensors").notes) == number


def test_a_configuration_that_comes_later_is_kept_too(folder: Path, library: LoraLibrary, tmp_path: Path) -> None:
    card = library.add(peft_folder(tmp_path / "alone", alpha=None), name="mine")
    assert "alpha is taken to be the rank" in card.notes[0]
    assert library.cards()[0].notes == card.notes
    assert library.add(peft_folder(tmp_path / "whole")).name == "mine"
    assert next(card for card in library.cards() if card.name == "mine").notes == ()
    with pytest.raises(LoraError, match="in the library already, as mine"):
        library.add(peft_folder(tmp_path / "again"))


def test_a1111s_hash_is_the_files_word_or_what_that_is_computed_from(folder: Path) -> None:
    silent = write_lora(folder / "a.safetensors")
    content = silent.read_bytes()
    wanted = hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()
    assert weights_hash(read_header(silent)) == wanted
    said = write_lora(folder / "b.safetensors", metadata={"sshs_model_hash": "AB" * 32})
    assert weights_hash(read_header(said)) == "ab" * 32
    odd = write_lora(folder / "c.safetensors", metadata={"sshs_model_hash": '", x: "'})
    assert weights_hash(read_header(odd)) == wanted


def test_a_users_file_is_deleted_with_its_configuration_and_a_shipped_one_never(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_trash(path: Path) -> None:
        raise OSError(13, "There is no trash")

    monkeypatch.setattr(send2trash, "send2trash", no_trash)
    library = LoraLibrary(folder)
    write_lora(folder / "mine.safetensors")
    (folder / "mine.adapter_config.json").write_text("{}")
    library.delete("mine")
    assert library.names() == ("white-ground",)
    assert [path.name.rpartition("-")[2] for path in sorted((folder.parent / "trash").iterdir())] == [
        "mine.adapter_config.json",
        "mine.safetensors",
    ]
    with pytest.raises(LoraError, match="white-ground comes with the studio"):
        library.delete("white-ground")
    with pytest.raises(LoraError, match="There is no LoRA named mine"):
        library.delete("mine")


SIGNS = st.sampled_from("ab._- ()[]{}<>:|*?\"\\/'$%&#,;~\n\té靴🥾\u0301\u200b\u00a0\u202e\ufe0f\ud800ßİ")


@pytest.fixture(scope="module")
def names_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("names") / "shoes.safetensors").parent


@settings(max_examples=40)
@given(st.lists(st.text(SIGNS, max_size=12) | st.sampled_from(["CON", "靴" * 99, "café", "cafe\u0301"]), max_size=4))
def test_what_is_added_under_any_name_is_found_by_it_and_by_its_tag(names_folder: Path, wanted: list[str]) -> None:
    library = LoraLibrary(Path(tempfile.mkdtemp(dir=names_folder)), shipped=names_folder / "shipped")
    for number, name in enumerate(wanted):
        path = write_lora(names_folder / "shoes.safetensors", value=float(number + 1))
        card = library.add(path, name=name)
        assert library.find(card.name) == card.path
        assert card.name in library.names()
        assert card.problem == ""
        text, (choice,) = take_lora_tags(f"a shoe <lora:{card.name}:0.5>")
        assert (text, library.find(choice.name)) == ("a shoe", card.path)
    assert len(library.cards()) == len(wanted)
