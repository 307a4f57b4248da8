"""A broken rule in words: which setting, by its label, what holds for it, what was given, and which name is near."""

import difflib
import math
import types
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from studio.core.errors import FieldProblem
from studio.core.language import N_, _, number

MAX_SHOWN = 120  # characters of a value
_MANY_BITS = 128  # more than about 38 digits
_LARGE = 1e6  # from here on both ends of a range say less than the one that was passed
_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
_RULES: Mapping[str, str] = {
    "bool_parsing": N_("must be true or false"),
    "bool_type": N_("must be true or false"),
    "finite_number": N_("must be a finite number"),
    "float_parsing": N_("must be a number"),
    "float_type": N_("must be a number"),
    "int_from_float": N_("must be a whole number"),
    "int_parsing": N_("must be a whole number"),
    "int_parsing_size": N_("must be a whole number"),
    "int_type": N_("must be a whole number"),
    "dict_type": N_("must be names with values"),
    "model_type": N_("must be names with values"),
    "missing": N_("is missing"),
    "string_too_long": N_("must have at most {max_length} characters"),
    "string_too_short": N_("must not be empty"),
    "string_type": N_("must be text"),
    "string_unicode": N_("must hold whole characters"),
    "too_long": N_("must have at most {max_length} entries"),
    "too_short": N_("must not be empty"),
    "tuple_type": N_("must be a list"),
}
"""By pydantic's names of errors."""


class MismatchError(ValueError):
    """What a settings model raises where values that are legal one by one do not fit together: in words, and which."""

    def __init__(self, text: str, *fields: str) -> None:
        super().__init__(text)
        self.fields = fields


_labels_alone: ContextVar[bool] = ContextVar("labels alone", default=False)


@contextmanager
def labels_alone() -> Iterator[None]:
    """Within it settings are called as on the page: who reads that never meets their names in files and commands."""
    token = _labels_alone.set(True)
    try:
        yield
    finally:
        _labels_alone.reset(token)


def problems_of(kind: type[BaseModel], error: ValidationError) -> list[FieldProblem]:
    """One for each rule that is broken, naming the setting, the rule and the value."""
    found = (FieldProblem(said, _fields(problem)) for problem in error.errors() for said in _sentences(kind, problem))
    return list(dict.fromkeys(found))


def _fields(problem: ErrorDetails) -> tuple[str, ...]:
    """The settings that it is about, as `FieldProblem` has them."""
    raised = problem.get("ctx", {}).get("error")
    ends = raised.fields if isinstance(raised, MismatchError) else ()
    steps = tuple(map(str, problem["loc"]))
    return tuple(".".join((*steps, end)) for end in ends) or ((".".join(steps),) if steps else ())


def nearest(name: str, names: Collection[str]) -> str:
    """` Did you mean rank?`; empty where no name is near."""
    found = difflib.get_close_matches(name, names, n=1)
    return _did_you_mean(found[0]) if found else ""


def nearest_setting(name: str, kinds: Sequence[type[BaseModel]], *, but: Collection[str] = ()) -> str:
    """The same of settings, by their names or what they are called on the page."""
    fields = [(key, str(field.title)) for kind in kinds for key, field in kind.model_fields.items()]
    titles = {said.lower(): key for key, title in fields for said in (title, _(title))}
    names = {**titles, **{key: key for key in titles.values()}}
    names = {word: key for word, key in names.items() if key not in but}
    found = difflib.get_close_matches(name.lower(), names, n=1)
    return _did_you_mean(names[found[0]]) if found else ""


def _did_you_mean(name: str) -> str:
    return " " + _("Did you mean {name}?", name=name)


def _sentences(kind: type[BaseModel], problem: ErrorDetails) -> Iterable[str]:
    steps, message = problem["loc"], problem["msg"].removeprefix("Value error, ")
    if not steps or (isinstance(problem["input"], Mapping | BaseModel) and problem["type"] == "value_error"):
        # A rule between settings, of these or of some inside them: its own words name them.
        yield f"{message}."
        return
    label, field, owner = _place(kind, steps)
    if problem["type"] == "extra_forbidden":
        refused = _("{label} is not a setting, got {value}.", label=label, value=shown(problem["input"]))
        yield refused + nearest_setting(str(steps[-1]), [owner])
    elif problem["type"] == "missing":
        yield _("{label} is missing.", label=label)
    else:
        rule = _rule(field, problem, message)
        yield _("{label} {rule}, got {value}.", label=label, rule=rule, value=shown(problem["input"]))
    if str(steps[-1]).endswith("seed") and str(problem["input"]).strip() == "-1":  # as A1111 has it
        yield _("-1 is no random seed here: write a number.")


def shown(value: object) -> str:
    """A value in a sentence: an empty box gave nothing, and a number of a hundred digits is short."""
    if value is None:
        return _("nothing")
    if isinstance(value, int) and value.bit_length() > _MANY_BITS:
        return _("a number of about {num_digits:.0f} digits", num_digits=value.bit_length() * math.log10(2))
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}…"


def _place(kind: type[BaseModel], steps: Sequence[str | int]) -> tuple[str, FieldInfo | None, type[BaseModel]]:
    """(what it is called, its field where there is one, the model that it belongs to) of a place in settings."""
    words: list[str] = []
    field: FieldInfo | None = None
    owner = kind
    for step in steps:
        if isinstance(step, int):
            words.append(str(step + 1))
            continue
        if field is not None:
            inner = _model_in(field.annotation)
            if inner is None:  # a step of pydantic's own, into a union
                continue
            owner = inner
            # `LoRAs 1, Strength`; of settings inside others only `Steps`, not `Shared settings, Steps`.
            words = [*words[:-1], f"{words[-1]},"] if words[-1].isdigit() else []
        field = owner.model_fields.get(step)
        words.append(label_of(owner, step))
    return " ".join(words), field, owner


def label_of(kind: type[BaseModel], name: str) -> str:
    """`Steps (num_inference_steps)`: as on the page, and as in files and commands; else `Steps` alone."""
    field = kind.model_fields.get(name)
    title = _(field.title) if field is not None and field.title else name
    is_name = title.lower() == name.replace("_", " ") or title == name
    return title if is_name or _labels_alone.get() else f"{title} ({name})"


def _model_in(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - any type
    """The model in an annotation such as `tuple[LoraChoice, ...]`."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _rule(field: FieldInfo | None, problem: ErrorDetails, message: str) -> str:
    kind, context = problem["type"], problem.get("ctx", {})
    if field is not None and (kind in _RANGE or kind == "multiple_of"):
        return _range(field, str(kind))
    if kind == "value_error":
        return message
    if kind == "literal_error":
        return _("must be {choices}", choices=_choices(str(context["expected"])))
    return _(_RULES[kind], **context) if kind in _RULES else _("cannot be used")


def _choices(expected: str) -> str:
    """pydantic's `'png', 'jpeg' or 'webp'`."""
    others, __, last = expected.rpartition(" or ")
    return _("{others} or {last}", others=others, last=last) if others else last


def _range(field: FieldInfo, broken: str) -> str:
    """`must be between 1 and 150`, `must be above 0 and at most 10`, `must be a multiple of 8 between 64 and 2048`."""
    rules = [*rules_of(field)]
    low = next((rule for rule in rules if isinstance(rule, Ge | Gt)), None)
    high = next((rule for rule in rules if isinstance(rule, Le | Lt)), None)
    multiple = next((rule.multiple_of for rule in rules if isinstance(rule, MultipleOf)), None)
    least, most = _bound(low), _bound(high)
    if isinstance(low, Ge) and isinstance(high, Le) and float(str(high.le)) < _LARGE:
        if multiple is not None:
            return _(
                "must be a multiple of {multiple} between {least} and {most}", multiple=multiple, least=least, most=most
            )
        return _("must be between {least} and {most}", least=least, most=most)
    if isinstance(low, Gt) and isinstance(high, Le):
        return _("must be above {least} and at most {most}", least=least, most=most)
    if high is not None and (low is None or broken.startswith("less")):
        return _("must be at most {most}", most=most) if isinstance(high, Le) else _("must be below {most}", most=most)
    if low is not None:
        return (
            _("must be at least {least}", least=least)
            if isinstance(low, Ge)
            else _("must be above {least}", least=least)
        )
    return _("must be a multiple of {multiple}", multiple=multiple)


def _bound(rule: object) -> str:
    """The number of a bound as the language writes it."""
    value = next((getattr(rule, end) for end in ("ge", "gt", "le", "lt") if hasattr(rule, end)), "")
    return number(value, "g") if isinstance(value, float) else str(value)


def rules_of(field: FieldInfo) -> Iterable[object]:
    """A field's own, and those of what may stand in it."""
    yield from field.metadata
    if get_origin(field.annotation) in (Union, types.UnionType, tuple, Literal):
        for option in get_args(field.annotation):
            yield from getattr(option, "__metadata__", ())
