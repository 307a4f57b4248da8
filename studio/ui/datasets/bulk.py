"""Edit captions in bulk: one change for all images that the filter shows, with a preview; and a table to type in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import DatasetError, StudioError
from studio.core.language import _
from studio.core.settings import parse_settings
from studio.core.text import counted
from studio.datasets.bulk import BulkChange, change_caption, changed_captions, describe
from studio.datasets.session import DatasetSession
from studio.ui.datasets.browser import info_of, label_of, read_query
from studio.ui.datasets.detail import SAVED_WITH_SUBJECT, read_subject
from studio.ui.shell.parts import QUIET, paragraph, table, toasts
from studio.ui.shell.selection import FieldErrors, error_box

PREVIEWED = 20
NO_TABLE: tuple[str, Mapping[str, str]] = ("", {})
FIELDS = BulkChange.model_fields


@dataclass(frozen=True)
class BulkPanel:
    """Its components, by what they are for."""

    change: dict[str, gr.components.Component]
    preview: gr.Button
    apply: gr.Button
    errors: gr.HTML
    words: gr.HTML
    load: gr.Button
    table: gr.Dataframe
    table_of: gr.State
    save: gr.Button


def build() -> BulkPanel:
    """Lay it out, folded."""
    with gr.Accordion(_("Edit captions in bulk"), open=False, elem_id="dataset-bulk-box"):
        gr.HTML(paragraph("quiet", _("Applies to every image that matches the search and filters, on all pages.")))
        change: dict[str, gr.components.Component] = {}
        for names in (("find", "replace"), ("prefix", "suffix")):
            with gr.Row(elem_classes="fields"):
                for name in names:
                    change[name] = gr.Textbox(
                        label=label_of(FIELDS[name]),
                        info=info_of(FIELDS[name]),
                        elem_id=f"dataset-bulk-{name}",
                        interactive=True,
                    )
        with gr.Row(elem_classes="fields"):
            for name in ("match_case", "whole_words", "remove_repeats"):
                change[name] = gr.Checkbox(
                    FIELDS[name].default,
                    label=label_of(FIELDS[name]),
                    info=info_of(FIELDS[name]),
                    elem_id=f"dataset-bulk-{name.replace('_', '-')}",
                    interactive=True,
                )
        with gr.Row(elem_classes="actions"):
            preview = gr.Button(_("Preview"), elem_id="dataset-bulk-preview")
            apply = gr.Button(_("Change the captions"), elem_id="dataset-bulk-apply", variant="primary")
        errors = error_box("dataset-bulk")
        words = gr.HTML(elem_id="dataset-bulk-words", padding=False)
        with gr.Row(elem_classes="actions"):
            load = gr.Button(_("Show this page's captions as a table"), elem_id="dataset-bulk-load")
            save = gr.Button(_("Save the table"), elem_id="dataset-bulk-save", interactive=False)
        grid = gr.Dataframe(
            headers=[_("Image"), _("Caption")],
            datatype=["str", "str"],
            type="array",
            column_count=2,
            static_columns=[0],
            wrap=True,
            show_label=False,
            visible=False,
            interactive=True,
            max_height=480,
            elem_id="dataset-bulk-table",
        )
    return BulkPanel(change, preview, apply, errors, words, load, grid, gr.State(NO_TABLE), save)


def preview_words(session: DatasetSession, asked: BulkChange, values: dict[str, Any]) -> Markup:
    """What the change would do: how many captions, and the first of them before and after."""
    try:
        rows = session.opened.found(read_query(values))
        changed = changed_captions(rows, lambda caption: change_caption(caption, asked))
    except StudioError as error:
        return paragraph("bad", error)
    captions = counted(len(rows), "caption", "captions")
    if not changed:
        return paragraph("quiet", _("None of {captions} would change.", captions=captions))
    shown = [(row.key, row.caption, changed[row.key]) for row in rows if row.key in changed][:PREVIEWED]
    caption = _("{num_changed:,} of {captions} would change.", num_changed=len(changed), captions=captions)
    if len(changed) > PREVIEWED:
        first = _("The first {num_shown}:", num_shown=PREVIEWED)
        caption = f"{caption} {first}"
    return table((_("Image"), _("Before"), _("After")), shown, caption=caption)


def apply_change(session: DatasetSession, asked: BulkChange, values: dict[str, Any]) -> int:
    """Change the captions, undone as one; how many.

    Raises:
        DatasetError: where none would change, or one is not whole yet.
    """
    rows = session.opened.found(read_query(values))
    changed = changed_captions(rows, lambda caption: change_caption(caption, asked))
    if not changed:
        raise DatasetError(_("No caption would change, so nothing was done."))
    return session.opened.set_captions(changed, what=describe(asked, len(changed)))


def _read_change(values: dict[str, Any]) -> BulkChange:
    return parse_settings(BulkChange, {name: values[name] for name in FIELDS if name in values})


def read_table(cells: object) -> dict[str, str]:
    """The captions of the table, by the images' keys.

    Raises:
        DatasetError: where it is no table of images and captions.
    """
    if not isinstance(cells, list) or not all(isinstance(row, list) and len(row) == 2 for row in cells):
        raise DatasetError(_("The table must have two columns, image and caption. Show it again."))
    return {str(key): "" if caption is None else str(caption) for key, caption in cells if key}


def save_table(session: DatasetSession, typed: Mapping[str, str], shown: Mapping[str, str]) -> int:
    """Take over the captions that were typed into the table, undone as one; how many changed.

    Args:
        shown: the captions as the table showed them: what was not touched stays as it is by now.

    Raises:
        DatasetError: where an image is not there, or a text is no caption; nothing is changed then.
    """
    captions = {key: caption for key, caption in typed.items() if caption != shown.get(key)}
    what = _("the table of {captions}", captions=counted(len(captions), "caption", "captions"))
    return session.opened.set_captions(captions, what=what)


def wire(
    panel: BulkPanel,
    session: DatasetSession,
    *,
    query: dict[str, Any],
    subject: gr.JSON,
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect the buttons."""

    def preview(subject: object, **values: Any) -> str:  # noqa: ANN401 - the controls' values
        with toasts():
            asked = _read_change(values)
            return preview_words(session.named(read_subject(subject).dataset), asked, values)

    def apply(subject: object, **values: Any) -> str:  # noqa: ANN401
        with toasts():
            asked = _read_change(values)
            num_changed = apply_change(session.named(read_subject(subject).dataset), asked, values)
        captions = counted(num_changed, "caption", "captions")
        return paragraph("good", _("{captions} changed. Undo, beside the image, takes it back.", captions=captions))

    def show_table(subject: object, **values: Any) -> dict[Any, Any]:  # noqa: ANN401
        with toasts():
            opened = session.named(read_subject(subject).dataset).opened
            rows = opened.page(read_query(values)).rows
        captions = {row.key: row.caption for row in rows}
        return {
            panel.table: gr.update(value=[list(cell) for cell in captions.items()], visible=True),
            panel.table_of: (opened.name, captions),
            panel.save: gr.update(interactive=True),
        }

    def save(cells: object, table_of: tuple[str, Mapping[str, str]]) -> dict[Any, Any]:
        name, shown = table_of
        with toasts():
            typed = read_table(cells)
            num_changed = save_table(session.named(name), typed, shown)
        captions = counted(num_changed, "caption", "captions")
        words = paragraph("good", _("{captions} of the table changed.", captions=captions))
        return {panel.words: words, panel.table_of: (name, typed)}

    def clear() -> dict[Any, Any]:
        return {
            panel.words: "",
            panel.table: gr.update(value=[], visible=False),
            panel.table_of: NO_TABLE,
            panel.save: gr.update(interactive=False),
        }

    pressed = {"subject": subject, **query, **panel.change}
    looked_at = {"subject": subject, **query}
    shown = [panel.table, panel.table_of, panel.save]
    query["of"].change(clear, None, [panel.words, *shown], **QUIET)
    errors = FieldErrors(panel.errors, "dataset", panel.change)
    said: dict[str, Any] = {"outputs": [panel.words], "js": SAVED_WITH_SUBJECT, **QUIET}
    errors.press(panel.preview.click, preview, inputs_kwargs=pressed, **said)
    then_refresh(errors.press(panel.apply.click, apply, inputs_kwargs=pressed, **said))
    panel.load.click(show_table, inputs_kwargs=looked_at, outputs=shown, js=SAVED_WITH_SUBJECT, **QUIET)
    then_refresh(panel.save.click(save, [panel.table, panel.table_of], [panel.words, panel.table_of], **QUIET))
