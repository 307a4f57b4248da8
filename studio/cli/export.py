"""`studio export`: a LoRA for other programs, or a whole model with it."""

import os
from pathlib import Path
from typing import Annotated

import typer

from studio.core.errors import SettingsError
from studio.core.paths import UserData, locate_user_data
from studio.core.settings import ModelSettings, parse_settings
from studio.core.system import prepare_threads
from studio.loras.export_settings import EXPORT_DTYPES, EXPORT_FORMS, ExportSettings

ENDING = ".safetensors"


def _help(name: str) -> str:
    return str(ExportSettings.model_fields[name].description)


_DEFAULTS = ExportSettings(lora="-")


def export(
    lora: Annotated[str, typer.Argument(help=_help("lora"))],
    to: Annotated[str, typer.Option(help=_help("to"), metavar="|".join(EXPORT_FORMS))] = _DEFAULTS.to,
    output: Annotated[Path | None, typer.Option(help=_help("output"))] = _DEFAULTS.output,
    strength: Annotated[float, typer.Option(help=_help("strength"))] = _DEFAULTS.strength,
    dtype: Annotated[str, typer.Option(help=_help("dtype"), metavar="|".join(EXPORT_DTYPES))] = _DEFAULTS.dtype,
    model: Annotated[
        str, typer.Option(help="The model it was made for: " + str(ModelSettings.model_fields["model"].description))
    ] = ModelSettings().model,
    user_data: Annotated[
        Path | None, typer.Option("--user-data", help="Where the library of LoRAs is.", show_default="user_data")
    ] = None,
) -> None:
    """Write a LoRA for another program, or a model with it merged; it is read back and compared first."""
    name = str(Path(lora).expanduser().resolve()) if lora.endswith(ENDING) else lora
    settings = parse_settings(
        ExportSettings, {"lora": name, "to": to, "output": output, "strength": strength, "dtype": dtype}
    )
    model_settings = parse_settings(ModelSettings, {"model": model})
    prepare_threads()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    typer.echo(run_export(settings, model_settings, user_data=locate_user_data(user_data)))


def run_export(settings: ExportSettings, model: ModelSettings, *, user_data: UserData) -> str:
    """Convert or merge, and say in a sentence what was written.

    Raises:
        SettingsError: where `output` has an ending that its readers would not take.
        LoraError: where there is no such LoRA, it does not fit the model, something is at `output`, or what was read
            back is not what was written.
        ModelError: where there is no such model, or it cannot be a single file.
        WeightsFileError: where the LoRA's file is damaged.
    """
    from studio.engine.lora_conversion import at_strength, convert_lora, export_model
    from studio.engine.lora_file import read_weights
    from studio.engine.lora_merge import assert_free
    from studio.engine.models import find_model, load_components
    from studio.loras.library import LoraLibrary
    from studio.loras.weights_file import read_header

    path = LoraLibrary(user_data.loras).find(settings.lora)
    target = settings.target(path.stem)
    if settings.is_file and target.suffix != ENDING:
        raise SettingsError(f"output must end in {ENDING} for --to {settings.to}, got {target.name}.")
    assert_free(target)  # before anything that takes long
    components = load_components(find_model(model.model), "float32", prediction_type=model.prediction_type)
    weights = read_weights(path.stem, path, components)
    if settings.to == "kohya" or settings.to == "diffusers":
        difference = convert_lora(
            at_strength(path.stem, weights, settings.strength),
            target,
            components=components,
            dialect=settings.to,
            dtype=settings.dtype,
            metadata=read_header(path).metadata,
        )
    else:
        loras = [(weights, settings.strength)]
        difference = export_model(components, loras, target, form=settings.to, dtype=settings.dtype)
    num_layers = len(weights.unet) + len(weights.text_encoder)
    return f"Written: {target} ({num_layers} layers, largest relative difference when read back {difference:.2g})"
