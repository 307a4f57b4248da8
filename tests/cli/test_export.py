"""`studio export` writes what it says, and never over anything."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from studio.cli.export import export, run_export
from studio.core.errors import LoraError, ModelError, SettingsError, StudioError
from studio.core.paths import CHECKOUT_FOLDER, UserData
from studio.core.settings import ModelSettings
from studio.engine.lora_export import largest_difference, read_weights, write_peft
from studio.engine.model_files import find_model
from studio.engine.models import load_components
from studio.engine.pipeline import PipelineManager
from studio.loras.library import shipped_loras
from studio.loras.weights_file import EXPORT_FORMS, ExportSettings
from tests.engine.lora_updates import random_update

WHITE_GROUND = shipped_loras() / "white-ground.safetensors"
ENDINGS = {"kohya": "a.safetensors", "diffusers": "a.safetensors", "merged": "a", "checkpoint": "a.safetensors"}


def run(settings: ExportSettings, tmp_path: Path) -> str:
    return run_export(settings, ModelSettings(), user_data=UserData(tmp_path / "user_data"))


def command_line(*arguments: str) -> str:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(export)
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("form", ["kohya", "diffusers"])
def test_a_shipped_lora_is_written_for_other_programs(form: str, manager: PipelineManager, tmp_path: Path) -> None:
    file = tmp_path / "out" / "white.safetensors"
    words = command_line("white-ground", "--to", form, "--output", str(file), "--user-data", str(tmp_path))
    written, *notes = words.splitlines()
    assert written == f"Written: {file} (108 layers, largest relative difference when read back 0)"
    drops = (
        "sd-scripts' own LoRA reader drops conv_in and conv_out; A1111, Forge, ComfyUI and diffusers read all layers."
    )
    assert notes == ([drops] if form == "kohya" else [])
    source = read_weights("source", WHITE_GROUND, manager.components)
    assert largest_difference(source, read_weights("white", file, manager.components)) == 0
    assert [path.name for path in file.parent.iterdir()] == ["white.safetensors"]


def test_a_file_with_another_programs_names_becomes_kohyas(manager: PipelineManager, tmp_path: Path) -> None:
    manager.loras.use(())
    weights = random_update(manager.components)
    write_peft(tmp_path / "theirs.safetensors", weights, {})
    words = command_line(str(tmp_path / "theirs.safetensors"), "--output", str(tmp_path / "ours.safetensors"))
    assert words.startswith(f"Written: {tmp_path / 'ours.safetensors'} (")
    assert largest_difference(weights, read_weights("a", tmp_path / "ours.safetensors", manager.components)) < 1e-2


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("kohya", ("A1111 computes it otherwise", "Forge and ComfyUI before 0.3.77", "sd-scripts and diffusers drop")),
        ("diffusers", ("diffusers is exact at strength 1",)),
        ("merged", ()),
    ],
)
def test_of_a_dora_it_is_said_who_computes_it_otherwise(
    form: str, words: tuple[str, ...], manager: PipelineManager, tmp_path: Path
) -> None:
    manager.loras.use(())
    write_peft(tmp_path / "dora.safetensors", random_update(manager.components, dora=True), {}, dtype=torch.float32)
    target = tmp_path / "out" / ENDINGS[form]
    settings = ExportSettings(lora=str(tmp_path / "dora.safetensors"), to=form, output=target, dtype="float32")
    said = run(settings, tmp_path).partition("\n")[2]
    assert all(word in said for word in words)
    assert ("It is a DoRA" in said) == ("checkpoint is exact everywhere" in said) == bool(words)


def test_a_model_keeps_what_it_was_trained_to_predict(tmp_path: Path) -> None:
    command_line(
        "white-ground", "--to", "merged", "--output", str(tmp_path / "m"), "--prediction-type", "v_prediction"
    )  # fmt: skip
    assert load_components(find_model(str(tmp_path / "m")), "float32").pipeline.scheduler.config.prediction_type == (
        "v_prediction"
    )


@pytest.mark.parametrize("name", ["a.safetensors", "A.SAFETENSORS"])
def test_a_file_is_found_from_the_current_folder(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(WHITE_GROUND, tmp_path / name)
    assert command_line(name, "--output", "b.safetensors").startswith(f"Written: {tmp_path / 'b.safetensors'} (108")


def test_the_file_is_named_after_the_lora_where_no_output_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run(ExportSettings(lora="white-ground"), tmp_path)
    assert (tmp_path / "white-ground-kohya.safetensors").is_file()


def test_a_merged_model_has_the_lora_at_its_strength(manager: PipelineManager, tmp_path: Path) -> None:
    manager.loras.use(())
    settings = ExportSettings(lora="white-ground", to="merged", strength=0.5, output=tmp_path / "m", dtype="float32")
    words = run(settings, tmp_path)
    assert words.endswith("(108 layers, largest relative difference when read back 0)")
    merged = load_components(find_model(str(tmp_path / "m")), "float32")
    path, layer = next(iter(read_weights("a", WHITE_GROUND, manager.components).unet.items()))
    old = manager.components.unet.get_submodule(path).weight
    change = layer.scale * (layer.up.flatten(1) @ layer.down.flatten(1)).reshape(old.shape)
    torch.testing.assert_close(merged.unet.get_submodule(path).weight, old + 0.5 * change, atol=1e-6, rtol=1e-5)


def test_the_shipped_model_cannot_be_a_checkpoint_and_says_what_can_be(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"Export a model folder instead \(--to merged\)"):
        run(ExportSettings(lora="white-ground", to="checkpoint", output=tmp_path / "a.safetensors"), tmp_path)
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("form", EXPORT_FORMS)
def test_nothing_is_overwritten(form: str, tmp_path: Path) -> None:
    target = tmp_path / ENDINGS[form]
    target.write_text("mine")
    with pytest.raises(LoraError, match="is there already, and nothing is overwritten"):
        run(ExportSettings(lora="white-ground", to=form, output=target), tmp_path)
    assert target.read_text() == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nosuch",), "There is no LoRA named nosuch in the library"),
        (
            ("white-ground", "--to", "a1111"),
            "Form [(]to[)] must be 'kohya', 'diffusers', 'merged' or 'checkpoint', got",
        ),
        (("white-ground", "--dtype", "int8"), "Number format [(]dtype[)] must be 'float16' or 'float32', got 'int8'"),
        (("white-ground", "--strength", "9"), "Strength must be between -4 and 4, got 9"),
        (
            ("white-ground", "--output", "shoes.ckpt"),
            r"output must end in \.safetensors for --to kohya, got shoes\.ckpt",
        ),
        (("white-ground", "--model", "/nowhere"), "There is no model folder or file /nowhere"),
    ],
)
def test_what_cannot_be_done_is_said(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=words):
        command_line(*arguments, "--user-data", str(tmp_path))


def test_an_ending_that_no_program_reads_is_refused_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.engine.models.load_components", lambda *_, **__: pytest.fail("loaded a model"))
    with pytest.raises(SettingsError):
        run(ExportSettings(lora="white-ground", output=tmp_path / "a.bin"), tmp_path)


@pytest.mark.process
def test_the_command_line_starts_without_torch() -> None:
    code = "import studio.cli.export, sys; sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT_FOLDER, check=False).returncode == 0
