"""A LoRA brought into another form, read back from the file and compared before anything is at its place."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from studio.core.errors import LoraError
from studio.core.language import N_, _
from studio.engine.device import DTYPES
from studio.engine.lora_export import largest_difference, write_kohya, write_peft
from studio.engine.lora_file import LayerWeights, LoraWeights, read_weights
from studio.engine.lora_merge import merge_loras, merged_tensors, write_checkpoint, written_aside
from studio.engine.model_files import find_model
from studio.engine.models import Components, load_components
from studio.loras.library import UNET_BLOCKS, ends_note
from studio.loras.weights_file import ExportDtype, ExportForm, LoraDialect, ModelForm

# Rounding alone: half a unit of float16's last place is 2^-11 of a number, and a LoRA's updates are sums of products.
UPDATE_LIMITS: Mapping[ExportDtype, float] = {"float32": 1e-5, "float16": 1e-2}
WEIGHT_LIMITS: Mapping[ExportDtype, float] = {"float32": 1e-6, "float16": 1e-3}
# As the programs' own code has it: docs/lora-files.md
_DORA_READERS: Mapping[ExportForm, str] = {
    "kohya": N_(
        "It is a DoRA: A1111 computes it otherwise (a very different image), Forge and "
        "ComfyUI before 0.3.77 a little, and sd-scripts and diffusers drop its magnitudes. "
        "--to checkpoint is exact everywhere."
    ),
    "diffusers": N_("It is a DoRA: diffusers is exact at strength 1. --to merged or checkpoint is exact everywhere."),
}
# Of the file that is converted, not of what comes of it.
_LEFT_BEHIND = ("lora_adapter_metadata", "format", "sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")


def convert_lora(
    weights: LoraWeights,
    file: Path,
    *,
    components: Components,
    dialect: LoraDialect,
    dtype: ExportDtype,
    metadata: Mapping[str, str],
) -> float:
    """Write a LoRA file, and return how far it is from `weights` when it is read back.

    Args:
        components: the model it is for.
        metadata: what the file says of itself beside rank and alpha, such as another file's header.

    Raises:
        LoraError: where something is at `file`, or what was read back differs by more than rounding does.
        OSError: where it cannot be written.
    """
    kept = {key: value for key, value in metadata.items() if key not in _LEFT_BEHIND}
    with written_aside(file) as aside:
        if dialect == "kohya":
            write_kohya(aside, weights, {**kept, **_kohya_facts(weights, kept, file.stem)}, dtype=DTYPES[dtype])
        else:
            write_peft(aside, weights, kept, dtype=DTYPES[dtype])
        difference = largest_difference(weights, read_weights(file.stem, aside, components))
        _assert_close(file, difference, UPDATE_LIMITS[dtype])
    return difference


def export_model(
    components: Components,
    loras: Sequence[tuple[LoraWeights, float]],
    target: Path,
    *,
    form: ModelForm,
    dtype: ExportDtype,
) -> float:
    """Write a merged model, and return the largest difference of its weights when it is loaded back.

    Args:
        components: the base in float32, without LoRAs attached.
        loras: what is merged, with strengths.

    Raises:
        LoraError: where something is at `target`, or what was loaded back differs by more than rounding does.
        ModelError: where the model cannot be of this form.
        OSError: where it cannot be written.
    """
    write = merge_loras if form == "merged" else write_checkpoint
    with written_aside(target) as aside:
        write(components, loras, aside, dtype=DTYPES[dtype])
        difference = _difference_of_models(components, loras, aside)
        _assert_close(target, difference, WEIGHT_LIMITS[dtype])
    return difference


def at_strength(name: str, weights: LoraWeights, strength: float) -> LoraWeights:
    """The LoRA that acts at 1 as this one does at `strength`: its alphas are multiplied.

    Raises:
        LoraError: for a DoRA, which acts by a length, not by an addition.
    """
    if strength == 1:
        return weights
    if any(layer.magnitude is not None for *__, layer in weights.layers()):
        raise LoraError(
            _(
                "{name} is a DoRA, whose strength cannot be put into a LoRA file. Leave strength at "
                "1 and choose it where the file is used, or merge it into a model.",
                name=name,
            )
        )

    def scaled(layers: Mapping[str, LayerWeights]) -> dict[str, LayerWeights]:
        return {path: replace(layer, alpha=layer.alpha * strength) for path, layer in layers.items()}

    return LoraWeights(scaled(weights.unet), scaled(weights.text_encoder))


def export_notes(weights: LoraWeights, form: ExportForm) -> tuple[str, ...]:
    """Which programs will not make of a file of this form what the studio makes of the LoRA, in sentences."""
    if form in ("merged", "checkpoint"):
        return ()
    is_dora = any(layer.magnitude is not None for *__, layer in weights.layers())
    notes = [_(_DORA_READERS[form])] if is_dora else []
    if form == "kohya" and (ends := sorted(path for path in weights.unet if not path.startswith(UNET_BLOCKS))):
        notes.append(ends_note(ends))
    return tuple(notes)


def _difference_of_models(components: Components, loras: Sequence[tuple[LoraWeights, float]], written: Path) -> float:
    """Of any weight, by the largest of its tensor."""
    states = {
        part: module.state_dict()
        for part, module in load_components(find_model(str(written)), "float32").modules().items()
    }
    largest = 0.0
    for merged in merged_tensors(components, loras):
        wanted, found = merged.tensor.float().cpu(), states[merged.part][merged.name].float()
        size = float(wanted.abs().max())
        largest = max(largest, float((wanted - found).abs().max()) / (size or 1))
    return largest


def _assert_close(target: Path, difference: float, limit: float) -> None:
    if not difference <= limit:
        raise LoraError(
            _(
                "{name} was not written: read back, it differs by {difference:.2g} of the largest "
                "number, where rounding makes {limit:g} at most. Use float32; if it stays so, this "
                "is a bug worth reporting.",
                name=target.name,
                difference=difference,
                limit=limit,
            )
        )


def _kohya_facts(weights: LoraWeights, said: Mapping[str, str], stem: str) -> dict[str, str]:
    """What A1111, Forge and others read from the header: true of these weights, whatever the source said."""
    layers = [layer for *__, layer in weights.layers()]
    dora = any(layer.magnitude is not None for layer in layers)
    module = "lycoris.kohya" if dora else "networks.lora"
    arguments = {"algo": "lora", "dora_wd": "True", "wd_on_output": "True"} if dora else {}
    facts = {
        "ss_network_dim": _common([layer.rank for layer in layers]),
        "ss_network_alpha": _common([layer.alpha for layer in layers]),
        "ss_output_name": stem,
    }
    defaults = {
        "ss_v2": "False",
        "ss_base_model_version": "sd_v1",
        "ss_network_module": module,
        "ss_network_args": json.dumps(arguments),
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "stable-diffusion-v1/lora",
        "modelspec.title": stem,
    }
    return {**{key: value for key, value in defaults.items() if key not in said}, **facts}


def _common(values: Sequence[float]) -> str:
    """The value of all layers, or kohya's word for a file whose layers have different ones."""
    return f"{values[0]:g}" if len(set(values)) == 1 else "Dynamic"
