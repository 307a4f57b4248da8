"""The language in which the studio speaks: gettext's catalogues; English where one has no entry.

The page sets it for every press and every answer, the command line takes it from the environment, and the engine and
jobs are told it by whoever asks them.

Messages are format strings with named values, so that a translator may put these in another order, and a number among
them is written as its language writes it:

    _("{num_images:,} images, {share:.1%} of all", num_images=1991, share=0.5)
    1,991 images, 50.0% of all
    1.991 imagens, 50,0% de todas
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from functools import cache
from gettext import GNUTranslations, NullTranslations
from io import BytesIO
from pathlib import Path
from string import Formatter
from typing import Any, Final, Self, TypeVar

Answer = TypeVar("Answer")
Message = TypeVar("Message", bound=str)  # a key that is a label too keeps its Literal type

ENGLISH = "en"
PORTUGUESE = "pt-BR"
LANGUAGES: Final[Mapping[str, str]] = {ENGLISH: "English", PORTUGUESE: "Português"}
"""By their tags (BCP 47), what those who speak them call them."""
LANGUAGE_NAME = "STUDIO_LANGUAGE"
"""The environment variable that chooses it for a process, before those of the system."""
LATER = "later"  # no language: messages are kept for one
SYSTEM_NAMES = ("LC_ALL", "LC_MESSAGES", "LANG")
CATALOGUES = Path(__file__).resolve().parent.parent / "languages"

_chosen: ContextVar[str] = ContextVar("language")
_COMMA_FOR_POINT = str.maketrans(",.", ".,")


def language() -> str:
    """The tag of what is spoken here and now: of this page or request, else of this process."""
    chosen = _chosen.get("")
    return ENGLISH if chosen == LATER else chosen or language_of(os.environ)


@contextmanager
def speaking(tag: str) -> Iterator[None]:
    """Within it, this language is spoken; English where the tag is none of ours."""
    token = _chosen.set(tag if tag in LANGUAGES else ENGLISH)
    try:
        yield
    finally:
        _chosen.reset(token)


def in_this_language(act: Callable[..., Answer]) -> Callable[..., Answer]:
    """The same for a thread, which would speak its process's language: it speaks that of whoever starts it."""
    tag = language()

    def speak(*values: Any, **named: Any) -> Answer:  # noqa: ANN401 - whatever `act` takes
        with speaking(tag):
            return act(*values, **named)

    return speak


def language_of(environment: Mapping[str, str]) -> str:
    """What a process speaks: what `STUDIO_LANGUAGE` says, else the system's own (`pt_BR.UTF-8`), else English."""
    if chosen := environment.get(LANGUAGE_NAME):
        return nearest_language(chosen)
    found = next((value for name in SYSTEM_NAMES if (value := environment.get(name))), "")
    return nearest_language(found.partition(".")[0])


def nearest_language(tag: str) -> str:
    """Ours for `pt`, `pt_PT` or `PT-br`; English where none is near."""
    return _our_language(tag) or ENGLISH


def _our_language(tag: str) -> str:
    spoken = tag.replace("_", "-").partition("-")[0].lower()
    return next((known for known in LANGUAGES if known.partition("-")[0] == spoken), "")


def preferred_language(accepted: str) -> str:
    """Of an `Accept-Language` header (RFC 9110, 12.5.4) the most wanted that is ours; English where none is.

    Args:
        accepted: `pt-BR,pt;q=0.9,en;q=0.8`.
    """
    wanted: list[tuple[float, str]] = []
    for part in accepted[:1000].split(","):
        tag, _, quality = part.strip().partition(";q=")
        weight = float(quality) if quality.replace(".", "", 1).isdecimal() else float(not quality)
        if weight > 0 and (known := _our_language(tag)):
            wanted.append((weight, known))
    return max(wanted, key=lambda pair: pair[0], default=(0.0, ENGLISH))[1]


def N_(message: Message) -> Message:  # noqa: N802 - gettext's own name
    """Marks a message that is made before anyone reads it; `_` says it in a language when it is read."""
    return message


def _(message: str, /, **values: object) -> str:
    """A message in the language that is spoken, with its values in it.

    Raises:
        KeyError: where the message names a value that is not given.
    """
    if not message:
        return ""  # gettext's catalogues keep their head under it
    return Kept(message, values) if _chosen.get("") == LATER else _say(message, values)


def ngettext(singular: str, plural: str, num: int, /, **values: object) -> str:
    """Likewise one of two messages, by a number that decides which; named in `values` too where it is in them."""
    return Kept(singular, values, plural, num) if _chosen.get("") == LATER else _say(singular, values, plural, num)


def _say(message: str, values: Mapping[str, object], plural: str = "", num: int = 0) -> str:
    spoken = catalogue(language())
    said = spoken.ngettext(message, plural, num) if plural else spoken.gettext(message)
    return _formatter.vformat(said, (), values) if values else said


class Kept(str):
    """A message that is kept for whoever reads it later: in English as a text, with what `said` needs to say it anew.

    Templates, f-strings and messages that have it in them say it by themselves.

    Attributes:
        message, plural, num: as `_` and `ngettext` take them.
        values: texts and numbers, and other kept messages.
    """

    message: str
    values: dict[str, object]
    plural: str
    num: int

    def __new__(cls, message: str, values: Mapping[str, object], plural: str = "", num: int = 0) -> Self:
        with speaking(ENGLISH):
            kept = super().__new__(cls, _say(message, values, plural, num))
        known: dict[str, object] = {  # of what is neither text nor number its text: of a path, an error
            name: value if isinstance(value, str | int | float) else str(value) for name, value in values.items()
        }
        kept.message, kept.values, kept.plural, kept.num = message, known, plural, num
        return kept

    def __str__(self) -> str:
        return self

    def __format__(self, form: str) -> str:
        return format("".join(said(self)), form)

    def __reduce__(self) -> tuple[type[Self], tuple[object, ...]]:
        return type(self), (self.message, self.values, self.plural, self.num)


@contextmanager
def for_later() -> Iterator[None]:
    """Within it `_` and `ngettext` give kept messages: for what is stored, or shown by pages in several languages."""
    token = _chosen.set(LATER)
    try:
        yield
    finally:
        _chosen.reset(token)


def said(text: str) -> str:
    """A kept message in the language that is spoken; any other text as it is."""
    if not isinstance(text, Kept):
        return text
    values = {name: said(value) if isinstance(value, str) else value for name, value in text.values.items()}
    if text.plural:
        return ngettext(text.message, text.plural, text.num, **values)
    return _(text.message, **values)


def number(value: float, form: str = ",", *, unit: str = "") -> str:
    """A number as the language writes it: `1,991` and `0.98`, `1.991` and `0,98`; with its unit, `3.1 GB`."""
    after = f" {unit}" if unit else ""
    if _chosen.get("") == LATER:
        return Kept(f"{{value:{form}}}{after}", {"value": value})
    text = format(value, form) + after
    return text.translate(_COMMA_FOR_POINT) if language() == PORTUGUESE else text


def percent(share: float, form: str = ".0f") -> str:
    """A share as the language writes it: `7.2%`, `7,2%`; there is no space in either."""
    return f"{number(100 * share, form)}%"


def moment(when: datetime, *, seconds: bool = False) -> str:
    """A date and a time of day: `2026-11-29 21:08`, `29/11/2026 21:08`."""
    day = "%d/%m/%Y" if language() == PORTUGUESE else "%Y-%m-%d"
    return when.strftime(f"{day} %H:%M:%S" if seconds else f"{day} %H:%M")


class _LocalFormatter(Formatter):
    """Writes numbers that have a format as the language does."""

    def format_field(self, value: Any, format_spec: str) -> str:  # noqa: ANN401 - as Formatter has it
        if format_spec and isinstance(value, int | float):
            return number(value, format_spec)
        return str(super().format_field(value, format_spec))


_formatter = _LocalFormatter()


def catalogue_file(tag: str) -> Path:
    """Where the translations into a language lie, as gettext's tools expect it."""
    return CATALOGUES / tag.replace("-", "_") / "LC_MESSAGES" / "studio.po"


@cache
def catalogue(tag: str) -> NullTranslations:
    """The translations into a language; none into English."""
    if tag == ENGLISH:
        return NullTranslations()
    from babel.messages.mofile import write_mo  # here: who speaks English needs none of them
    from babel.messages.pofile import read_po

    from studio.core.files import read_file

    compiled = BytesIO()
    write_mo(compiled, read_po(BytesIO(read_file(catalogue_file(tag))), abort_invalid=True))
    compiled.seek(0)
    return GNUTranslations(compiled)
