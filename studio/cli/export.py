"""`python -m studio export`: a LoRA for other programs, or a whole model with it."""

from pathlib import Path
from typing import Annotated

import typer

from studio.cli.options import LORA_ENDING, UserDataOption, field_help, lora_name, prepare_engine, read_options
from studio.core.errors import SettingsError
from studio.core.language import _
from studio.core.paths import UserData, locate_user_data
from studio.core.settings import ModelSettings
from studio.core.system import heavy_imports
from studio.loras.weights_file import EXPORT_DTYPES, EXPORT_FORMS, ExportSettings

_DEFAULTS = ExportSettings(lora="-")


def export(
    context: typer.Context,
    lora: Annotated[str, typer.Argument(help=field_help(ExportSettings, "lora"))],
    to: Annotated[
        str, typer.Option(help=field_help(ExportSettings, "to"), metavar="|".join(EXPORT_FORMS))
    ] = _DEFAULTS.to,
    output: Annotated[
        Path | None, typer.Option("--output", "--out", help=field_help(ExportSettings, "output"))
    ] = _DEFAULTS.output,
    strength: Annotated[float, typer.Option(help=field_help(ExportSettings, "strength"))] = _DEFAULTS.strength,
    dtype: Annotated[
        str, typer.Option(help=field_help(ExportSettings, "dtype"), metavar="|".join(EXPORT_DTYPES))
    ] = _DEFAULTS.dtype,
    model: Annotated[
        str, typer.Option(help=_("The model it was made for: {models}", models=field_help(ModelSettings, "model")))
    ] = ModelSettings().model,
    prediction_type: Annotated[
        str, typer.Option("--prediction-type", help=field_help(ModelSettings, "prediction_type"))
    ] = ModelSettings().prediction_type,
    user_data: UserDataOption = None,
) -> None:
    """Convert a LoRA, or merge it into a model."""
    settings = read_options(context, ExportSettings, lora=lora_name(lora))
    model_settings = read_options(context, ModelSettings)
    prepare_engine()
    typer.echo(run_export(settings, model_settings, user_data=locate_user_data(user_data)))


def run_export(settings: ExportSettings, model: ModelSettings, *, user_data: UserData) -> str:
    """Convert or merge, and say what was written, and which programs do not read it so.

    Raises:
        SettingsError: where `output` has an ending that its readers would not take.
        LoraError: where there is no such LoRA, it does not fit the model, something is at `output`, or what was read
            back is not what was written.
        ModelError: where there is no such model, or it cannot be a single file.
        WeightsFileError: where the LoRA's file is damaged.
    """
    with heavy_imports():
        from studio.engine.lora_conversion import at_strength, convert_lora, export_model, export_notes
        from studio.engine.lora_file import read_weights
        from studio.engine.lora_merge import assert_free
        from studio.engine.model_files import find_model
        from studio.engine.models import load_components
    from studio.loras.library import LoraLibrary
    from studio.loras.weights_file import read_header

    path = LoraLibrary(user_data.loras).find(settings.lora)
    target = settings.target(path.stem)
    if settings.is_file and target.suffix != LORA_ENDING:
        raise SettingsError(
            _(
                "output must end in {ending} for --to {to}, got {name}.",
                ending=LORA_ENDING,
                to=settings.to,
                name=target.name,
            )
        )
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
    written = _(
        "Written: {target} ({num_layers} layers, largest relative difference when read back {difference:.2g})",
        target=target,
        num_layers=num_layers,
        difference=difference,
    )
    return "\n".join([written, *export_notes(weights, settings.to)])
