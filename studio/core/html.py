"""HTML from Jinja2 templates. Every value is escaped, so no text of a user, a file or an error becomes markup."""

from collections.abc import Callable
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from studio.core.text import counted, duration, gigabytes


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
def environment() -> Environment:
    """Where templates are found, and their filters: `{{ steps|number }}` is `3,000`, `{{ loss|number(".4f") }}`."""
    made = Environment(
        loader=PackageLoader("studio", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {"number": _number, "counted": counted, "duration": duration, "gigabytes": gigabytes}
    return made


def _number(value: float, form: str = ",") -> str:
    return format(value, form)
