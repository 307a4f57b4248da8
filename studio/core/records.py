"""The base of every fact that is kept on a disk or sent between processes, and the bounds of what is read as one.

A file may be of another version, cut off, or changed by hand: a number that no machine has (NaN, 10³⁰⁰ bytes) or a date
in the year 1 would be an error wherever it is computed with. It is refused where it is read, with its file's name.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, cast

from pydantic import AllowInfNan, BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

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
