"""Numbers as text, Markdown tables, HTML templates: the same on every page, in every report, on the command line.

Templates are Jinja2's. Every value is escaped, so no text of a user, a file or an error becomes markup.
"""

import html
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING

from markupsafe import Markup

from studio.core.language import N_, Kept, _, ngettext, number, percent, said

if TYPE_CHECKING:
    from jinja2 import Environment

GIB = 2**30
LITTLE_BYTES = GIB // 20  # below it gigabytes with one digit would say 0.0

WEEKDAYS = (
    N_("Monday"),
    N_("Tuesday"),
    N_("Wednesday"),
    N_("Thursday"),
    N_("Friday"),
    N_("Saturday"),
    N_("Sunday"),
)

MONTHS = (
    N_("January"),
    N_("February"),
    N_("March"),
    N_("April"),
    N_("May"),
    N_("June"),
    N_("July"),
    N_("August"),
    N_("September"),
    N_("October"),
    N_("November"),
    N_("December"),
)

STEP_SIGN = "→ "
"""Begins a line of stderr that says what a command does now."""

_MARKUP = re.compile(r"([\\`*_\[\]<>|~&#$])")
_LIST_BEGINNING = re.compile(r"^(\d{0,9})([-+=.)])(?=[-+=\s]|$)")


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 05 s`, `1 h 12 min`."""
    if seconds < 60:
        return number(seconds, ".1f" if seconds < 10 else ".0f", unit="s")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(num: int, singular: str, plural: str) -> str:
    """`1 image`, `1,991 images`; the nouns are those of a catalogue (`ngettext`)."""
    return _("{num:,} {noun}", num=num, noun=ngettext(singular, plural, num))


def gigabytes(num_bytes: int | None) -> str:
    """`3.1 GB`, in units of 2³⁰ bytes, as systems' own monitors count; `12 MB` of little; `–` for what is not there."""
    if num_bytes is None:
        return "–"
    if 0 < num_bytes < LITTLE_BYTES:
        return number(num_bytes / 2**20, ".0f", unit="MB")
    return number(num_bytes / GIB, ".1f", unit="GB")


def weekday_and_time(when: datetime) -> str:
    """`Sunday 07:30`."""
    return f"{_(WEEKDAYS[when.weekday()])} {when:%H:%M}"


def clock_text(when: datetime) -> str:
    """`07:12`; with the day where it is not today."""
    return f"{when:%H:%M}" if when.date() == datetime.now().date() else weekday_and_time(when)


def when_text(moment: datetime, now: datetime) -> str:
    """`today 17:38`, `yesterday 22:00`, `Thursday 22:00`, `24 November`, `24 November 2025`."""
    days = (now.date() - moment.date()).days
    time = moment.strftime("%H:%M")
    if days == 0:
        return _("today {time}", time=time)
    if days == 1:
        return _("yesterday {time}", time=time)
    if 1 < days < 7:
        return weekday_and_time(moment)
    month = _(MONTHS[moment.month - 1])
    if moment.year == now.year:
        return _("{day} {month}", day=moment.day, month=month)
    return _("{day} {month} {year}", day=moment.day, month=month, year=moment.year)


def escape(value: object) -> str:
    """A value as text that no browser takes for markup, in attributes too."""
    return html.escape(str(value), quote=True)


def escape_markdown(value: str) -> str:
    """A value as one line of text that ends no cell of a table, and that no reader of Markdown takes for markup."""
    line = " ".join(value.split())
    return _LIST_BEGINNING.sub(r"\1\\\2", _MARKUP.sub(r"\\\1", line))


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of texts: no sign in one is markup, or ends its cell."""
    return "\n".join(
        [
            _line(map(escape_markdown, head)),
            _line(["---"] * len(head)),
            *(_line(map(escape_markdown, row)) for row in rows),
        ]
    )


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def template(path: str) -> Callable[..., Markup]:
    """A file of macros in the package, to be called as `view("state", status=status)`.

    What a call gives is `Markup`, which alone a template takes for HTML when it is given it. A value that a template
    has no name for, or a name without a value, is an error.

    Args:
        path: below `studio/`, such as `ui/templates/training/view.html`.
    """

    def render(macro: str, /, **values: object) -> Markup:
        called: Callable[..., Markup] = getattr(environment().get_template(path).module, macro)
        return called(**values)

    return render


@cache
def environment() -> "Environment":
    """Where templates are found, with what they call: `{{ steps|number }}`, `{{ loss|number(".4f") }}`,
    `{{ _("Seed") }}`, `{{ counted(steps, "step", "steps") }}`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined  # here: the command line needs no templates

    made = Environment(
        loader=PackageLoader("studio", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=lambda value: said(value) if isinstance(value, Kept) else value,
    )
    made.filters |= {"number": number, "percent": percent, "duration": duration, "gigabytes": gigabytes}
    made.globals |= {"_": _, "ngettext": ngettext, "counted": counted}
    return made
