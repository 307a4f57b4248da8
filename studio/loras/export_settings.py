"""What an export is required. No torch: the command line reads it."""

from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le
from pydantic import Field

from studio.core.settings import Settings

LoraDialect = Literal["kohya", "diffusers"]
ModelForm = Literal["merged", "checkpoint"]
ExportForm = Literal["kohya", "diffusers", "merged", "checkpoint"]
ExportDtype = Literal["float16", "float32"]
EXPORT_FORMS: tuple[ExportForm, ...] = get_args(ExportForm)
EXPORT_DTYPES: tuple[ExportDtype, ...] = get_args(ExportDtype)
_ENDINGS: dict[ExportForm, str] = {
    "kohya": "-kohya.safetensors",
    "diffusers": "-diffusers.safetensors",
    "merged": "-merged",
    "checkpoint": "-checkpoint.safetensors",
}


class ExportSettings(Settings):
    """A LoRA, and the form it shall have."""

    lora: str = Field(min_length=1, title="LoRA", description="A LoRA of the library, or a .safetensors file.")
    to: ExportForm = Field(
        "kohya",
        title="Form",
        description="kohya: a LoRA for A1111, Forge, ComfyUI, InvokeAI. diffusers: a LoRA for load_lora_weights. "
        "merged: the whole model with the LoRA in it, a folder in diffusers' layout. checkpoint: the same as one file.",
    )
    output: Path | None = Field(
        None,
        title="Output",
        description="Where to write; nothing is overwritten. Defaults to the LoRA's name, in the current folder.",
    )
    strength: Annotated[float, Ge(-4), Le(4)] = Field(
        1.0, title="Strength", description="The LoRA's strength in the output. 0 writes the base model alone."
    )
    dtype: ExportDtype = Field(
        "float16", title="Number format", description="float16 is half as large, and what most programs expect."
    )

    @property
    def is_file(self) -> bool:
        """Whether a file is written, and not a folder."""
        return self.to != "merged"

    def target(self, stem: str) -> Path:
        """Where it is written, for a LoRA of this name."""
        return (self.output or Path(f"{stem}{_ENDINGS[self.to]}")).expanduser().absolute()
