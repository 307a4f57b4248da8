"""A dataset's recipe: where its images lie and how they become training data. Saved, so that it can be rebuilt."""

from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le, MultipleOf
from pydantic import Field

from studio.core.settings import Settings

LayoutName = Literal["sidecar", "kohya", "imagefolder", "table", "fashion"]
LAYOUT_NAMES: tuple[LayoutName, ...] = get_args(LayoutName)
LAYOUT_TITLES: dict[LayoutName, str] = {
    "sidecar": "Caption files next to the images",
    "kohya": "kohya folders with repeats (10_shoe)",
    "imagefolder": "Hugging Face imagefolder (metadata.jsonl or .csv)",
    "table": "A table with a column of files (CSV or JSONL)",
    "fashion": "Fashion products (styles.csv and images/)",
}

HexColour = Annotated[str, Field(pattern="^#[0-9a-f]{6}$")]


class LayoutChoice(Settings):
    """How the source folder is to be read."""

    layout: LayoutName | None = Field(
        None, title="Layout", description="How captions are matched to images. Leave empty to detect it."
    )
    table: str | None = Field(
        None,
        title="Table",
        description="The CSV or JSONL file, below the folder. Leave empty to use the one that was found.",
    )
    image_column: str | None = Field(
        None, title="Image column", description="The table's column that names the image. Leave empty to detect it."
    )
    caption_column: str | None = Field(
        None, title="Caption column", description="The table's column that holds the caption. Leave empty to detect it."
    )


class RowChoice(Settings):
    """Keep only rows whose column has one of these values."""

    column: str = Field(min_length=1, title="Column", description="A column of the table.")
    values: tuple[str, ...] = Field(min_length=1, title="Values", description="Keep rows with one of these values.")


class DatasetRecipe(Settings):
    """All that is needed to read the dataset again from the same files; edits are kept beside it."""

    source: str = Field(min_length=1, title="Source", description="The folder of the images. It is never changed.")
    layout: LayoutChoice = Field(default=LayoutChoice(), description="How the folder is to be read.")
    rows: tuple[RowChoice, ...] = Field(
        (), title="Rows", description="Only rows that satisfy every one of these are taken."
    )
    template: str | None = Field(
        None,
        title="Caption template",
        max_length=2000,
        description="Columns in braces: {baseColour} {articleType}. Leave empty to keep the captions found.",
    )
    background: HexColour = Field(
        "#ffffff", title="Background", description="The colour behind transparent images. The LoRA learns it too."
    )
    resolution: Annotated[int, Ge(64), Le(2048), MultipleOf(8)] = Field(
        512,
        title="Resolution",
        description="Training size: the side of a square with the area of every bucket. 512 for Stable Diffusion "
        "1.5, 128 for the built-in model.",
    )
    default_caption: str = Field(
        "", title="Caption where there is none", max_length=2000, description="Used for images without a caption."
    )
