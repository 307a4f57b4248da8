"""The LoRA library, a mode of the Inference tab: a card for each file, and a place to drop new ones."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from studio.core.errors import StudioError
from studio.core.files import remove_uploads
from studio.core.language import N_, _, number
from studio.core.records import Label, label_or_none, write_label
from studio.core.results import LoraCard
from studio.core.text import counted, template
from studio.engine.hub import find_hub_file
from studio.engine.process.client import EngineClient
from studio.engine.process.messages import LoraChecked
from studio.engine.process.view import EngineView
from studio.loras.files import files_beside
from studio.loras.library import LoraLibrary, shipped_loras
from studio.ui.forms import NO_CHANGE
from studio.ui.shell import item_actions
from studio.ui.shell.parts import QUIET, Part, paragraph, uploads_folder
from studio.ui.shell.selection import Selection, select

_template = template("ui/templates/inference.html")

CARDS_PER_PAGE = 24
# For Stable Diffusion 1.5, of the authors of arXiv 2311.05556; its name in the library says what it is.
LCM_LORA, LCM_NAME = ("latent-consistency/lcm-lora-sdv1-5", "pytorch_lora_weights.safetensors"), "lcm-lora-sdv1-5"
# Gradio's HTML takes events of its own; the name of the LoRA goes with ours.
_CLICKS = """element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-name]");
  if (button) trigger(button.dataset.act, { name: button.dataset.name });
});"""


@dataclass(frozen=True)
class LoraPanel:
    """Its components, by what they are for."""

    drop: gr.File
    get_lcm: gr.Button
    words: gr.HTML
    search: gr.Textbox
    previous: gr.Button
    following: gr.Button
    check: gr.Button
    cards: gr.HTML
    label: item_actions.LabelBox
    trash: item_actions.TrashBox
    shown: dict[str, gr.components.Component]


def build() -> LoraPanel:
    """Lay the mode out."""
    with gr.Column(elem_id="lora-box"):
        drop = gr.File(
            label=_("Drop .safetensors files to add them"),
            file_count="multiple",
            height=120,
            elem_id="drop-lora",
            interactive=True,
        )
        get_lcm = gr.Button(_("Get LCM-LoRA (135 MB)"), size="sm", min_width=160, scale=0, elem_id="get-lcm")
        words = gr.HTML(elem_id="lora-words", padding=False)
        with gr.Row(visible=False, elem_id="lora-pages", elem_classes="compact") as pages:
            search = gr.Textbox(label=_("Search names and notes"), max_lines=1, elem_id="lora-search", scale=3)
            previous = gr.Button(_("Previous"), size="sm", min_width=90, scale=0, elem_id="lora-previous")
            following = gr.Button(_("Next"), size="sm", min_width=90, scale=0, elem_id="lora-next")
        label = item_actions.build_label("lora", names_file=True)  # above the cards, where it is seen
        trash = item_actions.build("lora")
        cards = gr.HTML(elem_id="lora-cards", padding=False, js_on_load=_CLICKS)
        check = gr.Button(_("Check all against the model"), elem_id="check-loras", interactive=False)
    shown = {
        "lora-pages": pages,
        "lora-search": search,
        "lora-previous": previous,
        "lora-next": following,
        "lora-cards": cards,
        "check-loras": check,
    }
    return LoraPanel(drop, get_lcm, words, search, previous, following, check, cards, label, trash, shown)


def render(view: EngineView, library: LoraLibrary, selection: Selection) -> dict[str, Part]:
    """What every shown part of the panel should be now; only the cards that are shown are read."""
    names, words = library.names(), selection.lora_search.casefold().split()
    notes = library.notes() if words else {}
    texts = {name: f"{name}\n{notes.get(name, '')}".casefold() for name in names} if words else {}
    found = [name for name in names if all(word in texts[name] for word in words)]
    num_pages = max(1, -(-len(found) // CARDS_PER_PAGE))
    page = min(max(selection.lora_page, 1), num_pages)

    def cards() -> str:
        shown = library.cards(found[(page - 1) * CARDS_PER_PAGE : page * CARDS_PER_PAGE])
        said = _("No LoRA has such a name or note.")
        if found:
            num_loras = counted(len(found), "LoRA", "LoRAs")
            said = _("{loras}, page {page} of {num_pages}", loras=num_loras, page=page, num_pages=num_pages)
        return _template(
            "lora_cards",
            said=said if len(names) > CARDS_PER_PAGE else "",
            cards=[
                (*_card(card, view.lora_checks.get(card.name)), item_actions.label_html(library.label_file(card.path)))
                for card in shown
            ],
        )

    return {
        "lora-pages": gr.update(visible=len(names) > CARDS_PER_PAGE),
        "lora-search": gr.update(value=selection.lora_search),
        "lora-previous": gr.update(interactive=page > 1),
        "lora-next": gr.update(interactive=page < num_pages),
        "lora-cards": cards,
        "check-loras": gr.update(interactive=view.phase == "ready"),
    }


def _card(card: LoraCard, checked: LoraChecked | None) -> tuple[LoraCard, bool, str, str, str, tuple[str, ...]]:
    """A file, whether it is the user's, what it is in short, what is wrong with it, what it changes, its notes."""
    facts = [
        _("rank {rank}", rank=card.rank) if card.rank else "",
        f"{number(card.size_bytes / 2**20, '.1f')} MB",
        _("for {base_model}", base_model=card.base_model) if card.base_model else "",
    ]
    problem = card.problem or (checked.problem if checked else "")
    notes = checked.notes if checked else card.notes
    own = not card.path.is_relative_to(shipped_loras())
    return card, own, " · ".join(filter(None, facts)), problem, checked.changes if checked else "", notes


def wire(
    panel: LoraPanel,
    engine: EngineClient,
    library: LoraLibrary,
    selection: gr.HTML,
    *,
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect the drop, the search, the pages and the check."""

    def add(files: list[str] | None) -> dict[Any, Any]:
        if not files:
            return NO_CHANGE
        return {panel.words: Markup().join(_added(Path(file)) for file in files), panel.drop: None}

    def _added(file: Path) -> Markup:
        try:
            card = library.add(file)
        except StudioError as error:
            return paragraph("bad", error, role="alert")
        finally:
            remove_uploads([file], uploads_folder())
        engine.check_lora(card.name)
        return paragraph("good", _("{name} was added to the library.", name=card.name), role="status")

    def check_all() -> None:
        for name in library.names():
            engine.check_lora(name)

    def get_lcm() -> Iterator[Markup]:
        yield paragraph("quiet", _("Downloading LCM-LoRA from Hugging Face …"), role="status")
        try:
            file = find_hub_file(*LCM_LORA)
            card = library.add(file, name=LCM_NAME)
        except StudioError as error:
            yield paragraph("bad", error, role="alert")
            return
        engine.check_lora(card.name)
        says = N_("{name} was added to the library: choose it as the speed in Generate, Compare or Batch.")
        yield paragraph("good", _(says, name=card.name), role="status")

    then_refresh(panel.drop.upload(add, panel.drop, [panel.words, panel.drop], **QUIET))
    then_refresh(panel.get_lcm.click(get_lcm, None, panel.words, **QUIET))

    _wire_kept_order(panel, engine, library, then_refresh=then_refresh)
    for asked in (panel.search.submit, panel.search.blur):
        then_refresh(select(asked, selection, panel.search, change='lora_search: values[0] ?? "", lora_page: 1'))
    then_refresh(select(panel.previous.click, selection, change="lora_page: Math.max(1, now.lora_page - 1)"))
    then_refresh(select(panel.following.click, selection, change="lora_page: now.lora_page + 1"))
    then_refresh(panel.check.click(check_all, **QUIET))


def _wire_kept_order(
    panel: LoraPanel, engine: EngineClient, library: LoraLibrary, *, then_refresh: Callable[[Any], None]
) -> None:
    """Connect the cards' buttons, each of which names its LoRA."""

    def label_of(event: gr.EventData) -> item_actions.Labelled:
        name = str(getattr(event, "name", ""))
        path = library.path_of(name)
        label = label_or_none(library.label_file(path)).model_copy(update={"name": path.stem})
        return item_actions.Labelled(name, name, label, can_be_named=library.is_own(path))

    def save(lora: str, written: item_actions.Written) -> str:
        label, path = Label.of(note=written.note), library.path_of(lora)
        renamed = library.rename(lora, written.name) if library.is_own(path) else lora
        write_label(library.label_file(library.path_of(renamed)), label)
        if renamed == lora:
            return ""
        engine.check_lora(renamed)
        return _(
            "{before} is called {name} now. Prompts and settings that name it must be changed.",
            before=lora,
            name=renamed,
        )

    def find(event: gr.EventData) -> item_actions.Question:
        name = str(getattr(event, "name", ""))
        beside = ", ".join(file.name for file in files_beside(library.path_of(name)))
        words = [_("What lies beside it goes too: {files}.", files=beside)] if beside else []
        return item_actions.Question(name, name, " ".join([*words, _("Images that were made with it stay.")]))

    def delete(name: str) -> str:
        return _("{name} is {where}.", name=name, where=library.delete(name))

    then_refresh(item_actions.wire_label(panel.label, panel.cards.edit, None, find=label_of, save=save))
    then_refresh(item_actions.wire(panel.trash, panel.cards.click, None, find=find, delete=delete))
