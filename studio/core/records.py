"""The base of every fact that is kept on a disk or sent between processes, and the bounds of what is read as one.

A file may be of another version, cut off, or changed by hand: a number that no machine has (NaN, 10³⁰⁰ bytes) or a date
in the year 1 would be an error wherever it is computed with. It is refused where it is read, with its file's name.

The one fact that a person writes: what they call something, and a note on it.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, cast

from pydantic import (
    AfterValidator,
    AllowInfNan,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    PlainSerializer,
    PlainValidator,
    ValidationError,
)
from pydantic_core import CoreSchema, core_schema

from studio.core.errors import SettingsError
from studio.core.files import read_file, write_atomically
from studio.core.language import N_, Kept, _
from studio.core.rules import problems_of

MOST, LARGEST = 2**63 - 1, 1e30
MOST_SECONDS = 1e11  # three thousand years: more than any duration, and a date can still be moved by it
EARLIEST, LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2999, 1, 1, tzinfo=UTC)
AnyFloat = Annotated[float, AllowInfNan(True)]
"""A number that may be infinite or none: a loss that diverged, a difference without bounds. Whoever shows it looks."""

_SKIPPED = ("default", "metadata", "ref", "serialization")


def _bounded(schema: Any, of: type[BaseModel], field: str = "") -> Any:  # noqa: ANN401 - pydantic's nested dicts
    """The schema of a model with bounds on every number and date in it, but in models inside: those have their own."""
    if isinstance(schema, list | tuple):
        return [_bounded(part, of, field) for part in schema]
    if not isinstance(schema, Mapping) or (schema.get("type") == "model" and schema["cls"] is not of):
        return schema
    if limits := _limits(schema, field):
        bounded = cast(CoreSchema, {**limits, **schema})
        return core_schema.json_or_python_schema(json_schema=bounded, python_schema=cast(CoreSchema, schema))
    if schema.get("type") == "model-fields":
        return {**schema, "fields": {name: _bounded(part, of, name) for name, part in schema["fields"].items()}}
    return {key: part if key in _SKIPPED else _bounded(part, of, field) for key, part in schema.items()}


def _limits(schema: Mapping[str, Any], field: str) -> dict[str, Any]:
    match schema.get("type"):
        case "int":
            return {"ge": -MOST, "le": MOST}
        case "float" if field.endswith("seconds"):
            return {"allow_inf_nan": False, "ge": -MOST_SECONDS, "le": MOST_SECONDS}
        case "float" if not schema.get("allow_inf_nan"):
            return {"allow_inf_nan": False, "ge": -LARGEST, "le": LARGEST}
        case "datetime":
            return {"ge": EARLIEST, "le": LATEST}
    return {}


def _read_text(value: object) -> str:
    """A text, or what `_written` made of a kept message.

    Raises:
        ValueError: where it is neither.
    """
    match value:
        case str():
            return value
        case {"message": str(message), "values": dict(values), "plural": str(plural), "num": int(num)}:
            known = {name: _read_text(part) if isinstance(part, dict) else part for name, part in values.items()}
            try:
                return Kept(message, known, plural, num)
            except (LookupError, ValueError) as error:  # changed by hand: it names a value that is not there
                raise ValueError(_("must be a message with its values")) from error
    raise ValueError(_("must be text"))


def _written(text: object) -> object:
    if not isinstance(text, Kept):
        return text
    values = {name: _written(value) for name, value in text.values.items()}
    return {"message": text.message, "values": values, "plural": text.plural, "num": text.num}


KeptText = Annotated[str, PlainValidator(_read_text), PlainSerializer(_written, when_used="json")]
"""A text for whoever reads it later: a message of `for_later` stays one, to be `said` in their language."""


class Record(BaseModel):
    """Frozen, and strict about names, so that a report from another version is refused and not misread.

    Numbers and dates that are read from JSON are bounded. A record that is made is not: no odd number ends the work
    that it tells of.
    """

    # A difference can be infinite, and JSON's null would lose that.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[BaseModel], handler: GetCoreSchemaHandler) -> CoreSchema:
        return cast(CoreSchema, _bounded(handler(source), cls))


# Control characters, halves of characters, and what turns the direction of the text around it.
_UNFIT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_ENDS = re.compile("[\t\n\u2028\u2029]")
MAX_LABEL_BYTES = 100_000


def _plain(text: str) -> str:
    if found := _UNFIT.search(text):
        sign = f"U+{ord(found[0]):04X}"
        raise ValueError(_("must not hold control characters, such as {sign}", sign=sign))
    return text


def _one_line(text: str) -> str:
    if _LINE_ENDS.search(text):
        raise ValueError(_("must be one line"))
    return text


class Label(Record):
    """What a person calls something, and what they noted on it: plain text, of any language."""

    name: Annotated[str, AfterValidator(_plain), AfterValidator(_one_line)] = Field("", title=N_("Name"), max_length=80)
    note: Annotated[str, AfterValidator(_plain)] = Field("", title=N_("Note"), max_length=2000)
    starred: bool = False

    @classmethod
    def of(cls, *, name: str = "", note: str = "", starred: bool = False) -> "Label":
        """One from what a person typed; space around a name is nothing.

        Raises:
            SettingsError: where a text is too long, or holds characters that cannot be shown.
        """
        try:
            return cls(name=name.strip(), note=note, starred=starred)
        except ValidationError as error:
            raise SettingsError(" ".join(problem.text for problem in problems_of(cls, error))) from error

    def over(self, name: str) -> str:
        """`White shoes · 20261125-220000-shoes`: a name in a list, with the one that it has anyway."""
        return f"{self.name} · {name}" if self.name else name


def label_beside(file: Path) -> Path:
    """Where the label of a file is kept."""
    return file.with_name(f"{file.stem}.label.json")


def read_label(file: Path) -> Label:
    """A label; an empty one where there is none.

    Raises:
        SettingsError: where it cannot be read.
    """
    try:
        return Label.model_validate_json(read_file(file, max_bytes=MAX_LABEL_BYTES))
    except FileNotFoundError:
        return Label()
    except (OSError, ValidationError) as error:
        raise SettingsError(
            _(
                "The name and the note in {file} cannot be read ({kind}). Save others to replace them.",
                file=file,
                kind=type(error).__name__,
            )
        ) from error


def label_or_none(file: Path) -> Label:
    """The same for lists: an empty one where it cannot be read."""
    try:
        return read_label(file)
    except SettingsError:
        return Label()


def write_label(file: Path, label: Label) -> None:
    """Keep it; of an empty one no file is kept.

    Raises:
        OSError: where it cannot be written; the old one is untouched.
    """
    if label == Label():
        file.unlink(missing_ok=True)
    else:
        write_atomically(file, label.model_dump_json().encode() + b"\n")
