"""Every setting of a batch: what is made, how often, what is kept and how it is stored."""

from collections.abc import Sequence
from typing import Annotated, Literal

from annotated_types import Ge, Le
from pydantic import Field, model_validator

from studio.core.errors import SettingsError
from studio.core.language import N_, _
from studio.core.rules import MismatchError, nearest_setting
from studio.core.settings import (
    SHIPPED_MODEL,
    FileName,
    GenerationSettings,
    ModelPath,
    PictureFormatName,
    PrecisionName,
    Settings,
)

CombineName = Literal["every combination", "random"]
MAX_ITEMS = 10_000_000


class BatchSettings(Settings):
    """One batch: prompts, columns, and how they become images."""

    name: FileName = Field(
        "batch",
        title=N_("Name"),
        description=N_("Name of its folder: letters, digits, spaces and . ( ) + - _."),
    )
    model: ModelPath = Field(
        SHIPPED_MODEL, title=N_("Model"), description=N_("The model that makes the images, as in the model panel.")
    )
    cpu: bool = Field(
        False,
        title=N_("CPU only"),
        description=N_("Do not use a GPU, even where there is one."),
        json_schema_extra={"hidden": True},
    )

    prompts: str = Field(
        "",
        title=N_("Prompts"),
        description=N_(
            "One prompt per line; lines that start with # are comments. `{column}` is a column's "
            "value, `{red|blue}` one of these, `__colour__` a line of the wildcard file "
            "colour.txt."
        ),
        json_schema_extra={"lines": 3},
    )
    attributes: str = Field(
        "",
        title=N_("Attributes"),
        description=N_(
            "One column per line: `colour: black, 2::brown, white`. `2::` counts twice in a "
            "random plan; `black = 200` makes exactly 200 images of it."
        ),
        json_schema_extra={"lines": 3},
    )
    combine: CombineName = Field(
        "every combination",
        title=N_("Combine"),
        description=N_(
            "every combination: each prompt with each value of each column and each variant. "
            "random: every image picks its own at random."
        ),
    )
    total: Annotated[int, Ge(1), Le(MAX_ITEMS)] | None = Field(
        None,
        title=N_("Total images"),
        description=N_("Exact number of images to plan. Leave empty to let the plan decide."),
        json_schema_extra={"placeholder": N_("all")},
    )
    images_per_prompt: Annotated[int, Ge(1), Le(10_000)] = Field(
        1, title=N_("Images per prompt"), description=N_("Images made from each prompt, each with its own seed.")
    )
    generation: GenerationSettings = Field(
        GenerationSettings(prompt=""),
        title=N_("Shared settings"),
        description=N_(
            "Settings for all images. The prompt is not used; the seed is the first image's; LoRAs act on all."
        ),
    )
    prompt_file: str = Field(
        "",
        title=N_("Prompt file"),
        description=N_("A .txt file with one prompt per line, or a .csv or .jsonl file with a column prompt."),
        json_schema_extra={
            "group": N_("Prompt file, wildcards, precision"),
            "takes": [".txt", ".csv", ".tsv", ".jsonl"],
        },
    )
    wildcards: str = Field(
        "",
        title=N_("Wildcards"),
        description=N_("A folder of .txt files, one value per line. Leave empty to use user_data/wildcards."),
        json_schema_extra={"placeholder": "user_data/wildcards", "takes": ["folder"]},
    )
    precision: PrecisionName = Field(
        "float32",
        title=N_("Precision"),
        description=N_("float16 and bfloat16 are used on CUDA only; elsewhere they are raised to float32."),
    )

    max_retries: Annotated[int, Ge(0), Le(20)] = Field(
        3,
        title=N_("Retries"),
        description=N_("How many times an image that fails a check is made again with another seed."),
        json_schema_extra={"group": N_("Quality checks")},
    )
    reject_copies: bool = Field(
        False, title=N_("Reject copies"), description=N_("An image identical to an earlier one is made again.")
    )
    near_duplicate_bits: Annotated[int, Ge(0), Le(32)] = Field(
        0,
        title=N_("Near-duplicate bits"),
        description=N_(
            "An image fails when at most this many of the 64 bits of its perceptual hash differ "
            "from an earlier one's. 0 turns this off."
        ),
    )
    least_whiteness: Annotated[float, Ge(0), Le(1)] | None = Field(
        None,
        title=N_("Minimum border whiteness"),
        description=N_("Fraction of the image's border that must be white. Leave empty for no limit."),
        json_schema_extra={"placeholder": N_("no limit")},
    )
    most_offset: Annotated[float, Ge(0), Le(1)] | None = Field(
        None,
        title=N_("Maximum offset from the centre"),
        description=N_(
            "How far the subject's centre may be from the image's, as a fraction of the shorter "
            "side. Leave empty for no limit."
        ),
        json_schema_extra={"placeholder": N_("no limit")},
    )
    most_colour_difference: Annotated[float, Ge(0), Le(200)] | None = Field(
        None,
        title=N_("Maximum colour difference"),
        description=N_(
            "Largest ΔE between the subject's colour and the one its prompt names. Leave empty for no limit."
        ),
        json_schema_extra={"unit": "ΔE", "placeholder": N_("no limit")},
    )
    least_sharpness: Annotated[float, Ge(0), Le(1)] | None = Field(
        None,
        title=N_("Minimum sharpness"),
        description=N_("From 0, blurred beyond recognition, to 1. Leave empty for no limit."),
        json_schema_extra={"placeholder": N_("no limit")},
    )
    least_distance: Annotated[float, Ge(0), Le(10)] | None = Field(
        None,
        title=N_("Minimum distance to training images"),
        description=N_(
            "An image nearer than this to a training image fails, as it may be a copy: 0 is the "
            "same image, 1 as far apart as two of them usually are. Leave empty for no limit."
        ),
        json_schema_extra={"placeholder": N_("no limit")},
    )
    nearest_to: str = Field(
        "",
        title=N_("Training images"),
        description=N_("A dataset from the Dataset tab, by name, or a folder: the images to measure the distance to."),
        json_schema_extra={"takes": ["folder"]},
    )

    picture_format: PictureFormatName = Field(
        "png",
        title=N_("File format"),
        description=N_("png keeps every pixel; jpeg and webp are smaller and lose some."),
        json_schema_extra={"group": N_("Output files")},
    )
    quality: Annotated[int, Ge(1), Le(100)] = Field(
        95, title=N_("Quality"), description=N_("For jpeg and webp: 100 is the best quality and the largest file.")
    )
    text_sidecars: bool = Field(
        False,
        title=N_("Text files"),
        description=N_("A .txt file with the caption beside each image, as kohya reads it."),
    )
    pictures_per_shard: Annotated[int, Ge(0), Le(1_000_000)] = Field(
        0,
        title=N_("Images per shard"),
        description=N_("Also write WebDataset .tar files with this many images each. 0 turns this off."),
    )
    grid_x: str = Field(
        "",
        title=N_("Grid, across"),
        description=N_("The column whose values stand side by side in an X/Y grid. Leave empty for no grid."),
        json_schema_extra={"placeholder": N_("none")},
    )
    grid_y: str = Field(
        "",
        title=N_("Grid, down"),
        description=N_("The column whose values stand below each other. Leave empty for no grid."),
        json_schema_extra={"placeholder": N_("none")},
    )

    @model_validator(mode="after")
    def _consistent(self) -> "BatchSettings":
        if not self.prompts.strip() and not self.prompt_file.strip():
            raise MismatchError(
                _("Prompts and Prompt file (prompt_file) are both empty: write a prompt, or choose a prompt file"),
                "prompts",
                "prompt_file",
            )
        if self.least_distance is not None and not self.nearest_to.strip():
            raise MismatchError(
                _(
                    "Minimum distance to training images (least_distance) needs Training images "
                    "(nearest_to): what it is measured to"
                ),
                "nearest_to",
                "least_distance",
            )
        if self.grid_y and not self.grid_x:
            raise MismatchError(
                _(
                    "Grid, down (grid_y) needs Grid, across (grid_x): choose the column whose values "
                    "stand side by side first"
                ),
                "grid_x",
                "grid_y",
            )
        if self.grid_x and self.grid_x == self.grid_y:
            raise MismatchError(
                _(
                    "Grid, across and Grid, down (grid_x and grid_y) must be two columns, got {column!r} for both",
                    column=self.grid_x,
                ),
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
            raise SettingsError(
                _(
                    "--set takes name=value, got {assignment!r}.{near} `--list-settings` lists all names.",
                    assignment=assignment,
                    near=near,
                )
            )
        values = own if name in BatchSettings.model_fields else shared
        values[name] = None if text == "none" else text
    return own, shared
