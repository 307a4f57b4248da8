"""The option wins over the variable, the variable over the checkout."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from studio.core.language import LANGUAGES
from studio.core.paths import assets_folder, black_pictures_page, is_checkout, locate_user_data, typed_path


def test_the_option_wins_over_the_environment(tmp_path: Path) -> None:
    environment = {"STUDIO_USER_DATA": str(tmp_path / "variable")}
    assert locate_user_data(tmp_path / "option", environment=environment).root == tmp_path / "option"
    assert locate_user_data(environment=environment).root == tmp_path / "variable"


def test_a_checkout_keeps_its_user_data_beside_the_code() -> None:
    assert is_checkout()
    assert locate_user_data(environment={}).root == Path(__file__).resolve().parents[2] / "user_data"


def test_naming_a_place_makes_no_folder(tmp_path: Path) -> None:
    user_data = locate_user_data(tmp_path / "new", environment={})
    assert not user_data.outputs.exists()
    assert not user_data.root.exists()


def test_the_assets_are_where_the_code_looks_for_them() -> None:
    assert (assets_folder() / "shoes-demo" / "model_index.json").is_file()
    assert (assets_folder() / "studio.css").is_file()
    assert "black" in black_pictures_page("en").read_text(encoding="utf-8")
    assert all(black_pictures_page(tag).is_file() for tag in LANGUAGES)


@pytest.mark.process
def test_an_installed_package_finds_its_assets_and_keeps_user_data_in_the_platforms_folder(tmp_path: Path) -> None:
    checkout = Path(__file__).resolve().parents[2]
    wheel = tomllib.loads((checkout / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    site = tmp_path / "site"
    shutil.copytree(checkout / "studio", site / "studio", ignore=shutil.ignore_patterns("__pycache__"))
    for source, target in wheel["force-include"].items():
        copy = shutil.copytree if (checkout / source).is_dir() else shutil.copy
        copy(checkout / source, site / target)
    code = (
        "from studio.core.paths import *; print(assets_folder()); print(black_pictures_page('pt-BR').is_file());"
        "print((assets_folder() / 'shoes-demo' / 'model_index.json').is_file()); print(locate_user_data().root)"
    )
    environment = {**os.environ, "PYTHONPATH": str(site), "HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}
    environment.pop("STUDIO_USER_DATA", None)
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert output[:3] == [str(site / "studio" / "assets"), "True", "True"]
    assert output[3].startswith(str(tmp_path))
    assert "LoRA Studio" in output[3]


@pytest.mark.skipif(os.name == "nt", reason="a terminal's backslashes are the system's own there")
def test_a_pasted_path_is_understood(tmp_path: Path) -> None:
    folder = tmp_path / "my shoes (1) & 50% größe"
    folder.mkdir()
    pasted = [
        str(folder),
        f"  {folder} ",
        f"'{folder}'",
        f'"{folder}"',
        shlex.quote(str(folder)),
        folder.as_uri(),
        f"file://localhost{folder.as_uri().removeprefix('file://')}",
        re.sub(r"([ ()&%])", r"\\\1", str(folder)),
    ]
    assert {typed_path(text) for text in pasted} == {folder}
    # A command's options are paths already, which have lost one of two slashes.
    assert {typed_path(Path(text)) for text in pasted if "localhost" not in text} == {folder}
    assert locate_user_data(Path(folder.as_uri())).root == folder
    assert locate_user_data(environment={"STUDIO_USER_DATA": f'"{folder}"'}).root == folder


def test_no_module_reads_a_typed_path_in_another_way() -> None:
    modules = (assets_folder().parent / "studio").rglob("*.py")
    found = [path.name for path in modules if ".expanduser(" in path.read_text(encoding="utf-8")]
    assert found == ["paths.py"]


@pytest.mark.skipif(os.name == "nt", reason="a name cannot have them there")
@pytest.mark.parametrize("name", ["a\\ b", "'quoted'", "it's", " space "])
def test_a_path_that_exists_as_typed_is_meant(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    assert typed_path(str(tmp_path / name)) == tmp_path / name


def test_home_is_known_in_every_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert {typed_path(text) for text in ("~/a", "'~/a'", Path("~/a"))} == {tmp_path / "a"}
    assert typed_path("x" * 5000) == Path("x" * 5000)
