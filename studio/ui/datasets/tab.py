"""The Dataset tab: a source, a grid, one picture; below them captions, statistics, doctor, export."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.errors import DatasetError
from studio.datasets.session import DatasetDesk, DeskView
from studio.ui.datasets import browser as dataset_browser
from studio.ui.datasets import bulk as dataset_bulk
from studio.ui.datasets import caption_box
from studio.ui.datasets import detail as dataset_detail
from studio.ui.datasets import export as dataset_export
from studio.ui.datasets import insight as dataset_insight
from studio.ui.datasets import recipe as dataset_recipe_box
from studio.ui.datasets import source as dataset_source
from studio.ui.datasets.browser import read_query, render_page
from studio.ui.datasets.caption_box import SAVED_WITH_SUBJECT, WITH_SUBJECT, Subject, read_subject
from studio.ui.datasets.detail import find_row, render_row
from studio.ui.datasets.html import summary
from studio.ui.shell.parts import QUIET, Update, toasts


@dataclass(frozen=True)
class DatasetTab:
    """The tab's parts."""

    source: dataset_source.SourceBox
    summary: gr.HTML
    version: gr.Textbox
    canvas: gr.Column
    browser: dataset_browser.Browser
    detail: dataset_detail.Detail
    recipe: dataset_recipe_box.RecipeBox
    bulk: dataset_bulk.BulkPanel
    insight: dataset_insight.InsightPanels
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


def build() -> DatasetTab:
    """Lay the tab out."""
    source = dataset_source.build()
    summary_line = gr.HTML(elem_id="dataset-summary", padding=False)
    layout_words = gr.HTML(elem_id="dataset-layout-words", padding=False)
    version = gr.Textbox(visible="hidden", elem_id="dataset-version", label="Version")
    with gr.Column(visible=False, elem_id="dataset-canvas") as canvas:
        filters = dataset_browser.build_filters()
        with gr.Row(elem_classes="dataset-panes"):
            with gr.Column(elem_classes="dataset-pictures"):
                browser = dataset_browser.Browser(**filters, grid=dataset_browser.build_grid())
            detail = dataset_detail.build()
        recipe = dataset_recipe_box.build(layout_words)
        bulk = dataset_bulk.build()
        insight = dataset_insight.build()
        export = dataset_export.build()
    return DatasetTab(source, summary_line, version, canvas, browser, detail, recipe, bulk, insight, export)


def render(desk: DatasetDesk) -> dict[str, Update]:
    """What every shown part of the tab should be now."""
    view = desk.view
    return {
        **dataset_source.render(desk, view),
        **dataset_recipe_box.render(desk, view),
        "dataset-summary": _summary(desk, view),
        "dataset-version": gr.update(value=view.version),
        "dataset-canvas": gr.update(visible=bool(view.name)),
    }


def _summary(desk: DatasetDesk, view: DeskView) -> str:
    if view.name:
        return summary(desk, view)
    return (
        "<p class='quiet'>No dataset is open. Drop a folder of pictures, type its path, or begin with the demo shoes: "
        "60 drawn pictures with a table of their colours and kinds.</p>"
    )


def wire(tab: DatasetTab, desk: DatasetDesk, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the tab's parts."""
    dataset_source.wire(tab.source, desk, then_refresh=then_refresh)
    dataset_recipe_box.wire(tab.recipe, desk, version=tab.version, then_refresh=then_refresh)
    dataset_bulk.wire(tab.bulk, desk, query=tab.browser.query, subject=tab.detail.subject, then_refresh=then_refresh)
    dataset_insight.wire(tab.insight, desk, version=tab.version, then_refresh=then_refresh)
    dataset_export.wire(tab.export, desk, then_refresh=then_refresh)
    _wire_grid(tab, desk)
    _wire_detail(tab, desk, then_refresh=then_refresh)


# Clicks come faster than answers: each is taken, one after the other.
ORDERED: dict[str, Any] = {
    **QUIET,
    "trigger_mode": "multiple",
    "concurrency_limit": 1,
    "concurrency_id": "dataset",
}


def _wire_grid(tab: DatasetTab, desk: DatasetDesk) -> None:
    """Connect search, filters, pages and pictures; all is drawn again when the dataset changed."""
    browser, detail = tab.browser, tab.detail

    def show_first(**values: Any) -> list[Any]:  # noqa: ANN401 - the controls' values
        return _show(desk, {**values, "page": 1})

    def show_all(subject: object, shown_file: str, **values: Any) -> list[Any]:  # noqa: ANN401
        return [*_show(desk, values), *render_row(desk, read_subject(subject), shown_file=shown_file)]

    def turn(step: int) -> Callable[..., list[Any]]:
        def go(**values: Any) -> list[Any]:  # noqa: ANN401
            return _show(desk, {**values, "page": max(1, int(values["page"] or 1) + step)})

        return go

    def select(subject: object, shown_file: str, **values: Any) -> list[Any]:  # noqa: ANN401
        with toasts():
            asked, page = read_subject(subject), [gr.skip()] * len(browser.rendered)
            if asked.beyond and find_row(desk, asked):
                query = read_query(values)
                page = _show(desk, {**values, "page": desk.opened.page_with(query, asked.key)})
            return [*page, *render_row(desk, asked, shown_file=shown_file)]

    asked = {"subject": detail.subject, "shown_file": detail.shown_file, **browser.query}
    both = [*browser.rendered, *detail.rendered]
    tab.version.change(show_all, inputs_kwargs=asked, outputs=both, js=WITH_SUBJECT, **ORDERED)
    # Of images gone through fast only the last is rendered: the script sees which one an answer is about.
    latest = {**ORDERED, "trigger_mode": "always_last"}
    detail.caption.select(select, inputs_kwargs=asked, outputs=both, js=WITH_SUBJECT, **latest)
    filters = (browser.problem, browser.bucket, browser.column, browser.value, browser.sort)
    for event in (browser.search.submit, *(control.input for control in filters)):
        event(show_first, inputs_kwargs=browser.query, outputs=browser.rendered, **ORDERED)
    browser.previous.click(turn(-1), inputs_kwargs=browser.query, outputs=browser.rendered, **ORDERED)
    browser.following.click(turn(1), inputs_kwargs=browser.query, outputs=browser.rendered, **ORDERED)


def _wire_detail(tab: DatasetTab, desk: DatasetDesk, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the saving of captions and the buttons of the chosen picture."""
    browser, detail = tab.browser, tab.detail

    def doing(act: Callable[[Subject], object]) -> Callable[..., list[Any]]:
        def do(subject: object, shown_file: str, **values: Any) -> list[Any]:  # noqa: ANN401 - the controls' values
            asked = read_subject(subject)
            with toasts():
                desk.opened_as(asked.dataset)
                act(asked)
            return [*_show(desk, values), *render_row(desk, asked, shown_file=shown_file)]

        return do

    gr.api(caption_box.saver(desk), api_name="save_captions", queue=False, api_visibility="private")
    pressed = {"subject": detail.subject, "shown_file": detail.shown_file, **browser.query}
    both = [*browser.rendered, *detail.rendered]
    for button, act in _acts(detail, desk).items():
        then_refresh(button.click(doing(act), inputs_kwargs=pressed, outputs=both, js=SAVED_WITH_SUBJECT, **ORDERED))


def _acts(detail: dataset_detail.Detail, desk: DatasetDesk) -> dict[gr.Button, Callable[[Subject], object]]:
    """What each button does to the picture that the page shows."""

    def toggle(asked: Subject) -> None:
        if not asked.key:
            raise DatasetError("Choose an image first.")
        desk.opened.set_excluded([asked.key], not desk.opened.row(asked.key).excluded)

    def undo(_asked: Subject) -> None:
        desk.opened.undo()
        desk.check()  # a picture may be read from another file now

    def redo(_asked: Subject) -> None:
        desk.opened.redo()
        desk.check()

    return {
        detail.exclude: toggle,
        detail.convert: lambda asked: desk.convert(asked.key),
        detail.recode: lambda asked: desk.opened.recode_caption(asked.key),
        detail.reset: lambda asked: desk.opened.reset_captions([asked.key]),
        detail.undo: undo,
        detail.redo: redo,
    }


def _show(desk: DatasetDesk, values: dict[str, Any]) -> list[Any]:
    """The page of the grid that the controls ask for."""
    with toasts():
        return render_page(desk, read_query(values))
