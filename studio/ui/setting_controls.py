"""The control that fits a setting's type; labels, help and bounds are the settings' own."""

from typing import Any, Literal, get_args, get_origin

import gradio as gr
from pydantic.fields import FieldInfo

from studio.core.text import escape
from studio.settings import Settings, bounds


def setting_control(
    kind: type[Settings], name: str, value: object, *, form: str, info: bool, zero: str = "", lines: int = 1
) -> gr.components.Component:
    """Make it, with a value of the form.

    Args:
        form: what its id begins with.
        info: whether its help is shown.
        zero: what 0 stands for, where the number may be left out: a number box of the page cannot be empty.
        lines: of a text, at the least; one that begins with one line keeps to it.
    """
    field = kind.model_fields[name]
    common: dict[str, Any] = {
        "label": f"{field.title} (0: {zero})" if zero else field.title,
        "info": _help(field, zero) if info else None,
        "elem_id": f"{form}-{name.replace('_', '-')}",
        "interactive": True,
    }
    if field.annotation is bool:
        return gr.Checkbox(bool(value), **common)
    if get_origin(field.annotation) is Literal:
        return gr.Dropdown(list(get_args(field.annotation)), value=str(value), min_width=96, **common)
    if isinstance(value, str):
        size = {"lines": lines, "max_lines": 12} if lines > 1 else {"max_lines": 1}
        return gr.Textbox(value, min_width=96, **size, **common)
    assert isinstance(value, int | float)
    low, high = bounds(kind, name)
    return gr.Number(value, minimum=0 if zero else low, maximum=high, min_width=96, **common)


def _help(field: FieldInfo, zero: str) -> str:
    """A setting's help; what an empty one means is said by the label, where 0 stands for it."""
    words = field.description or ""
    return words.partition(" Empty:")[0] if zero else words


def help_html(words: str) -> str:
    """Help of its own, for words that gradio's would not show: what stands in `__` it takes for bold, also in code."""
    parts = (f"<code>{escape(part)}</code>" if i % 2 else escape(part) for i, part in enumerate(words.split("`")))
    return f'<p class="quiet">{"".join(parts)}</p>'


def whole_if_whole(value: object) -> object:
    """Number boxes give 16.0 where 16 was typed."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
