"""Values of any of our types with a hostile text wherever a text can stand, for tests of what shows them."""

import random
import types
import typing
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from markupsafe import Markup
from PIL import Image
from pydantic import BaseModel

from studio.training.curves import Curve
from studio.training.events import SampleEvent
from studio.training.session import RunHistory, StepColumns

HOSTILE = "<img src=x onerror=alert(1)>\"'&"


class MadeUp:
    """Makes values by their types; what can be absent, is empty or is one of several is left to `rng`.

    Args:
        folder: where the files lie that paths name; each is an image, and its name is the hostile text.
        known: values of types that cannot be made up.
    """

    def __init__(self, folder: Path, rng: random.Random, known: Mapping[type, object] | None = None) -> None:
        self._rng = rng
        self._known = dict(known or {})
        self._folder = folder / HOSTILE
        self._folder.mkdir(exist_ok=True)
        if not (self._folder / HOSTILE).exists():
            Image.new("RGB", (8, 8), "red").save(self._folder / HOSTILE, format="PNG")

    def arguments(self, function: Callable[..., object]) -> dict[str, Any]:
        """By name, for a call of the function.

        Raises:
            NotImplementedError: where a parameter is of a type that cannot be made up.
        """
        hints = typing.get_type_hints(function)
        return {name: self.value(hint, name) for name, hint in hints.items() if name != "return"}

    def value(self, hint: Any, name: str = "") -> Any:  # noqa: ANN401 - of that type
        """One value of a type; `name` is of the field or parameter that it is for."""
        origin, inner = typing.get_origin(hint), typing.get_args(hint)
        if hint in self._known:
            return self._known[hint]
        if origin in (typing.Union, types.UnionType):
            return self.value(
                self._rng.choice([arg for arg in inner if arg is not types.NoneType or self._rng.random() < 0.4]), name
            )
        if hint is Markup:
            return Markup("<b>markup of ours</b>")
        if origin is typing.Annotated:
            return self.value(inner[0], name)
        if origin is Literal:
            return self._rng.choice(inner)
        if origin is type or hint is type or hint is Any:
            raise NotImplementedError(f"{hint} for {name}")
        if origin in (tuple, list, Sequence, Iterable, frozenset):
            return self._several(origin, inner, name)
        if origin in (dict, Mapping):
            return {self.value(inner[0], name): self.value(inner[1], name) for _ in range(self._rng.randint(1, 2))}
        if hint in (str, int, float, bool, bytes, object, datetime, Path, types.NoneType):
            return self._plain(hint, name)
        if isinstance(hint, type) and (is_dataclass(hint) or issubclass(hint, BaseModel)):
            return self._record(hint)
        raise NotImplementedError(f"{hint} for {name}")

    def _several(self, origin: Any, inner: tuple[Any, ...], name: str) -> Any:  # noqa: ANN401
        if origin is tuple and inner[-1] is not Ellipsis:
            return tuple(self.value(each, name) for each in inner)
        made = [self.value(inner[0], name) for _ in range(2)]
        return {tuple: tuple, frozenset: frozenset}.get(origin, list)(made)

    def _plain(self, hint: type, name: str) -> object:
        if hint is Path:
            return self._folder if "folder" in name or name in ("root", "runs", "datasets") else self._folder / HOSTILE
        if name == "index":
            return 0
        made = {
            str: HOSTILE,
            object: HOSTILE,
            int: self._rng.randint(1, 3),
            float: self._rng.choice([0.125, 1.0, 90.0]),
            bool: self._rng.random() < 0.5,
            bytes: HOSTILE.encode(),
            datetime: datetime(2026, 3, 1, 12, 30, tzinfo=UTC),
            types.NoneType: None,
        }
        return made[hint]

    def _record(self, hint: Any) -> Any:  # noqa: ANN401 - of that type
        if issubclass(hint, BaseModel):
            values = {name: self.value(field.annotation, name) for name, field in hint.model_fields.items()}
            return _told(hint.model_construct(**values))
        if hint is StepColumns:
            return StepColumns(*(array("d", [1.0, 2.0, 3.0]) for _ in range(5)))
        hints = typing.get_type_hints(hint)
        values = {}
        for field in fields(hint):
            if not field.init or field.name.startswith("_"):
                continue
            try:
                values[field.name] = self.value(hints[field.name], field.name)
            except NotImplementedError:
                if field.default is MISSING and field.default_factory is MISSING:
                    raise
        return _told(hint(**values))


def _told(made: Any) -> Any:  # noqa: ANN401 - the same
    """What a run tells goes together: scores under their own step, points of a curve in order."""
    if isinstance(made, SampleEvent):
        return made.model_copy(update={"prompts": made.prompts or (HOSTILE,)})
    if isinstance(made, RunHistory):
        made.scores = {event.step: event for event in made.scores.values()}
    if isinstance(made, Curve):
        return Curve(made.name, [1.0, 2.0], [3.0, 4.0], made.style)
    return made
