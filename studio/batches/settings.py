"""Every setting of a batch: what is made, how often, what is kept and how it is stored."""

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field, model_validator

from studio.core.errors import SettingsError
from studio.core.rules import MismatchError, nearest_setting
from studio.core.settings import SHIPPED_MODEL, FileName, GenerationSettings, PictureFormatName, PrecisionName, Settings

CombineName = Literal["every combination", "random"]
MAX_ITEMS = 10_000_000


class BatchSettings(Settings):
    """One batch: prompts, columns, and how they become images."""

    name: FileName = Field(
        "batch",
        title="Name",
        description="Name of its folder: letters, digits, spaces and . ( ) + - _.",
    )
    model: str = Field(
        SHIPPED_MODEL,
        title="Model",
        min_length=1,
        description="The model that makes the images, as in the model panel.",
    )
    cpu: bool = Field(
        False,
        title="CPU only",
        description="Do not use a GPU, even where there is one.",
        json_schema_extra={"hidden": True},
    )

    prompts: str = Field(
        "",
        title="Prompts",
        description="One prompt per line; lines that start with # are comments. `{column}` is a column's value, "
        "`{red|blue}` one of these, `__colour__` a line of the wildcard file colour.txt.",
        json_schema_extra={"lines": 3},
    )
    attributes: str = Field(
        "",
        title="Attributes",
        description="One column per line: `colour: black, 2::brown, white`. `2::` counts twice in a random plan; "
        "`black = 200` makes exactly 200 images of it.",
        json_schema_extra={"lines": 3},
    )
    combine: CombineName = Field(
        "every combination",
        title="Combine",
        description="every combination: each prompt with each value of each column and each variant. random: every "
        "image picks its own at random.",
    )
    total: Annotated[int, Ge(1), Le(MAX_ITEMS)] | None = Field(
        None,
        title="Total images",
        description="Exact number of images to plan. Leave empty to let the plan decide.",
        json_schema_extra={"placeholder": "all"},
    )
    images_per_prompt: Annotated[int, Ge(1), Le(10_000)] = Field(
        1, title="Images per prompt", description="Images made from each prompt, each with its own seed."
    )
    generation: GenerationSettings = Field(
        GenerationSettings(prompt=""),
        title="Shared settings",
        description="Settings for all images. The prompt is not used; the seed is the first image's; LoRAs act on all.",
    )
    prompt_file: str = Field(
        "",
        title="Prompt file",
        description="A .txt file with one prompt per line, or a .csv or .jsonl file with a column prompt.",
        json_schema_extra={"group": "Prompt file, wildcards, precision"},
    )
    wildcards: str = Field(
        "",
        title="Wildcards",
        description="A folder of .txt files, one value per line. Leave empty to use user_data/wildcards.",
        json_schema_extra={"placeholder": "user_data/wildcards"},
    )
    precision: PrecisionName = Field(
        "float32",
        title="Precision",
        description="float16 and bfloat16 are used on CUDA only; elsewhere they are raised to float32.",
    )

    max_retries: Annotated[int, Ge(0), Le(20)] = Field(
        3,
        title="Retries",
        description="How many times an image that fails a check is made again with another seed.",
        json_schema_extra={"group": "Quality checks"},
    )
    reject_copies: bool = Field(
        False, title="Reject copies", description="An image identical to an earlier one is made again."
    )
    near_duplicate_bits: Annotated[int, Ge(0), Le(32)] = Field(
        0,
        title="Near-duplicate bits",
        description="An image fails when at most this many of the 64 bits of its perceptual hash differ from an "
        "earlier one's. 0 turns this off.",
    )
    least_whiteness: Annotated[float, Ge(0), Le(1)] | None = Field(
        None,
        title="Minimum border whiteness",
        description="Fraction of the image's border that must be white. Leave empty for no limit.",
        json_schema_extra={"placeholder": "any"},
    )
    most_offset: Annotated[float, Ge(0), Le(1)] | None = Field(
        None,
        title="Maximum offset from the centre",
        description="How far the subject's centre may be from the image's, as a fraction of the shorter side. "
        "Leave empty for no limit.",
        json_schema_extra={"placeholder": "any"},
    )
    most_colour_difference: Annotated[float, Ge(0), Le(200)] | None = Field(
        None,
        title="Maximum colour difference",
        description="Largest ΔE between the subject's colour and the one its prompt names. Leave empty for no limit.",
        json_schema_extra={"unit": "ΔE", "placeholder": "any"},
    )
    least_sharpness: Annotated[float, Ge(0), Le(1)] | None = Field(
        None,
        title="Minimum sharpness",
        description="From 0, blurred beyond recognition, to 1. Leave empty for no limit.",
        json_schema_extra={"placeholder": "any"},
    )
    least_distance: Annotated[float, Ge(0), Le(10)] | None = Field(
        None,
        title="Minimum distance to training images",
        description="An image nearer than this to a training image fails, as it may be a copy: 0 is the "
        "same image, 1 as far apart as two of them usually are. Leave empty for no limit.",
        json_schema_extra={"placeholder": "any"},
    )
    nearest_to: str = Field(
        "",
        title="Training images",
        description="A dataset from the Dataset tab, by name, or a folder: the images to measure the distance to.",
    )

    picture_format: PictureFormatName = Field(
        "png",
        title="File format",
        description="png keeps every pixel; jpeg and webp are smaller and lose some.",
        json_schema_extra={"group": "Output files"},
    )
    quality: Annotated[int, Ge(1), Le(100)] = Field(
        95, title="Quality", description="For jpeg and webp: 100 is the best quality and the largest file."
    )
    text_sidecars: bool = Field(
        False, title="Text files", description="A .txt file with the caption beside each image, as kohya reads it."
    )
    pictures_per_shard: Annotated[int, Ge(0), Le(1_000_000)] = Field(
        0,
        title="Images per shard",
        description="Also write WebDataset .tar files with this many images each. 0 turns this off.",
    )
    grid_x: str = Field(
        "",
        title="Grid, across",
        description="The column whose values stand side by side in an X/Y grid. Leave empty for no grid.",
        json_schema_extra={"placeholder": "none"},
    )
    grid_y: str = Field(
        "",
        title="Grid, down",
        description="The column whose values stand below each other. Leave empty for no grid.",
        json_schema_extra={"placeholder": "none"},
    )

    @model_validator(mode="after")
    def _consistent(self) -> "BatchSettings":
        if not self.prompts.strip() and not self.prompt_file.strip():
            raise MismatchError(
                "Prompts and Prompt file (prompt_file) are both empty: write a prompt, or choose a prompt file",
                "prompts",
                "prompt_file",
            )
        if self.least_distance is not None and not self.nearest_to.strip():
            raise MismatchError(
                "Minimum distance to training images (least_distance) needs Training images (nearest_to): what it is "
                "measured to",
                "nearest_to",
                "least_distance",
            )
        if self.grid_y and not self.grid_x:
            raise MismatchError(
                "Grid, down (grid_y) needs Grid, across (grid_x): choose the column whose values stand side by side "
                "first",
                "grid_x",
                "grid_y",
            )
        if self.grid_x and self.grid_x == self.grid_y:
            raise MismatchError(
                f"Grid, across and Grid, down (grid_x and grid_y) must be two columns, got {self.grid_x!r} for both",
                "grid_x",
                "grid_y",
            )
        return self


_NOT_ASSIGNED = ("generation", "prompt", "loras")


def parse_assignments(assignments: Sequence[str]) -> tuple[dict[str, object], dict[str, object]]:
    """`name=value` of the batch's own settings, and of those that all images share; `none` is no value.

    Raises:
        SettingsError: where one is not of this form, or names no setting.
    """
    own: dict[str, object] = {}
    shared: dict[str, object] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        fields = {**GenerationSettings.model_fields, **BatchSettings.model_fields}
        if not equals or name not in fields or name in _NOT_ASSIGNED:
            near = nearest_setting(name, [GenerationSettings, BatchSettings], but=_NOT_ASSIGNED)
            raise SettingsError(f"--set takes name=value, got {assignment!r}.{near} `--list-settings` lists all names.")
        values = own if name in BatchSettings.model_fields else shared
        values[name] = None if text == "none" else text
    return own, shared
