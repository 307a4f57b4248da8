"""How the folder is read: layout, rows, caption template with a live preview, background, resolution."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import DatasetError, StudioError
from studio.core.language import N_, _
from studio.core.settings import parse_settings
from studio.core.text import counted, template
from studio.datasets.rows import check_template, fill_template, take_rows, uses_template
from studio.datasets.session import DatasetSession, SessionView
from studio.datasets.source import (
    LAYOUT_NAMES,
    LAYOUT_TITLES,
    DatasetRecipe,
    LayoutChoice,
    RowChoice,
    SourcePicture,
    with_measured,
)
from studio.ui.datasets.browser import info_of, label_of, with_number
from studio.ui.datasets.detail import SAVED_WITH_SUBJECT, read_subject
from studio.ui.forms import NO_CHANGE, by_component
from studio.ui.shell.parts import QUIET, Part, paragraph, table, toasts
from studio.ui.shell.selection import FieldErrors, error_box, follow_form, read_selection

_template = template("ui/templates/datasets.html")

RECOGNISED = N_("as recognised")
NONE = N_("all rows")
PREVIEWED_ROWS = 6
MAX_VALUES = 500


@dataclass(frozen=True)
class RecipeBox:
    """Its components, by what they are for."""

    box: gr.Accordion
    words: gr.HTML
    layout: gr.Dropdown
    table: gr.Dropdown
    image_column: gr.Dropdown
    caption_column: gr.Dropdown
    row_column: gr.Dropdown
    row_values: gr.Dropdown
    template: gr.Textbox
    preview: gr.HTML
    default_caption: gr.Textbox
    background: gr.ColorPicker
    resolution: gr.Number
    apply: gr.Button
    errors: gr.HTML

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """What a refresh keeps true."""
        return {"dataset-layout-words": self.words}

    @property
    def form(self) -> dict[str, gr.components.Component]:
        """What makes a recipe, by its names."""
        names = (
            "layout",
            "table",
            "image_column",
            "caption_column",
            "row_column",
            "row_values",
            "template",
            "default_caption",
            "background",
            "resolution",
        )
        return {name: getattr(self, name) for name in names}


def build(words: gr.HTML) -> RecipeBox:
    """Lay it out, folded; its words stand above, where they are always seen."""
    fields = DatasetRecipe.model_fields
    with gr.Accordion(_("Layout and captions"), open=False, elem_id="dataset-recipe-box") as box:
        layout = _build_layout()
        template = gr.Textbox(
            label=label_of(fields["template"]),
            info=info_of(fields["template"]),
            placeholder="{baseColour} {articleType}, white background",
            elem_id="dataset-template",
            interactive=True,
        )
        preview = gr.HTML(elem_id="dataset-template-preview", padding=False)
        rest = _build_rest()
        apply = gr.Button(_("Apply to the dataset"), elem_id="dataset-apply-recipe", variant="primary")
        errors = error_box("dataset-recipe")
    made = {"box": box, "words": words, "template": template, "preview": preview, "apply": apply, "errors": errors}
    return RecipeBox(**made, **layout, **rest)


def _build_layout() -> dict[str, Any]:
    """Which layout, table, columns and rows."""
    fields = LayoutChoice.model_fields
    recognised = (_(RECOGNISED), RECOGNISED)
    layouts = [recognised, *((_(LAYOUT_TITLES[name]), name) for name in LAYOUT_NAMES)]
    with gr.Row(elem_classes="fields"):
        chosen: dict[str, Any] = {"layout": _dropdown("layout", layouts, RECOGNISED, fields["layout"])}
        for name in ("table", "image_column", "caption_column"):
            chosen[name] = _dropdown(name.replace("_", "-"), [recognised], RECOGNISED, fields[name])
    of_rows = RowChoice.model_fields
    with gr.Row(elem_classes="fields"):
        chosen["row_column"] = _dropdown(
            "row-column", [(_(NONE), NONE)], NONE, of_rows["column"], label=_("Only rows whose column")
        )
        chosen["row_values"] = gr.Dropdown(
            [],
            value=[],
            multiselect=True,
            label=_("… is one of"),
            info=info_of(of_rows["values"]),
            elem_id="dataset-row-values",
            interactive=True,
            allow_custom_value=True,
        )
    return chosen


def _build_rest() -> dict[str, Any]:
    """A caption for images without one, the background, the resolution."""
    fields = DatasetRecipe.model_fields

    def words(name: str) -> dict[str, Any]:
        elem_id = f"dataset-{name.replace('_', '-')}"
        field = fields[name]
        return {
            "label": label_of(field),
            "info": info_of(field),
            "elem_id": elem_id,
            "interactive": True,
        }

    with gr.Row(elem_classes="fields"):
        return {
            "default_caption": gr.Textbox(**words("default_caption")),
            "background": gr.ColorPicker(fields["background"].default, **words("background")),
            "resolution": gr.Number(fields["resolution"].default, **words("resolution")),
        }


def _dropdown(name: str, choices: list[tuple[str, str]], value: str, field: Any, *, label: str = "") -> gr.Dropdown:  # noqa: ANN401 - pydantic's FieldInfo
    return gr.Dropdown(
        choices,
        value=value,
        label=label or label_of(field),
        info=info_of(field),
        elem_id=f"dataset-{name}",
        allow_custom_value=True,
        interactive=True,
    )


def render(session: DatasetSession, view: SessionView) -> dict[str, Part]:
    """Which layout was recognised, and what was counted in it."""
    return {"dataset-layout-words": lambda: layout_words(session) if view.name else ""}


def layout_words(session: DatasetSession) -> Markup:
    """`Fashion products: 60 images, 60 captions, 60 pairs; left over: nothing.`"""
    dataset = session.opened
    reading = dataset.reading
    captions = sum(picture.caption is not None for picture in reading.pictures)
    others = Counter(skipped_file.problem.code for skipped_file in dataset.skipped_files)
    unused = ", ".join(with_number(_(code), num) for code, num in others.most_common())
    fits = [_(LAYOUT_TITLES[name]) for name in reading.recognised if name != reading.layout]
    sentences = [
        _(
            "{images}, {pairs} of image and caption, {num_without:,} without a caption.",
            images=counted(len(reading.pictures), "image", "images"),
            pairs=counted(captions, "pair", "pairs"),
            num_without=len(reading.pictures) - captions,
        ),
        _("Not used: {files}.", files=unused) if unused else _("Not used: nothing."),
    ]
    if fits:
        sentences.append(_("It could also be read as: {layouts}.", layouts="; ".join(fits)))
    sentences.append(_("Read from {folder}", folder=dataset.recipe.source))
    title = _(LAYOUT_TITLES[reading.layout])
    if reading.table:
        title = _("{layout} from {table}", layout=title, table=reading.table)
    return _template("layout", title=title, text=" ".join(sentences))


def fill(session: DatasetSession) -> dict[str, Any]:
    """The open dataset's recipe in the form, with the choices that it has, by the names of `RecipeBox.form`."""
    if not session.is_open:
        return {}
    recipe, reading = session.opened.recipe, session.opened.reading
    columns = [(name, name) for name in reading.columns]
    first = recipe.rows[0] if recipe.rows else None
    layout = recipe.layout
    tables = [(name, name) for name in reading.tables]
    recognised, values = (_(RECOGNISED), RECOGNISED), values_of(session, first.column if first else NONE)
    return {
        "layout": layout.layout or RECOGNISED,
        "table": gr.update(choices=[recognised, *tables], value=layout.table or RECOGNISED),
        "image_column": gr.update(choices=[recognised, *columns], value=layout.image_column or RECOGNISED),
        "caption_column": gr.update(choices=[recognised, *columns], value=layout.caption_column or RECOGNISED),
        "row_column": gr.update(choices=[(_(NONE), NONE), *columns], value=first.column if first else NONE),
        "row_values": gr.update(choices=values, value=list(first.values) if first else []),
        "template": recipe.template or "",
        "default_caption": recipe.default_caption,
        "background": recipe.background,
        "resolution": recipe.resolution,
    }


def values_of(session: DatasetSession, column: str) -> list[tuple[str, str]]:
    """The values of a column with how often each occurs, most first."""
    if not session.is_open or column not in session.opened.reading.columns:
        return []
    counts = Counter(picture.attributes.get(column, "") for picture in session.opened.reading.pictures)
    return [(with_number(value or _("empty"), num), value) for value, num in counts.most_common(MAX_VALUES)]


def read_recipe(session: DatasetSession, values: dict[str, Any]) -> DatasetRecipe:
    """The form as a recipe of the open dataset.

    Raises:
        SettingsError: where a value breaks its rule.
        DatasetError: where the template names a column that there is not.
    """
    chosen = {
        name: value
        for name in ("layout", "table", "image_column", "caption_column")
        if (value := values[name]) not in (None, "", RECOGNISED)
    }
    rows: tuple[dict[str, object], ...] = ()
    if values["row_column"] not in (None, "", NONE) and values["row_values"]:
        rows = ({"column": values["row_column"], "values": tuple(values["row_values"])},)
    template = str(values["template"] or "").strip() or None
    layout = parse_settings(LayoutChoice, chosen)
    if template and layout == session.opened.recipe.layout:  # another layout has other columns
        check_template(template, session.opened.columns)
    return parse_settings(
        DatasetRecipe,
        {
            "source": session.opened.recipe.source,
            "made_from": session.opened.recipe.made_from,
            "layout": layout,
            "rows": tuple(parse_settings(RowChoice, row) for row in rows),
            "template": template,
            "default_caption": str(values["default_caption"] or "").strip(),
            "background": _hex(str(values["background"])),
            "resolution": values["resolution"],
        },
    )


def preview_words(session: DatasetSession, read: Callable[[], DatasetRecipe]) -> Markup:
    """What a recipe would make of the first rows of the open dataset, or what is wrong with it."""
    if not session.is_open:
        return Markup()
    try:
        recipe = read()
        taken = take_rows(session.opened.reading.pictures, recipe)
        rows = [(picture.key, _previewed(session, picture, recipe)) for picture in taken[:PREVIEWED_ROWS]]
    except StudioError as error:
        return paragraph("bad", error)
    caption = _("{images}; the first captions", images=counted(len(taken), "image", "images"))
    return table((_("Image"), _("Caption")), rows, caption=caption)


def _previewed(session: DatasetSession, picture: SourcePicture, recipe: DatasetRecipe) -> str:
    if recipe.template and uses_template(picture, recipe):
        return fill_template(recipe.template, with_measured(picture.attributes, session.opened.facts_of(picture)))
    return picture.caption or recipe.default_caption


def _hex(colour: str) -> str:
    """The picker gives `rgba(255, 0, 0, 1)` where one has dragged in it."""
    if colour.startswith("rgb"):
        parts = colour.partition("(")[2].rstrip(")").split(",")[:3]
        return "#" + "".join(f"{min(255, max(0, round(float(part)))):02x}" for part in parts)
    return colour.lower()


def wire(
    box: RecipeBox,
    session: DatasetSession,
    selection: gr.HTML,
    *,
    version: gr.Textbox,
    subject: gr.JSON,
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect the form."""

    def preview(selection: str, **values: Any) -> str:  # noqa: ANN401 - the controls' values
        page = session.of(read_selection(selection).dataset)
        return preview_words(page, lambda: read_recipe(page, values))

    def apply(subject: object, filled: str, **values: Any) -> None:  # noqa: ANN401 - the controls' values
        with toasts():
            page = session.named(read_subject(subject).dataset)
            if filled != page.view.version.partition("-")[0]:
                raise DatasetError(_("The dataset was reopened meanwhile. Check this form again, then apply it."))
            page.change_recipe(read_recipe(page, values))

    def fill_new(selection: str, version: str, before: str) -> dict[Any, Any]:
        """Where another dataset, or the same in another way, was opened: the number before the dash says so."""
        opened = version.partition("-")[0]
        if opened == before:
            return NO_CHANGE
        page = session.of(read_selection(selection).dataset)
        shown = fill(page)
        if not shown:
            return NO_CHANGE
        # Sent with the form: a preview requested after it could overwrite the preview of what is typed meanwhile.
        words = preview_words(page, lambda: page.opened.recipe)
        return {**by_component(box.form, shown), box.preview: words, filled: opened}

    filled = gr.Textbox(visible=False)
    previewed = {"selection": selection, **box.form}
    version.change(fill_new, [selection, version, filled], [*box.form.values(), box.preview, filled], **QUIET)

    def show_values(selection: str, column: str) -> Any:  # noqa: ANN401 - gradio's update
        return gr.update(choices=values_of(session.of(read_selection(selection).dataset), column), value=[])

    box.row_column.input(show_values, [selection, box.row_column], box.row_values, **QUIET)
    # One event, so that no answer to an older value comes after that to a newer.
    changes = [control.change for control in (box.template, box.row_values, box.row_column)]
    gr.on(changes, preview, inputs_kwargs=previewed, outputs=box.preview, trigger_mode="always_last", **QUIET)
    pressed = {"subject": subject, "filled": filled, **box.form}
    errors = FieldErrors(box.errors, "dataset-recipe", box.form)
    follow_form("dataset-recipe", box.form)
    then_refresh(errors.press(box.apply.click, apply, inputs_kwargs=pressed, js=SAVED_WITH_SUBJECT, **QUIET))
