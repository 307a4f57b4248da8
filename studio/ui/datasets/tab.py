"""The Dataset tab: a source, a grid, one image; below them captions, statistics, doctor, export."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.language import N_, _
from studio.datasets.session import DatasetSession, SessionView
from studio.ui.datasets import browser as dataset_browser
from studio.ui.datasets import bulk as dataset_bulk
from studio.ui.datasets import captioning as dataset_captioning
from studio.ui.datasets import detail as dataset_detail
from studio.ui.datasets import export as dataset_export
from studio.ui.datasets import grounds as dataset_grounds
from studio.ui.datasets import recipe as dataset_recipe_box
from studio.ui.datasets import selected as dataset_selected
from studio.ui.datasets import source as dataset_source
from studio.ui.datasets import statistics as dataset_statistics
from studio.ui.datasets.browser import changed_facets, read_query, render_for
from studio.ui.datasets.detail import SAVED_WITH_SUBJECT, WITH_SUBJECT, Subject, find_row, read_subject, render_row
from studio.ui.datasets.html import summary
from studio.ui.forms import by_component
from studio.ui.shell.parts import QUIET, Group, paragraph, toast, toasts
from studio.ui.shell.selection import read_selection


@dataclass(frozen=True)
class DatasetTab:
    """The tab's parts."""

    source: dataset_source.SourceBox
    summary: gr.HTML
    version: gr.Textbox
    canvas: gr.Column
    browser: dataset_browser.Browser
    selected: gr.HTML
    detail: dataset_detail.Detail
    recipe: dataset_recipe_box.RecipeBox
    captioning: dataset_captioning.CaptioningBox
    grounds: dataset_grounds.GroundsBox
    bulk: dataset_bulk.BulkPanel
    statistics: dataset_statistics.StatisticsPanels
    export: dataset_export.ExportBox

    @property
    def shown(self) -> dict[str, gr.components.Component]:
        """Every part that a refresh keeps true, by its name."""
        return {
            **self.source.shown,
            **self.recipe.shown,
            "dataset-summary": self.summary,
            "dataset-version": self.version,
            "dataset-canvas": self.canvas,
        }

    @property
    def form(self) -> dict[str, gr.components.Component]:
        """What the browser keeps of the tab; all else belongs to one dataset."""
        asked = {f"captioning_{name}": control for name, control in self.captioning.form.items()}
        asked |= {f"grounds_{name}": control for name, control in self.grounds.form.items()}
        return {"path": self.source.path, **asked, **self.bulk.change, "format": self.export.format}


def build() -> DatasetTab:
    """Lay the tab out."""
    source = dataset_source.build()
    with gr.Row(elem_classes="dataset-line"):
        summary_line = gr.HTML(elem_id="dataset-summary", padding=False)
        layout_words = gr.HTML(elem_id="dataset-layout-words", padding=False)
    version = gr.Textbox(visible="hidden", elem_id="dataset-version", label=_("Version"))
    with gr.Column(visible=False, elem_id="dataset-canvas") as canvas:
        filters = dataset_browser.build_filters()
        with gr.Row(elem_classes="dataset-panes"):
            with gr.Column(elem_classes="dataset-pictures"):
                browser = dataset_browser.Browser(**filters, grid=dataset_browser.build_grid())
                selected = dataset_selected.build()
            with gr.Column(elem_classes="dataset-detail", min_width=320):
                export = dataset_export.build()
                detail = dataset_detail.build()
        recipe = dataset_recipe_box.build(layout_words)
        captioning = dataset_captioning.build()
        grounds = dataset_grounds.build()
        bulk = dataset_bulk.build()
        statistics = dataset_statistics.build()
    shown = (source, summary_line, version, canvas, browser, selected, detail, recipe)
    return DatasetTab(*shown, captioning, grounds, bulk, statistics, export)


def render(session: DatasetSession, view: SessionView, captions: dataset_captioning.CaptionJobs) -> dict[str, Group]:
    """What makes every shown part of the tab as it should be now."""
    return {
        N_("The list of datasets"): lambda: dataset_source.render(session, view),
        N_("The dataset"): lambda: {
            **dataset_recipe_box.render(session, view),
            "dataset-summary": lambda: _summary(session, view),
            "dataset-version": gr.update(value=view.version),
            "dataset-canvas": gr.update(visible=bool(view.name)),
        },
        N_("Captions by a model"): lambda: dataset_captioning.render(session, view, captions),
        N_("Backgrounds and masks"): lambda: dataset_grounds.render(session, view),
    }


def _summary(session: DatasetSession, view: SessionView) -> str:
    if view.name:
        return summary(session, view)
    if view.opening:
        return paragraph("quiet", _("{name} is being opened.", name=view.opening), role="status")
    return paragraph(
        "quiet",
        _(
            "No dataset is open. Drop a folder of images, type its path, or start with the demo shoes: 60 drawn images "
            "with a table of their colours and kinds."
        ),
    )


def wire(
    tab: DatasetTab,
    session: DatasetSession,
    selection: gr.HTML,
    *,
    captions: dataset_captioning.CaptionJobs,
    cpu_only: bool,
    then_refresh: Callable[[Any], None],
) -> None:
    """Connect the tab's parts. What is shown is of the page's selection; a press is about what its page shows."""
    version, subject, query = tab.version, tab.detail.subject, tab.browser.query
    shared: dict[str, Any] = {"subject": subject, "then_refresh": then_refresh}
    dataset_source.wire(tab.source, session, selection, then_refresh=then_refresh)
    dataset_recipe_box.wire(tab.recipe, session, selection, version=version, **shared)
    dataset_captioning.wire(tab.captioning, session, captions, cpu_only=cpu_only, **shared)
    dataset_grounds.wire(tab.grounds, session, query=query, **shared)
    dataset_bulk.wire(tab.bulk, session, query=query, **shared)
    dataset_statistics.wire(tab.statistics, session, selection, version=version, **shared)
    dataset_export.wire(tab.export, session, of=tab.browser.of, **shared)
    dataset_selected.wire(tab.selected, session, then_refresh=then_refresh)
    _wire_grid(tab, session, selection)
    _wire_bars(tab, session, selection)
    _wire_detail(tab, session, then_refresh=then_refresh)


# Clicks come faster than answers: each is taken, one after the other.
ORDERED: dict[str, Any] = {
    **QUIET,
    "trigger_mode": "multiple",
    "concurrency_limit": 1,
    "concurrency_id": "dataset",
}


def _wire_grid(tab: DatasetTab, session: DatasetSession, selection: gr.HTML) -> None:
    """Connect search, filters, pages and images; all is drawn again when the dataset changed, or another is shown."""
    browser, detail = tab.browser, tab.detail

    def show_all(selection: str, subject: object, shown_file: str, **values: Any) -> dict[Any, Any]:  # noqa: ANN401
        page = session.of(read_selection(selection).dataset)
        row = _row(tab, page, read_subject(subject), shown_file=shown_file)
        return {**_page(tab, page, values), **row}

    def turn(step: int) -> Callable[..., dict[Any, Any]]:
        def go(selection: str, **values: Any) -> dict[Any, Any]:  # noqa: ANN401
            number = max(1, int(values["page"] or 1) + step)
            return _page(tab, session.of(read_selection(selection).dataset), {**values, "page": number})

        return go

    def select(subject: object, shown_file: str, **values: Any) -> dict[Any, Any]:  # noqa: ANN401
        page: dict[Any, Any] = {}
        with toasts():
            asked = read_subject(subject)
            shown = session.named(asked.dataset)
            if asked.beyond and find_row(shown, asked):
                query = read_query(values)
                page = _page(tab, shown, {**values, "page": shown.opened.page_with(query, asked.key)})
            return {**page, **_row(tab, shown, asked, shown_file=shown_file)}

    queried = {"selection": selection, **browser.query}
    asked = {"subject": detail.subject, "shown_file": detail.shown_file, **browser.query}
    grid = list(browser.rendered.values())
    both = [*grid, *detail.rendered.values()]
    all_asked = {**asked, "selection": selection}  # the subject first: it is the page's script that says it
    tab.version.change(show_all, inputs_kwargs=all_asked, outputs=both, js=WITH_SUBJECT, **ORDERED)
    # Of images gone through fast only the last is rendered: the script sees which one an answer is about.
    latest = {**ORDERED, "trigger_mode": "always_last"}
    detail.caption.select(select, inputs_kwargs=asked, outputs=both, js=WITH_SUBJECT, **latest)
    filters = (browser.problem, browser.bucket, browser.column, browser.value, browser.sort)
    for event in (browser.search.submit, *(control.input for control in filters)):
        event(_show_first(tab, session), inputs_kwargs=queried, outputs=grid, **ORDERED)
    browser.previous.click(turn(-1), inputs_kwargs=queried, outputs=grid, **ORDERED)
    browser.following.click(turn(1), inputs_kwargs=queried, outputs=grid, **ORDERED)


def _show_first(tab: DatasetTab, session: DatasetSession) -> Callable[..., dict[Any, Any]]:
    """What shows the first page of what the controls ask for."""

    def show_first(selection: str, **values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the controls' values
        return _page(tab, session.of(read_selection(selection).dataset), {**values, "page": 1})

    return show_first


def _wire_bars(tab: DatasetTab, session: DatasetSession, selection: gr.HTML) -> None:
    """Connect the bars of the statistics with the grid, and the chips that stand for those that were pressed."""
    browser = tab.browser

    def press(facets: str, event: gr.EventData) -> str:
        return changed_facets(facets, pressed=str(getattr(event, "facet", "")))

    def drop(facets: str, event: gr.EventData) -> str:
        return changed_facets(facets, dropped=str(getattr(event, "drop", "")))

    queried = {"selection": selection, **browser.query}
    for event, act in ((tab.statistics.statistics.click, press), (browser.chips.click, drop)):
        changed = event(act, browser.facets, browser.facets, **ORDERED)
        shown = {"inputs_kwargs": queried, "outputs": list(browser.rendered.values())}
        changed.then(_show_first(tab, session), **shown, **ORDERED)


def _wire_detail(tab: DatasetTab, session: DatasetSession, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the saving of captions and the buttons of the chosen image."""
    browser, detail = tab.browser, tab.detail

    def doing(act: Callable[[DatasetSession, Subject], object]) -> Callable[..., dict[Any, Any]]:
        def do(subject: object, shown_file: str, **values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the controls' values
            asked = read_subject(subject)
            with toasts():
                page = session.named(asked.dataset)
                act(page, asked)
            return {**_page(tab, page, values), **_row(tab, page, asked, shown_file=shown_file)}

        return do

    def move_crop(event: gr.EventData) -> Any:  # noqa: ANN401 - gradio's update
        with toasts():
            moved = dataset_detail.move_crop(session, event)
        return True if moved else gr.skip()  # an export has the crops that were moved

    crops = detail.picture.click(move_crop, None, tab.export.cropped, trigger_mode="multiple", **QUIET)
    then_refresh(crops)
    gr.api(dataset_detail.saver(session), api_name="save_captions", queue=False, api_visibility="private")
    pressed = {"subject": detail.subject, "shown_file": detail.shown_file, **browser.query}
    both = [*browser.rendered.values(), *detail.rendered.values()]
    for button, act in _acts(detail).items():
        then_refresh(button.click(doing(act), inputs_kwargs=pressed, outputs=both, js=SAVED_WITH_SUBJECT, **ORDERED))


def _acts(detail: dataset_detail.Detail) -> dict[gr.Button, Callable[[DatasetSession, Subject], object]]:
    """What each button does to the selected images, else to the one that the page shows, or to the dataset."""

    def toggle(page: DatasetSession, asked: Subject) -> None:
        said = (asked.key,) if asked.key in asked.keys else asked.keys  # the button says it of the image that is shown
        excluded = all(page.opened.row(key).excluded for key in said)
        dataset_selected.report(page.opened, page.opened.set_excluded(asked.keys, not excluded))

    def reset(page: DatasetSession, asked: Subject) -> None:
        dataset_selected.report(page.opened, page.opened.reset_captions(asked.keys))

    def undo(page: DatasetSession, _asked: Subject) -> None:
        if not page.opened.next_undo:
            toast(_("There is nothing to undo."))
            return
        page.opened.undo()
        page.check()  # an image may be read from another file now

    def redo(page: DatasetSession, _asked: Subject) -> None:
        if not page.opened.next_redo:
            toast(_("There is nothing to redo."))
            return
        page.opened.redo()
        page.check()

    return {
        detail.exclude: toggle,
        detail.convert: lambda page, asked: page.opened.convert(asked.key, page.checker),
        detail.recode: lambda page, asked: page.opened.recode_caption(asked.key),
        detail.reset: reset,
        detail.undo: undo,
        detail.redo: redo,
    }


def _page(tab: DatasetTab, session: DatasetSession, values: dict[str, Any]) -> dict[Any, Any]:
    """The page of the grid that the controls ask for."""
    with toasts():
        return by_component(tab.browser.rendered, render_for(session, values))


def _row(tab: DatasetTab, session: DatasetSession, asked: Subject, *, shown_file: str) -> dict[Any, Any]:
    """The image that the page shows."""
    return by_component(tab.detail.rendered, render_row(session, asked, shown_file=shown_file))
