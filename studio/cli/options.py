"""What several commands share: their options, and how these become settings. Imports nothing heavy."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from studio.core.errors import SettingsError
from studio.core.language import _
from studio.core.paths import UserData, typed_path
from studio.core.records import Label, label_or_none
from studio.core.settings import (
    SCHEDULER_NAMES,
    GenerationSettings,
    ModelSettings,
    ServerSettings,
    Settings,
    SettingsT,
    parse_settings,
)
from studio.core.system import prepare_threads

if TYPE_CHECKING:
    from studio.jobs.folder import JobFolder

LORA_ENDING = ".safetensors"
LORA_METAVAR = "NAME[:STRENGTH]"


def field_help(settings: type[Settings], name: str) -> str:
    """What the settings say of their field."""
    return _(str(settings.model_fields[name].description))


UserDataOption = Annotated[
    Path | None,
    typer.Option("--user-data", help=_("The folder for models, images and runs."), show_default="user_data"),
]
JsonOption = Annotated[bool, typer.Option("--json", help=_("Print the result as JSON."))]
CpuOption = Annotated[bool, typer.Option("--cpu", help=field_help(ServerSettings, "cpu"))]
QueueOption = Annotated[bool, typer.Option("--queue", help=_("Add it to the queue and exit."))]
JobOption = Annotated[bool, typer.Option("--job", hidden=True, help=_("Started by the queue."))]


def _label_rule(make: Callable[[str], Label]) -> Callable[[str | None], str | None]:
    """Refuses a text before anything is begun."""

    def check(typed: str | None) -> str | None:
        make(typed or "")
        return typed

    return check


TitleOption = Annotated[
    str | None,
    typer.Option(
        callback=_label_rule(lambda typed: Label.of(name=typed)),
        help=_("What to call it in lists and reports. Its folder keeps its own name."),
    ),
]
NoteOption = Annotated[
    str | None,
    typer.Option(
        callback=_label_rule(lambda typed: Label.of(note=typed)),
        help=_("A note on it, shown with it and in its report."),
    ),
]
ListSettingsOption = Annotated[bool, typer.Option("--list-settings", help=_("List every setting and exit."))]

ModelOption = Annotated[str, typer.Option("--model", help=field_help(ModelSettings, "model"))]
PrecisionOption = Annotated[str, typer.Option("--precision", help=field_help(ModelSettings, "precision"))]

StepsOption = Annotated[int, typer.Option("--steps", help=field_help(GenerationSettings, "num_inference_steps"))]
GuidanceOption = Annotated[float, typer.Option("--guidance", help=field_help(GenerationSettings, "guidance_scale"))]
GuidanceStartOption = Annotated[
    float, typer.Option("--guidance-from", help=field_help(GenerationSettings, "guidance_start"))
]
GuidanceEndOption = Annotated[
    float, typer.Option("--guidance-until", help=field_help(GenerationSettings, "guidance_end"))
]
WidthOption = Annotated[int | None, typer.Option("--width", help=field_help(GenerationSettings, "width"))]
HeightOption = Annotated[int | None, typer.Option("--height", help=field_help(GenerationSettings, "height"))]
SchedulerOption = Annotated[
    str,
    typer.Option("--scheduler", help=field_help(GenerationSettings, "scheduler"), metavar="|".join(SCHEDULER_NAMES)),
]
SpeedOption = Annotated[
    str | None,
    typer.Option(
        "--speed",
        metavar="full|fast|lora:NAME",
        help=_("Sets scheduler and steps together; lora:NAME adds a Speed LoRA of the library, and sets guidance too."),
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", help=field_help(GenerationSettings, "seed"))]
NegativePromptOption = Annotated[
    str, typer.Option("--negative-prompt", help=field_help(GenerationSettings, "negative_prompt"))
]
LongPromptOption = Annotated[bool, typer.Option("--long-prompt", help=field_help(GenerationSettings, "long_prompt"))]
GENERATION_DEFAULTS = GenerationSettings(prompt="")


def read_options(context: typer.Context, kind: type[SettingsT], **values: object) -> SettingsT:
    """Settings from those of a command's options that are named as their fields, and from `values`, which win.

    An option that was not given and has no default (None) leaves the field's own.

    Raises:
        SettingsError: where a rule is broken.
    """
    named = {name: value for name, value in context.params.items() if name in kind.model_fields}
    return parse_settings(kind, {name: value for name, value in {**named, **values}.items() if value is not None})


def at_speed(
    speed: str | None,
    generation: GenerationSettings,
    place: UserData,
    *,
    given: Mapping[str, str],
    both_sides: bool = False,
) -> GenerationSettings:
    """The same image with what a speed sets together, and its LoRA.

    Args:
        given: the settings that were given one by one, and how each was called.
        both_sides: the LoRAs of `generation` act on both sides of a comparison, and each side has its own besides.

    Raises:
        SettingsError: where one that was given is the speed's own.
        LoraError: where there is no such speed.
    """
    if speed is None:
        return generation
    from studio.loras.library import LoraLibrary
    from studio.loras.speed import with_speed

    changes, loras = with_speed(speed, generation, LoraLibrary(place.loras))
    if wrong := [option for name, option in given.items() if name in changes]:
        raise SettingsError(_("--speed sets {options} itself: leave them out.", options=", ".join(wrong)))
    acting = loras[-1:] if both_sides and len(loras) > len(generation.loras) else loras
    return parse_settings(GenerationSettings, {**generation.model_dump(), **changes, "loras": acting})


def given_options(context: typer.Context) -> dict[str, str]:
    """The options of a command that stand on the command line: the setting, and the option's own name."""
    found = dict[str, str]()
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if option.name and source is not None and source.name == "COMMANDLINE":
            found[option.name] = option.opts[0]
    return found


def lora_choices(options: Sequence[str] | None) -> tuple[dict[str, object], ...]:
    """`white-ground:0.8` as a choice; a file's path may hold colons, so only a number after the last one counts."""
    return tuple(map(_lora_choice, options or ()))


def _lora_choice(option: str) -> dict[str, object]:
    name, __, strength = option.rpartition(":")
    try:
        float(strength)
    except ValueError:
        name = ""
    return {"name": lora_name(name), "strength": strength} if name else {"name": lora_name(option)}


def lora_name(typed: str) -> str:
    """A LoRA as it was typed: its name in the library, or the whole path of its file."""
    path = typed_path(typed)
    return str(path.resolve()) if path.suffix.lower() == LORA_ENDING else typed


def print_prompt_notes(generations: Iterable[GenerationSettings], *, model: str) -> None:
    """Say on stderr what of their prompts acts otherwise than in A1111, or is cut off by the model."""
    from studio.images.tokens import TokenCounter, prompt_notes, tokenizer_of

    tokens = TokenCounter(tokenizer_of(model))
    notes = {
        note: None
        for generation in generations
        for prompt in (generation.prompt, generation.negative_prompt)
        for note in prompt_notes(prompt, long_prompt=generation.long_prompt, tokens=tokens)
    }
    for note in notes:
        print(_("note: {note}", note=note), file=sys.stderr)


def output_folder(out: Path | None, *, empty: bool = False) -> Path | None:
    """The folder of `--out`: made where it is missing, and tried, before anything that takes long.

    Args:
        empty: whether nothing may be in it.

    Raises:
        SettingsError: where it cannot be written, or has to be empty and is not.
    """
    if out is None:
        return None
    folder = typed_path(out).absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = empty and any(folder.iterdir())
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise SettingsError(
            _(
                "--out must be a folder that can be written, got {folder} ({reason}). Choose another.",
                folder=folder,
                reason=error.strerror,
            )
        ) from error
    if taken:
        raise SettingsError(_("--out must be a new or an empty folder, got {folder}. Choose another.", folder=folder))
    return folder


def label_folder(folder: "JobFolder", title: str | None, note: str | None, *, listed_in: Path) -> None:
    """Do what `--title` and `--note` ask; what is not given stays as it is.

    Raises:
        SettingsError: where a text breaks its rule.
        OSError: where it cannot be written.
    """
    from studio.jobs.folder import set_label

    if title is not None or note is not None:
        before = label_or_none(folder.label)
        name = before.name if title is None else title
        set_label(folder, Label.of(name=name, note=before.note if note is None else note), listed_in=listed_in)


def prepare_engine() -> None:
    """What must be said before torch and transformers are imported."""
    prepare_threads()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
