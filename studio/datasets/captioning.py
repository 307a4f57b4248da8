"""Captions written by a model: what is asked, the job's folder, its results and taking them. No torch.

A result is a proposal: a dataset's captions change when somebody takes it, as an edit that can be undone.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from annotated_types import Ge, Le
from pydantic import Field, ValidationError

from studio.core.errors import DatasetError, StudioError
from studio.core.files import read_file, write_atomically
from studio.core.language import N_, _
from studio.core.paths import UserData, typed_path
from studio.core.records import KeptText, Record
from studio.core.settings import PrecisionName, Settings, parse_settings
from studio.core.text import counted
from studio.datasets.bulk import BulkChange, change_caption, tags_of, without_words
from studio.datasets.captions import BETWEEN_CAPTIONS, MAX_CAPTION_BYTES, tidy
from studio.datasets.rows import fill_template
from studio.datasets.source import DatasetRecipe, DatasetRow
from studio.jobs.folder import JobFolder

if TYPE_CHECKING:
    from studio.datasets.opened import OpenedDataset  # elsewhere when it is needed: the command line starts without

WhichName = Literal["missing", "all"]
MAX_SEED = 2**62
DEFAULT_CAPTIONER = "Salesforce/blip-image-captioning-large"


class CaptionSettings(Settings):
    """Which images get a caption, by which model, and what becomes of what it says."""

    dataset: str = Field(min_length=1, title=N_("Dataset"), description=N_("Its name."))
    model: str = Field(
        DEFAULT_CAPTIONER,
        title=N_("Caption model"),
        min_length=1,
        description=N_(
            "A recommended model, a folder, or the Hugging Face id of a BLIP, BLIP-2, Florence-2, GIT or LLaVA model, "
            "or of a WD tagger."
        ),
    )
    which: WhichName = Field(
        "missing",
        title=N_("Images"),
        description=N_(
            "missing: those without a caption; one that a template makes counts. all: every image that is not excluded."
        ),
    )
    prompt: str = Field(
        "",
        title=N_("Ask the model"),
        max_length=2000,
        description=N_(
            "How a caption begins (BLIP, GIT), a task such as <CAPTION> (Florence-2), or an instruction (LLaVA). "
            "Leave empty for the usual."
        ),
    )
    prefix: str = Field(
        "", title=N_("Prefix"), max_length=500, description=N_("Such as a trigger word. Not added twice.")
    )
    suffix: str = Field("", title=N_("Suffix"), max_length=500, description=N_("Not added twice."))
    leave_out: str = Field(
        "",
        title=N_("Leave out"),
        max_length=2000,
        description=N_("Words, phrases or tags to remove, separated by commas."),
    )
    num_candidates: Annotated[int, Ge(1), Le(8)] = Field(
        1,
        title=N_("Candidates"),
        description=N_(
            "The likeliest caption, and others by chance to choose from; each costs as much time. Taggers give one."
        ),
    )
    max_new_tokens: Annotated[int, Ge(4), Le(400)] = Field(
        60, title=N_("Maximum length"), description=N_("In tokens of the model. Training reads 75 of a caption.")
    )
    general_threshold: Annotated[float, Ge(0), Le(1)] = Field(
        0.35,
        title=N_("Tag threshold"),
        description=N_("Of WD taggers: how probable a tag must be, from 0 to 1. Lower gives more tags."),
    )
    character_threshold: Annotated[float, Ge(0), Le(1)] = Field(
        0.85,
        title=N_("Character threshold"),
        description=N_("Of WD taggers: how probable the name of a character must be, from 0 to 1."),
    )
    seed: Annotated[int, Ge(0), Le(MAX_SEED)] = Field(
        0, title=N_("Seed"), description=N_("Of the candidates by chance.")
    )
    precision: PrecisionName = Field(
        "float32",
        title=N_("Precision"),
        description=N_("float16 and bfloat16 are used on CUDA only; elsewhere they are raised to float32."),
    )
    cpu: bool = Field(False, title=N_("CPU only"), description=N_("Do not use a GPU, even where there is one."))


class CaptionFolder(JobFolder):
    """The places of a job that writes captions."""

    noun: ClassVar[str] = N_("caption job")
    activity: ClassVar[str] = N_("caption job")
    begin_command: ClassVar[str] = "python -m studio dataset caption FOLDER"
    error: ClassVar[type[StudioError]] = DatasetError

    @property
    def captions(self) -> Path:
        """What the model said, a line for each image."""
        return self.root / "captions.jsonl"


class ImageCaptions(Record):
    """What the model said of an image, with prefix and suffix, the likeliest first.

    Attributes:
        key: the image's, in its dataset.
        candidates: () where there is none, and `problem` says why.
        seconds: that it took.
    """

    key: str
    candidates: tuple[str, ...] = ()
    problem: KeptText = ""
    seconds: float = 0.0


def dataset_of(typed: str, user_data: UserData) -> str:
    """The name of the dataset that a folder or a name means; a folder that none reads becomes one.

    Raises:
        DatasetError: where it is neither, or holds no image.
        OSError: where a new dataset cannot be written.
    """
    from studio.datasets.library import DatasetLibrary
    from studio.datasets.opened import OpenedDataset

    library, source = DatasetLibrary(user_data.datasets), typed_path(typed)
    if not source.is_dir():
        if (known := library.known_name(typed)) is not None:
            return known
        raise DatasetError(
            _(
                "{typed!r} is neither a folder of images nor the name of a dataset ({names}).",
                typed=typed,
                names=", ".join(library.names()) or _("none yet"),
            )
        )
    source = source.resolve()
    name = library.name_of_source(source)
    if name is None:
        name, recipe = library.free_name(source.name), DatasetRecipe(source=str(source))
        if not OpenedDataset(name, library.place(name), recipe, count_tokens=len).pictures:
            raise DatasetError(_("There is no image in {folder}.", folder=source))
        library.save_recipe(name, recipe)
    return name


def begin_captioning(settings: CaptionSettings, user_data: UserData) -> CaptionFolder:
    """Make a job's folder; nothing is computed yet.

    Raises:
        DatasetError: where the dataset is gone, or has no image for it.
        OSError: where the folder cannot be written.
    """
    from studio.datasets.library import safe_name

    opened = open_dataset(settings, user_data)
    if not rows_to_caption(opened, settings.which):
        raise DatasetError(
            _("Every image of {name} has a caption. Choose all images to caption them again.", name=opened.name)
        ).about("which")
    folder = CaptionFolder.new(user_data.captions, safe_name(settings.dataset), now=datetime.now())
    write_atomically(folder.settings, settings.model_dump_json(indent=2).encode() + b"\n")
    return folder


def read_caption_settings(folder: CaptionFolder) -> CaptionSettings:
    """The settings of a job.

    Raises:
        DatasetError: where they cannot be read.
    """
    try:
        return parse_settings(CaptionSettings, dict(json.loads(read_file(folder.settings))))
    except (OSError, ValueError, TypeError) as error:
        raise DatasetError(
            _("{file} cannot be read as a caption job's settings ({error}).", file=folder.settings, error=error)
        ) from error


def read_captions(folder: CaptionFolder) -> Mapping[str, ImageCaptions]:
    """What was written up to now, by the image's key. A line that a kill cut off is passed over: it is made again.

    Raises:
        OSError: where it cannot be read.
    """
    if not folder.captions.is_file():
        return {}
    found = {}
    for line in read_file(folder.captions).splitlines():
        try:
            made = ImageCaptions.model_validate_json(line)
        except ValidationError:
            continue
        found[made.key] = made
    return found


def outcome_words(made: Collection[ImageCaptions]) -> str:
    """`12 captions to look at. 1 image could not be captioned.`"""
    failed = sum(not one.candidates for one in made)
    words = [_("{captions} to look at.", captions=counted(len(made) - failed, "caption", "captions"))]
    words += [_("{images} could not be captioned.", images=counted(failed, "image", "images"))] if failed else []
    return " ".join(words)


def latest_of(dataset: str, folders: Sequence[CaptionFolder]) -> CaptionFolder | None:
    """The newest job of a dataset; None where it has none."""
    for folder in folders:
        try:
            if read_caption_settings(folder).dataset == dataset:
                return folder
        except DatasetError:  # of another version, or damaged: it is not shown, and its files stay
            continue
    return None


def rows_to_caption(opened: "OpenedDataset", which: WhichName) -> list[DatasetRow]:
    """The images that get a caption, in the order of the dataset."""
    return [row for row in opened.rows if not row.excluded and (which == "all" or row.lacks_caption)]


def measured_captions(rows: Sequence[DatasetRow], template: str) -> dict[str, str]:
    """Captions of what is measured, by key, for images that are used and have none.

    Args:
        template: as in `DatasetRecipe`, of `MEASURED_COLUMNS`.
    """
    made = {
        row.key: fill_template(template, row.columns).strip(" ,") for row in rows if row.is_used and not row.caption
    }
    return {key: caption for key, caption in made.items() if caption}


def take_captions(
    opened: "OpenedDataset", folder: CaptionFolder, *, keys: Sequence[str] | None = None, candidate: int | None = 0
) -> int:
    """Make what the model said the captions of a dataset, undone as one; how many changed.

    A caption that an image got since stays where only missing ones were asked for, unless the image is named.

    Args:
        keys: of these images alone; None for all.
        candidate: which one of each, the last where there are fewer; None for all, of which training takes one by
            chance each time.

    Raises:
        DatasetError: where there is nothing to take, or an image is gone.
        OSError: where it cannot be saved; nothing is changed then.
    """
    settings, made = read_caption_settings(folder), read_captions(folder)
    wanted = [key for key in (made if keys is None else keys) if opened.has(key) and key in made]
    captions = {
        key: _chosen(made[key].candidates, candidate)
        for key in wanted
        if made[key].candidates and (keys is not None or settings.which == "all" or opened.row(key).lacks_caption)
    }
    if not captions:
        raise DatasetError(_("There is no caption to take: no image was captioned that still needs one."))
    images = next(iter(captions)) if len(captions) == 1 else counted(len(captions), "image", "images")
    what = _("captions of {images} by {model}", images=images, model=Path(settings.model).name)
    return opened.set_captions(captions, what=what)


def _chosen(candidates: Sequence[str], candidate: int | None) -> str:
    if candidate is None:
        return f" {BETWEEN_CAPTIONS} ".join(candidates)
    return candidates[min(candidate, len(candidates) - 1)]


def finished_caption(said: str, settings: CaptionSettings) -> str:
    """What the model said, without what is to be left out, with prefix and suffix; "" where nothing is left."""
    text = tidy(without_words(said, settings.leave_out)).strip(" .")
    if not text:
        return ""
    caption = change_caption(text, BulkChange(prefix=settings.prefix, suffix=settings.suffix))
    return caption.encode()[:MAX_CAPTION_BYTES].decode(errors="ignore")


def finished_tags(said: str, settings: CaptionSettings) -> str:
    """Likewise of a tagger's tags, which are left out as wholes, and stay as they are: `:d` is one."""
    left_out = {tag.casefold() for tag in tags_of(settings.leave_out)}
    if not (tags := [tag for tag in tags_of(said) if tag.casefold() not in left_out]):
        return ""
    return ", ".join(dict.fromkeys([*tags_of(settings.prefix), *tags, *tags_of(settings.suffix)]))


def open_dataset(settings: CaptionSettings, user_data: UserData) -> "OpenedDataset":
    """The dataset of a job, its captions as they stand; how long they are does not matter here.

    Raises:
        DatasetError: where it or its source cannot be read.
    """
    from studio.datasets.library import DatasetLibrary

    return DatasetLibrary(user_data.datasets).open(settings.dataset, count_tokens=len)
