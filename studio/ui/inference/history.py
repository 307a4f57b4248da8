"""Past images: a strip below the large view; what can be done with an image; settings of a dropped one."""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup
from PIL import Image

from studio.core.errors import PictureFileError
from studio.core.files import move_to_trash, remove_uploads
from studio.core.language import N_, _, for_later
from studio.core.paths import UserData
from studio.core.records import Label, label_beside, label_or_none, write_label
from studio.core.results import ImageRecord
from studio.core.settings import ImagesSettings
from studio.core.text import counted, template
from studio.datasets.generation import scored, use_only
from studio.datasets.session import DatasetSession
from studio.engine.process.client import EngineClient
from studio.images.a1111 import PictureText
from studio.images.comparison import BASE
from studio.images.files import read_picture_text
from studio.images.gallery import History, HistoryPage, PastPicture, picture_name
from studio.loras.speed import lora_of_speed
from studio.ui.forms import NO_CHANGE, generation_values
from studio.ui.inference.generate import IMAGE_CLICKS, GenerateMode
from studio.ui.inference.generate_form import RANDOM_SEED_LIMIT, GenerateForm
from studio.ui.shell import item_actions
from studio.ui.shell.images import run_thumbnail_url
from studio.ui.shell.parts import QUIET, live_html, paragraph, toast, toasts, uploads_folder
from studio.ui.shell.selection import Selection, changed, read_selection, select
from studio.ui.training.destinations import lead_to, take_generation
from studio.ui.training.form import chosen_in

PER_PAGE = 24
NUM_VARIATIONS = 4
STARRED = "starred"
MAX_STARRED = 1000
TO_COMPARE = """() => document.querySelector('#modes button[role="tab"][data-tab-id="compare"]')?.click()"""
_template = template("ui/templates/inference.html")


@dataclass(frozen=True)
class PastImages:
    """Where past images are found, and their small copies."""

    history: History
    thumbnails: Path


@dataclass(frozen=True)
class HistoryPanel:
    """Its components, by what they are for."""

    strip: gr.HTML
    search: gr.Textbox
    label: item_actions.LabelBox
    trash: item_actions.TrashBox
    drop: gr.File
    dropped_words: gr.HTML


def build(canvas: gr.Column) -> HistoryPanel:
    """Lay the strip out at the end of the canvas, and below all where an image is dropped."""
    with canvas:
        label = item_actions.build_label("history", has_name=False, has_star=True)
        trash = item_actions.build("history")
        strip = live_html("generate-strip", js_on_load=IMAGE_CLICKS)
        search = gr.Textbox(
            label=_("Search past images"),
            placeholder=_("Search past images: prompt, note, LoRA, seed, ★"),
            max_lines=1,
            elem_id="history-search",
        )
    with gr.Accordion(_("Load settings from an image"), open=False, elem_id="drop-box"):
        drop = gr.File(
            label=_("Drop a PNG, JPEG or WebP"),
            file_types=[".png", ".jpg", ".jpeg", ".webp"],
            height=120,
            elem_id="drop-picture",
            interactive=True,
        )
        dropped_words = gr.HTML(elem_id="dropped-words", padding=False)
    return HistoryPanel(strip, search, label, trash, drop, dropped_words)


def strip_html(past: PastImages, selection: Selection) -> Markup:
    """One row of small images that scrolls sideways; above it how many there are, and the ways to the others."""
    page = past.history.look(selection.past_page, per_page=PER_PAGE, search=selection.past_search)
    return _template(
        "past_strip",
        words=page_words(page, selection.past_search),
        page=page,
        images=[(image, _thumbnail_url(image, past.thumbnails), past_words(image)) for image in page.pictures],
        shown=selection.past,
        num_starred=len(past.history.starred()),
    )


def shown_large(past: PastImages, selection: Selection) -> Path | None:
    """The past image that a page has chosen, where it is still there."""
    try:
        path = past.history.path_of(selection.past) if selection.past else None
    except PictureFileError:  # of another version of the page
        return None
    return path if path is not None and path.is_file() else None


def _thumbnail_url(image: PastPicture, folder: Path) -> str:
    """Of its small copy; "" where it has just gone."""
    try:
        return run_thumbnail_url(image.path, folder)
    except (OSError, Image.DecompressionBombError):
        return ""


def page_words(page: HistoryPage, search: str) -> Markup:
    """How many there are, and which files could not be read."""
    if page.num_pictures == 0 and search.strip():
        words = _("No image matches all of these words: {search}", search=search)
    elif page.num_pictures == 0:
        words = _("No images yet. Generated images are saved in outputs, by day.")
    else:
        words = counted(page.num_pictures, "past image", "past images")
    if not page.unreadable:
        return paragraph("quiet", words)
    num = len(page.unreadable)
    reasons = ", ".join(page.unreadable[:3]) + (", …" if num > 3 else "")
    unread = _("{num} could not be read: {reasons}", num=num, reasons=reasons)
    return paragraph("quiet", words) + paragraph("bad", unread)


def past_words(past: PastPicture) -> str:
    """What a small image is called: its note, else its prompt."""
    return (past.label.note.strip() or past.record.settings.prompt)[:200]


def taken_words(name: str, taken: PictureText) -> Markup:
    """What a dropped image brought, and what could not be taken over."""
    return _template("taken", name=name, source=taken.source, model=taken.model, skipped=taken.skipped)


def image_of(past: PastImages, event: gr.EventData) -> tuple[Path, ImageRecord]:
    """The image that a press is on, and what it was made with.

    Raises:
        PictureFileError: where it is none of ours, or gone.
    """
    path = _file_of(past, str(getattr(event, "image", "")))
    record = read_picture_text(path).record
    if record is None:
        raise PictureFileError(_("{name} was not made by LoRA Studio.", name=path.name))
    return path, record


def _file_of(past: PastImages, name: str) -> Path:
    path = past.history.path_of(name)
    if not path.is_file():
        raise PictureFileError(_("{name} is gone: it was moved or deleted.", name=path.name))
    return path


Presses = Callable[[str], Callable[..., Any]]
"""The event of a press of that name, on the strip and on the large view alike."""


def wire(
    panel: HistoryPanel,
    mode: GenerateMode,
    past: PastImages,
    user_data: UserData,
    engine: EngineClient,
    selection: gr.HTML,
    compare: Mapping[str, Any],
    *,
    datasets: DatasetSession,
    trained: Sequence[gr.Dropdown],
    then_refresh: Callable[[Any], Any],
) -> None:
    """Connect the strip, the images' buttons, and the drop."""

    def collect(event: gr.EventData) -> None:
        with toasts():
            path, record = image_of(past, event)
            opened = datasets.collect({path: record.settings.prompt})
        images = counted(len(opened.pictures), "image", "images")
        said = N_("{name} is in the dataset {dataset} now ({images}).")
        toast(_(said, name=path.name, dataset=opened.name, images=images))

    def train(sent: str) -> dict[Any, Any]:
        with toasts():
            records = {path: read_picture_text(path).record for path in past.history.starred()[:MAX_STARRED]}
            pictures = {path: record.settings.prompt for path, record in records.items() if record}
            opened = datasets.collect(pictures, STARRED)
            use_only(opened, {path.name for path in pictures})
            with for_later():
                made_by = _("your starred images")
            toast(take_generation(opened, user_data, made_by, scored(pictures)))
        shown = chosen_in(trained, opened.name, datasets.library)
        return {selection: changed(read_selection(sent), dataset=opened.name), **shown}

    def presses(name: str) -> Callable[..., Any]:
        events = [getattr(box, name) for box in (panel.strip, mode.pictures)]
        return lambda *given, **options: gr.on(events, *given, **options)

    def choose(selection: str, event: gr.EventData) -> str:
        chosen, image = read_selection(selection), str(getattr(event, "image", ""))
        return changed(chosen, past="" if chosen.past == image else image)

    def turn(selection: str, event: gr.EventData) -> str:
        page = getattr(event, "page", 1)
        return changed(read_selection(selection), past_page=max(1, page) if isinstance(page, int) else 1)

    then_refresh(presses("select")(choose, selection, selection, **QUIET))
    then_refresh(presses("option_select")(turn, selection, selection, **QUIET))
    for asked in (panel.search.submit, panel.search.blur):
        then_refresh(select(asked, selection, panel.search, change='past_search: values[0] ?? "", past_page: 1'))
    then_refresh(select(mode.run.click, selection, change='past: ""'))
    then_refresh(presses("upload")(collect, None, None, **QUIET))
    started = panel.strip.play(train, selection, [selection, *trained], **QUIET)
    then_refresh(started.success(fn=None, js=lead_to("Training"), queue=False, show_progress="hidden"))
    _wire_reuse(presses, past, mode.form, engine, selection, compare, then_refresh=then_refresh)
    _wire_kept_order(panel, presses, past, user_data, then_refresh=then_refresh)
    _wire_drop(panel, mode.form)


def _wire_reuse(
    presses: Presses,
    past: PastImages,
    form: GenerateForm,
    engine: EngineClient,
    selection: gr.HTML,
    compare: Mapping[str, Any],
    *,
    then_refresh: Callable[[Any], Any],
) -> None:
    """Connect what begins with an image: its settings in a form, or more of its kind."""

    def reuse(event: gr.EventData) -> dict[Any, Any]:
        with toasts():
            return form.filled_by(image_of(past, event)[1].settings)

    def reuse_seed(event: gr.EventData) -> dict[Any, Any]:
        with toasts():
            return form.with_seed(image_of(past, event)[1].settings.seed)

    def vary(selection: str, event: gr.EventData) -> str:
        with toasts():
            seed = secrets.randbelow(RANDOM_SEED_LIMIT)
            generation = image_of(past, event)[1].settings.model_copy(update={"seed": seed})
            engine.generate(ImagesSettings(generation=generation, num_images=NUM_VARIATIONS))
        return changed(read_selection(selection), past="")

    def to_compare(event: gr.EventData) -> dict[Any, Any]:
        with toasts():
            return compare_values(image_of(past, event)[1], compare)

    named = form.named
    presses("apply")(reuse, None, list(named.values()), **QUIET)
    presses("copy")(reuse_seed, None, [named["seed"], named["new_seed"]], **QUIET)
    then_refresh(presses("submit")(vary, selection, selection, **QUIET))
    sent = presses("expand")(to_compare, None, list(compare.values()), **QUIET)
    sent.success(js=TO_COMPARE, fn=None, queue=False, show_progress="hidden")


def compare_values(record: ImageRecord, compare: Mapping[str, Any]) -> dict[Any, Any]:
    """What an event returns so that Compare sets an image's LoRA against the base, with its prompt and settings."""
    settings = record.settings
    prompt = " ".join(settings.prompt.split())  # there a line is a prompt
    values = {**generation_values(settings), "prompts": prompt, "num_seeds": 1, "left": BASE}
    loras = [choice for choice in settings.loras if choice.name != lora_of_speed(str(values["speed"]))]
    if loras:
        values |= {"right": loras[0].name, "right_strength": loras[0].strength}
    if len(loras) > 1:
        name = loras[0].name
        toast(_("Compare has one LoRA a side: {name} is chosen, the image's others are not.", name=name))
    return {control: values[name] for name, control in compare.items() if name in values}


def _wire_kept_order(
    panel: HistoryPanel,
    presses: Presses,
    past: PastImages,
    user_data: UserData,
    *,
    then_refresh: Callable[[Any], Any],
) -> None:
    """Connect the star, the note and the trash."""

    def star(event: gr.EventData) -> None:
        with toasts():
            path = image_of(past, event)[0]
            label = label_or_none(label_beside(path))
            write_label(label_beside(path), label.model_copy(update={"starred": not label.starred}))

    def label_of(event: gr.EventData) -> item_actions.Labelled:
        path = image_of(past, event)[0]
        return item_actions.Labelled(picture_name(path), path.name, label_or_none(label_beside(path)))

    def save(name: str, written: item_actions.Written) -> str:
        image = _file_of(past, name)
        write_label(label_beside(image), Label.of(note=written.note, starred=written.starred))
        return ""

    def find(event: gr.EventData) -> item_actions.Question:
        path = image_of(past, event)[0]
        what = _("The image, the settings inside it and its note go.")
        return item_actions.Question(picture_name(path), path.name, what)

    def delete(name: str) -> str:
        image = _file_of(past, name)
        where = move_to_trash(image, without_trash=user_data.trash)
        if label_beside(image).is_file():
            move_to_trash(label_beside(image), without_trash=user_data.trash)
        return _("{name} is {where}.", name=image.name, where=where)

    then_refresh(presses("like")(star, None, None, **QUIET))
    then_refresh(item_actions.wire_label(panel.label, presses("edit"), None, find=label_of, save=save))
    then_refresh(item_actions.wire(panel.trash, presses("delete"), None, find=find, delete=delete))


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
