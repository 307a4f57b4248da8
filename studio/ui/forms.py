"""Forms made from settings models: one control a field, in the model's order and groups.

A field's title, description, bounds, type and choices say what its control is; its `json_schema_extra` (a `FormHint`)
says the rest, all in English. A new field of a model is in its form without any change here.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Literal, get_args, get_origin

import gradio as gr
from gradio.components import Component
from markupsafe import Markup
from pydantic.fields import FieldInfo

from studio.core.errors import SettingsError
from studio.core.language import N_, _
from studio.core.rules import shown
from studio.core.settings import GenerationSettings, LoraChoice, Settings, bounds
from studio.core.text import template
from studio.loras.speed import speed_of
from studio.ui.shell.parts import QUIET, choice_options
from studio.ui.shell.path_chooser import path_box

_template = template("ui/templates/shell.html")
_WHOLE_NUMBER = re.compile(r"\s*[+-]?\d{1,40}\s*", re.ASCII)

MAX_LINES = 12
NO_CHANGE: Final[dict[Any, Any]] = gr.skip()
"""What an event returns that changes none of its outputs."""


class FormHint(Settings):
    """What a field's `json_schema_extra` may say of its place in a form.

    Attributes:
        group: the title of the accordion that this field is in, and those after it that name none; "" is the form's
            head.
        hidden: no generated control: the command line's own, or laid out by hand.
        unit: of its number, for the label.
        placeholder: what an empty box stands for.
        lines: of a text that grows, at the least; a text without it has one line.
        step: makes it a slider that moves in such steps.
        takes: of a path, as in `path_box`.
    """

    group: str | None = None
    hidden: bool = False
    unit: str = ""
    placeholder: str = ""
    lines: int = 0
    step: int | float | None = None
    takes: tuple[str, ...] = ()


def form_hint(field: FieldInfo) -> FormHint:
    """The hint of a field; a misspelt one is an error."""
    return FormHint.model_validate(field.json_schema_extra or {})


def form_groups(kind: type[Settings]) -> dict[str, tuple[str, ...]]:
    """The names of each group's fields in the model's order, inherited ones last, without hidden ones and models."""
    groups, group = dict[str, tuple[str, ...]](), ""
    for name in sorted(kind.model_fields, key=lambda name: name not in kind.__annotations__):
        hint = form_hint(field := kind.model_fields[name])
        group = group if hint.group is None else hint.group
        if not hint.hidden and not _is_model(field):
            groups[group] = (*groups.get(group, ()), name)
    return groups


def section_slug(group: str) -> str:
    """How a group is called in the id of its section."""
    return re.sub(r"\W+", "-", group.lower()).strip("-")


def _is_model(field: FieldInfo) -> bool:
    kinds = (field.annotation, *get_args(field.annotation))
    return any(isinstance(kind, type) and issubclass(kind, Settings) for kind in kinds)


class SettingsForm:
    """The controls of a settings model, each made once, where the layout stands when it is required.

    Args:
        form: what the controls' ids begin with.
        values: what they show at first; the defaults for those that it does not name.

    Attributes:
        fields: the controls by their fields' names. A control that is made by hand is put here, too.
        size_note: where it says what a large size takes.
    """

    def __init__(self, kind: type[Settings], form: str, values: Mapping[str, object] | None = None) -> None:
        self.kind, self.form = kind, form
        self.fields: dict[str, Component] = {}
        self.size_note: gr.HTML | None = None
        self._values = values or {}

    def add(self, name: str, *, info: bool = False, elem_id: str = "") -> Component:
        """Make the control of one field; `info` shows its help below the label."""
        field = self.kind.model_fields[name]
        value = self._values.get(name, "" if field.is_required() else field.default)
        self.fields[name] = setting_control(
            self.kind, name, value, elem_id=elem_id or f"{self.form}-{name.replace('_', '-')}", info=info
        )
        return self.fields[name]

    def rest(self, group: str = "", *, info: bool = False) -> None:
        """Make the controls of a group that are not made yet."""
        for name in form_groups(self.kind).get(group, ()):
            if name not in self.fields:
                self.add(name, info=info)

    def accordions(self) -> None:
        """Make every group but the head, each folded away, with its help."""
        for group in form_groups(self.kind):
            if group:
                with gr.Accordion(_(group), open=False, elem_id=f"{self.form}-section-{section_slug(group)}"):
                    self.rest(group, info=True)

    def shown(self, values: Mapping[str, object]) -> dict[str, object]:
        """What the controls show of a setting's values, by name; those without a control are left out."""
        return {name: shown_value(values[name]) for name in self.fields if name in values}


def setting_control(
    kind: type[Settings], name: str, value: object, *, elem_id: str, label: str = "", info: bool = False
) -> Component:
    """The control that fits a field's type, with a value of the model.

    Numbers that may be left out have an empty box, which says what stands in for them. The bounds of a number's box
    are the settings' alone to check: Gradio's own error names no setting. A seed's box holds text, since a browser's
    numbers end at 2^53.
    """
    field = kind.model_fields[name]
    hint = form_hint(field)
    title = _(field.title or name)
    common: dict[str, Any] = {
        "label": label or (f"{title} ({_(hint.unit)})" if hint.unit else title),
        "info": _help(field, hint) if info else None,
        "elem_id": elem_id,
        "interactive": True,
    }
    value = shown_value(value)
    if field.annotation is bool:
        return gr.Checkbox(bool(value), **common)
    if get_origin(field.annotation) is Literal:
        return gr.Dropdown(choice_options(get_args(field.annotation)), value=str(value), min_width=96, **common)
    if hint.takes:
        return path_box(str(value), takes=hint.takes, placeholder=_(hint.placeholder) or None, min_width=96, **common)
    if field.annotation is str or get_origin(field.annotation) is tuple or holds_large_numbers(kind, name):
        size = {"lines": hint.lines, "max_lines": MAX_LINES} if hint.lines else {"max_lines": 1}
        return gr.Textbox(str(value), placeholder=_(hint.placeholder) or None, min_width=96, **size, **common)
    low, high = bounds(kind, name)  # all that settings may bring: Gradio refuses the whole form beyond a slider's ends
    if hint.step:
        assert isinstance(value, int | float)
        return gr.Slider(low, high, value, step=hint.step, min_width=120, **common)
    if is_optional(field):
        number = gr.Number(placeholder=_(hint.placeholder), min_width=96, **common)
        number.value = value  # not through the constructor, whose type has no empty one: None would be shown as 0
        return number
    return gr.Number(value, min_width=96, **common)


def holds_large_numbers(kind: type[Settings], name: str) -> bool:
    """Whether it takes whole numbers that JavaScript would round: past 2^53."""
    return (bounds(kind, name)[1] or 0) > 2**53


def is_optional(field: FieldInfo) -> bool:
    """Whether it may be left out: its value is None then."""
    return type(None) in get_args(field.annotation)


def shown_value(value: object) -> object:
    """What a control shows of a setting's value: nothing for None, one line for each part of a tuple."""
    if isinstance(value, tuple):
        return "\n".join(map(str, value))
    return "" if value is None else value


def read_value(kind: type[Settings], name: str, value: object) -> object:
    """What a control holds, as a value for the setting.

    Of a number that may be left out, 0 counts as empty: Gradio shows it where a box is emptied and then folded away.
    """
    field = kind.model_fields[name]
    if get_origin(field.annotation) is tuple:
        return tuple(line.strip() for line in str(value or "").splitlines() if line.strip())
    if is_optional(field) and not value:
        return None
    if holds_large_numbers(kind, name) and _WHOLE_NUMBER.fullmatch(str(value)):
        return int(str(value))
    return int(value) if isinstance(value, float) and value.is_integer() else value  # 16.0 where 16 was typed


def read_settings(kind: type[Settings], values: Mapping[str, object]) -> dict[str, object]:
    """What the controls of these names hold, as values for the model."""
    return {name: read_value(kind, name, values[name]) for name in kind.model_fields if name in values}


def by_component(named: Mapping[str, Component], values: Mapping[str, object]) -> dict[Any, Any]:
    """What an event returns that changes some of the named components: the others stay as they are."""
    return {named[name]: value for name, value in values.items()} or NO_CHANGE


def build_reset(controls: Mapping[str, Component], *, form: str) -> None:
    """Lay out the button that gives a form the values again that it began with, and connect it."""
    reset = gr.Button(_("Reset this form"), elem_id=f"{form}-reset", size="sm")
    first = ["" if control.value is None else control.value for control in controls.values()]
    reset.click(lambda: first, None, list(controls.values()), **QUIET)


def _help(field: FieldInfo, hint: FormHint) -> str:
    """A field's help; what an empty box stands for is said by its placeholder, so the last sentence is left out."""
    text = field.description or ""
    return f"{_(text).rpartition('. ')[0]}." if hint.placeholder and " Leave empty" in text else _(text)


def help_html(text: str) -> Markup:
    """Help of its own, for text that gradio's would not show: what stands in `__` it takes for bold, also in code."""
    return _template("code_between_backticks", parts=text.split("`"))


FormPart = Callable[[str], Component]
NO_LORA: Final = N_("none")
LORA_ROWS = 3  # more go into a prompt, as <lora:name:0.8>, or into a batch's column
OWN_SIZE = "model's own"
SIZES = (OWN_SIZE, "512 × 512", "512 × 768", "768 × 512", "640 × 640", "768 × 768")
SIZE = re.compile(r"(\d+)\s*[x×*, ]\s*(\d+)", re.IGNORECASE)


def build_lora_row(mode: str, number: int, *, label: str, none: str = NO_LORA, first: str = "") -> tuple[Any, Any]:
    """A dropdown of the library's LoRAs, and a strength; `first` is chosen at the start."""
    with gr.Row(elem_classes="lora-row"):
        name = gr.Dropdown(
            lora_options([first] if first and first != none else [], none=none),
            value=first or none,
            label=label,
            elem_id=f"{mode}-lora-{number}",
            allow_custom_value=True,  # Gradio forgets what it offered when the studio is started again
            interactive=True,
            min_width=120,
        )
        strength = setting_control(LoraChoice, "strength", 1.0, elem_id=f"{mode}-strength-{number}")
    return name, strength


def lora_options(names: Iterable[str], *, none: str = NO_LORA) -> list[tuple[str, str]]:
    """What a row's dropdown offers, each with what the page calls it; `none` stands for no LoRA."""
    return [(_(none), none), *((name, name) for name in names)]


def build_lora_rows(mode: str) -> dict[str, Component]:
    """The rows of LoRAs that act together, all but the first folded away: `lora_0`, `strength_0`, and so on."""
    with gr.Group(elem_classes="lora-rows"):
        rows = [build_lora_row(mode, 0, label=_("LoRA"))]
    with gr.Accordion(_("More LoRAs"), open=False, elem_classes="lora-rows", elem_id=f"{mode}-section-loras"):
        rows += [build_lora_row(mode, i, label=_("LoRA {number}", number=i + 1)) for i in range(1, LORA_ROWS)]
    return {f"{part}_{i}": row[j] for i, row in enumerate(rows) for j, part in enumerate(("lora", "strength"))}


def build_generation(mode: str, *, speed: FormPart, head: Callable[[SettingsForm], None] | None = None) -> SettingsForm:
    """The generation settings of a mode but its prompts and LoRAs, the rarer ones folded away.

    Args:
        head: lays out width, height and seed; without it they are a size to be chosen, and the seed.
    """
    form = SettingsForm(GenerationSettings, mode)
    if head is not None:
        head(form)
    else:
        _build_size_and_seed(form, mode)
    form.size_note = gr.HTML(elem_id=f"{mode}-size-note", elem_classes="size-note", padding=False)
    form.fields["speed"] = speed(mode)
    form.rest()
    form.accordions()
    return form


def _build_size_and_seed(form: SettingsForm, mode: str) -> None:
    with gr.Row(elem_classes="fields"):
        form.fields["size"] = gr.Dropdown(
            choice_options(SIZES),
            value=OWN_SIZE,
            label=_("Size"),
            allow_custom_value=True,
            elem_id=f"{mode}-size",
            interactive=True,
            min_width=160,
        )
        form.add("seed")


def read_generation(values: Mapping[str, Any]) -> dict[str, object]:
    """What the controls of a mode hold, as values for `GenerationSettings`.

    Raises:
        SettingsError: where the size is none.
    """
    rows = [(values[f"lora_{i}"], values[f"strength_{i}"]) for i in range(LORA_ROWS) if f"lora_{i}" in values]
    return {
        **read_settings(GenerationSettings, values),
        **(size_values(values["size"]) if "size" in values else {}),
        "loras": lora_choices(*rows),
    }


def generation_values(settings: GenerationSettings) -> dict[str, object]:
    """What the controls of a mode show of generation settings; LoRAs past the rows are left out."""
    values: dict[str, object] = {name: shown_value(getattr(settings, name)) for name in GenerationSettings.model_fields}
    for i in range(LORA_ROWS):
        choice = settings.loras[i] if i < len(settings.loras) else None
        values[f"lora_{i}"] = choice.name if choice else NO_LORA
        values[f"strength_{i}"] = choice.strength if choice else 1.0
    return values | {"size": size_text(settings), "speed": speed_of(settings)}


def size_values(text: str) -> dict[str, int | None]:
    """`512 × 768`, or a size of one's own in that form, as width and height.

    Raises:
        SettingsError: where it is no size.
    """
    if text == OWN_SIZE:
        return {"width": None, "height": None}
    if (match := SIZE.fullmatch(text.strip())) is None:
        given = shown(text.strip() or None)
        raise SettingsError(
            _("Size must be width × height in pixels, such as 512 × 768, got {given}.", given=given)
        ).about("size")
    return {"width": int(match[1]), "height": int(match[2])}


def size_text(settings: GenerationSettings) -> str:
    """The other way round."""
    if settings.width is None or settings.height is None:
        return OWN_SIZE
    return f"{settings.width} × {settings.height}"


def lora_choices(*rows: tuple[str, float]) -> tuple[dict[str, object], ...]:
    """What the rows say, without those that name none."""
    return tuple({"name": name, "strength": strength} for name, strength in rows if names_lora(name))


def names_lora(name: str | None) -> bool:
    """Whether a row's dropdown holds a LoRA."""
    return bool(name) and name not in (NO_LORA, "base")
