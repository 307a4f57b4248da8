"""Past images from disk, paged and searched; their settings, and those of a dropped image, used again."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import PictureFileError
from studio.core.files import move_to_trash, remove_uploads
from studio.core.paths import UserData
from studio.core.records import Label, label_beside, label_or_none, write_label
from studio.core.results import MadeImage
from studio.core.text import counted, template
from studio.engine.process.view import EngineView
from studio.images.a1111 import PictureText
from studio.images.files import read_picture_text
from studio.images.gallery import STAR, History, HistoryPage, PastPicture, thumbnail
from studio.ui.forms import NO_CHANGE
from studio.ui.inference.generate import GenerateForm
from studio.ui.shell import item_actions
from studio.ui.shell.images import card, picture_frame, record_line, record_rows
from studio.ui.shell.parts import QUIET, Update, paragraph, table, toasts, uploads_folder

PER_PAGE = 24
_template = template("ui/templates/inference.html")


@dataclass(frozen=True)
class HistoryPanel:
    """Its components, by what they are for."""

    drop: gr.File
    dropped_words: gr.HTML
    box: gr.Accordion
    opened: gr.State
    newest: gr.Textbox
    search: gr.Textbox
    page: gr.Number
    refresh: gr.Button
    newer: gr.Button
    older: gr.Button
    words: gr.HTML
    gallery: gr.Gallery
    shown_page: gr.JSON
    selected: gr.Textbox
    detail: gr.HTML
    acts: gr.Row
    use: gr.Button
    rename: gr.Button
    label: item_actions.LabelBox
    delete: gr.Button
    trash: item_actions.TrashBox

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """What a refresh keeps true."""
        return {"history-newest": self.newest}


def _build_drop() -> tuple[gr.File, gr.HTML]:
    """(where an image is dropped, what was taken from it)."""
    with gr.Accordion("Load settings from an image", open=False, elem_id="drop-box"):
        drop = gr.File(
            label="Drop a PNG, JPEG or WebP",
            file_types=[".png", ".jpg", ".jpeg", ".webp"],
            height=120,
            elem_id="drop-picture",
            interactive=True,
        )
        return drop, gr.HTML(elem_id="dropped-words", padding=False)


def build() -> HistoryPanel:
    """Lay the panel out, below the form and its images."""
    drop, dropped_words = _build_drop()
    newest = gr.Textbox(visible="hidden", elem_id="history-newest", label="Newest image")
    with gr.Accordion("Past images", open=False, elem_id="history-box") as box:
        with gr.Row(elem_classes="toolbar"):
            search = gr.Textbox(
                label="Search", placeholder="prompt words, note, model, LoRA, seed or ★", elem_id="history-search"
            )
            refresh = gr.Button("Refresh", elem_id="history-refresh", min_width=96)
            newer = gr.Button("‹ Newer", elem_id="history-newer", min_width=96, interactive=False)
            older = gr.Button("Older ›", elem_id="history-older", min_width=96, interactive=False)
        page = gr.Number(1, visible=False, precision=0)
        opened = gr.State(False)
        words = gr.HTML(elem_id="history-words", padding=False)
        gallery = gr.Gallery(
            columns=8,
            height="auto",
            allow_preview=False,
            object_fit="cover",
            label="Past images",
            show_label=False,
            elem_id="history-gallery",
            interactive=False,
            buttons=[],
        )
        shown_page = gr.JSON(visible=False)
        selected = gr.Textbox(visible=False)
        detail = gr.HTML(elem_id="history-detail", padding=False)
        with gr.Row(visible=False, elem_classes="compact") as acts:
            use = gr.Button("Reuse these settings", elem_id="use-settings")
            rename = gr.Button("Note…", elem_id="history-note", min_width=96, scale=0)
            delete = gr.Button("Delete…", elem_id="history-delete", min_width=96, scale=0)
        label = item_actions.build_label("history", has_name=False, has_star=True)
        trash = item_actions.build("history")
    return HistoryPanel(
        drop=drop,
        dropped_words=dropped_words,
        box=box,
        opened=opened,
        newest=newest,
        search=search,
        page=page,
        refresh=refresh,
        newer=newer,
        older=older,
        words=words,
        gallery=gallery,
        shown_page=shown_page,
        selected=selected,
        detail=detail,
        acts=acts,
        use=use,
        rename=rename,
        label=label,
        delete=delete,
        trash=trash,
    )


def render(view: EngineView) -> dict[str, Update]:
    """The newest image's file once a run is over: where it changes, an open history shows its page anew."""
    images = view.images.images if view.images and view.images.finished else ()
    paths = [str(image.path) for image in images if isinstance(image, MadeImage)]
    return {"history-newest": gr.update(value=paths[-1] if paths else "")}


def page_words(page: HistoryPage, search: str) -> Markup:
    """How many there are, which page this is, and which files could not be read."""
    if page.num_pictures == 0 and search.strip():
        words = f"No image matches all of these words: {search}"
    elif page.num_pictures == 0:
        words = "No images yet. Generated images are saved in outputs, by day."
    else:
        number = f"page {page.number} of {page.num_pages}"
        words = f"{counted(page.num_pictures, 'image')}, {number}. Click one to enlarge it."
    if not page.unreadable:
        return paragraph("quiet", words)
    names = ", ".join(page.unreadable[:3]) + (", …" if len(page.unreadable) > 3 else "")
    return paragraph("quiet", words) + paragraph("bad", f"{len(page.unreadable)} could not be read: {names}")


def past_words(past: PastPicture) -> str:
    """What stands below a small image: a star, and its note, else its prompt."""
    words = past.label.note.strip() or past.record.settings.prompt
    return f"{STAR} " * past.label.starred + words[:60]


def picture_detail(path: Path) -> Markup:
    """A past image, large, with all that it was made with.

    Raises:
        PictureFileError: where it cannot be read.
    """
    record = read_picture_text(path).record
    if record is None:
        raise PictureFileError(f"{path.name} was not made by LoRA Studio.")
    rows = table(("Item", "Value"), record_rows(record), caption=record.settings.prompt)
    frame = picture_frame(path, name="past image", alt=record.settings.prompt)
    noted = item_actions.label_html(label_beside(path))
    return _template("picture_detail", figure=card(frame, record_line(record, path)), label=noted, rows=rows)


def taken_words(name: str, taken: PictureText) -> Markup:
    """What a dropped image brought, and what could not be taken over."""
    return _template("taken", name=name, source=taken.source, model=taken.model, skipped=taken.skipped)


def wire(panel: HistoryPanel, user_data: UserData, *, form: GenerateForm) -> None:
    """Connect search and pages, the chosen image, and the drop."""
    _wire_chosen(panel, user_data, form, show=_wire_pages(panel, user_data))
    _wire_drop(panel, form)


def _wire_pages(panel: HistoryPanel, user_data: UserData) -> Callable[[Any], Any]:
    """Connect search and pages; what shows the page anew after an event."""
    history = History(user_data.outputs)

    def show(number: float, search: str) -> dict[Any, Any]:
        with toasts():
            page = history.page(max(1, int(number or 1)), per_page=PER_PAGE, search=search or "")
            thumbnails = [
                (str(thumbnail(past.path, cache=user_data.cache / "thumbnails")), past_words(past))
                for past in page.pictures
            ]
        return {
            panel.page: page.number,
            panel.words: page_words(page, search or ""),
            panel.gallery: gr.update(value=thumbnails, selected_index=None),
            panel.shown_page: [str(past.path) for past in page.pictures],
            panel.newer: gr.update(interactive=page.number > 1),
            panel.older: gr.update(interactive=page.number < page.num_pages),
        }

    def show_if_open(opened: bool, number: float, search: str) -> dict[Any, Any]:
        return show(number, search) if opened else NO_CHANGE

    asked = [panel.page, panel.search]
    shown = [panel.page, panel.words, panel.gallery, panel.shown_page, panel.newer, panel.older]
    panel.box.expand(show, asked, shown, **QUIET)
    panel.box.expand(lambda: True, None, panel.opened, **QUIET)
    panel.box.collapse(lambda: False, None, panel.opened, **QUIET)
    panel.newest.change(show_if_open, [panel.opened, *asked], shown, **QUIET)
    panel.refresh.click(show, asked, shown, **QUIET)
    panel.search.submit(lambda search: show(1, search), panel.search, shown, **QUIET)
    panel.newer.click(lambda number, search: show(number - 1, search), asked, shown, **QUIET)
    panel.older.click(lambda number, search: show(number + 1, search), asked, shown, **QUIET)
    return lambda event: event(show, asked, shown, **QUIET)


def _wire_chosen(panel: HistoryPanel, user_data: UserData, form: GenerateForm, *, show: Callable[[Any], Any]) -> None:
    """Connect the gallery, and what can be done with the image that was chosen in it."""

    def select(paths: list[str] | None, event: gr.SelectData) -> dict[Any, Any]:
        index = event.index if isinstance(event.index, int) else -1
        if not paths or not 0 <= index < len(paths):
            return NO_CHANGE
        with toasts():
            path = _own_path(user_data, paths[index])
            return {panel.selected: str(path), panel.detail: picture_detail(path), panel.acts: gr.update(visible=True)}

    def use_selected(selected: str) -> dict[Any, Any]:
        with toasts():
            return form.filled_by(read_picture_text(_own_path(user_data, selected)).settings)

    def find(selected: str) -> item_actions.Question:
        path = _own_path(user_data, selected)
        return item_actions.Question(str(path), path.name, "The image, the settings inside it and its note go.")

    def delete(path: str) -> str:
        image = _own_path(user_data, path)
        where = move_to_trash(image, without_trash=user_data.trash)
        if label_beside(image).is_file():
            move_to_trash(label_beside(image), without_trash=user_data.trash)
        return f"{image.name} is {where}."

    def label_of(selected: str) -> item_actions.Labelled:
        path = _own_path(user_data, selected)
        return item_actions.Labelled(str(path), path.name, label_or_none(label_beside(path)))

    def save(path: str, written: item_actions.Written) -> str:
        image = _own_path(user_data, path)
        if not image.is_file():
            raise PictureFileError(f"{image.name} is gone: it was moved or deleted.")
        write_label(label_beside(image), Label.of(note=written.note, starred=written.starred))
        return ""

    def show_again(selected: str) -> str:
        with toasts():
            return picture_detail(_own_path(user_data, selected))

    def close() -> dict[Any, Any]:
        return {panel.detail: "", panel.acts: gr.update(visible=False)}

    chosen = [panel.selected, panel.detail, panel.acts]
    panel.gallery.select(select, panel.shown_page, chosen, **QUIET)
    panel.use.click(use_selected, panel.selected, list(form.named.values()), **QUIET)
    noted = item_actions.wire_label(panel.label, panel.rename.click, panel.selected, find=label_of, save=save)
    noted.success(show_again, panel.selected, panel.detail, **QUIET)
    show(noted.success)
    deleted = item_actions.wire(panel.trash, panel.delete.click, panel.selected, find=find, delete=delete)
    deleted.success(close, None, [panel.detail, panel.acts], **QUIET)
    show(deleted.success)


def _wire_drop(panel: HistoryPanel, form: GenerateForm) -> None:
    """Connect the place for an image whose settings are used again."""

    def use_dropped(file: str | None) -> dict[Any, Any]:
        if file is None:
            return NO_CHANGE
        with toasts():
            try:
                taken = read_picture_text(Path(file))
            except PictureFileError as error:
                return {panel.dropped_words: paragraph("bad", error), panel.drop: None}
            finally:
                remove_uploads([Path(file)], uploads_folder())
            words = taken_words(Path(file).name, taken)
            return {**form.filled_by(taken.settings), panel.dropped_words: words, panel.drop: None}

    filled = [*form.named.values(), panel.dropped_words, panel.drop]
    panel.drop.upload(use_dropped, panel.drop, filled, **QUIET)


def _own_path(user_data: UserData, path: str) -> Path:
    """A path that came from the page: only images of ours are read back.

    Raises:
        PictureFileError: for any other.
    """
    resolved = Path(path).resolve()
    if not resolved.is_relative_to(user_data.outputs.resolve()) or resolved.suffix != ".png":
        raise PictureFileError("That is not one of the studio's images.")
    return resolved
