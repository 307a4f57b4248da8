"""Datasets are found again by name and by source; a damaged recipe is said, not replaced."""

from pathlib import Path

import pytest

from studio.core.errors import DatasetError
from studio.datasets.library import DatasetLibrary, safe_name
from studio.datasets.source import DatasetRecipe


@pytest.fixture
def library(tmp_path: Path) -> DatasetLibrary:
    return DatasetLibrary(tmp_path / "datasets")


def test_a_recipe_comes_back_as_it_was(library: DatasetLibrary) -> None:
    recipe = DatasetRecipe(source="/pictures", template="{colour} shoe", resolution=128)
    library.save_recipe("shoes", recipe)
    assert library.recipe("shoes") == recipe
    assert library.names() == ["shoes"]


def test_a_source_is_found_again(library: DatasetLibrary) -> None:
    library.save_recipe("shoes", DatasetRecipe(source="/pictures"))
    assert library.name_of_source(Path("/pictures")) == "shoes"
    assert library.name_of_source(Path("/others")) is None


def test_a_taken_name_gets_a_number(library: DatasetLibrary) -> None:
    library.save_recipe("shoes", DatasetRecipe(source="/a"))
    assert library.free_name("shoes") == "shoes 2"


@pytest.mark.parametrize("wanted", ["../x", "a/b", "", ".", "..", "a\0b", "x" * 500, "  ", "a\nb", ".hidden", "名前/x"])
def test_a_name_is_always_one_folder(wanted: str, library: DatasetLibrary) -> None:
    name = safe_name(wanted)
    assert library.place(name).parent == library.folder
    assert 0 < len(name) <= 80


def test_a_dataset_of_a_name_that_is_no_longer_given_is_opened(library: DatasetLibrary) -> None:
    recipe = DatasetRecipe(source="/x")
    (library.folder / "aux").mkdir(parents=True)
    (library.folder / "aux" / "recipe.json").write_text(recipe.model_dump_json(), encoding="utf-8")
    assert library.free_name("aux") == "aux_"
    assert library.recipe("aux") == recipe


def test_a_name_that_leads_elsewhere_is_refused(library: DatasetLibrary) -> None:
    with pytest.raises(DatasetError, match="name must be"):
        library.place("../outside")


def test_a_damaged_recipe_is_said_and_left(library: DatasetLibrary) -> None:
    library.save_recipe("shoes", DatasetRecipe(source="/a"))
    file = library.place("shoes") / "recipe.json"
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(DatasetError, match="cannot be read"):
        library.recipe("shoes")
    assert file.read_text(encoding="utf-8") == "{}"


def test_a_dataset_that_is_gone_is_said(library: DatasetLibrary) -> None:
    with pytest.raises(DatasetError, match="no dataset shoes"):
        library.recipe("shoes")
