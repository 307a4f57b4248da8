"""The Dataset tab: a source, a grid, one image; below them captions, statistics, doctor, export."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.core.errors import DatasetError
from studio.datasets.session import DatasetSession, SessionView
from studio.ui.datasets import browser as dataset_browser
from studio.ui.datasets import bulk as dataset_bulk
from studio.ui.datasets import detail as dataset_detail
from studio.ui.datasets import export as dataset_export
from studio.ui.datasets import recipe as dataset_recipe_box
from studio.ui.datasets import source as dataset_source
from studio.ui.datasets import statistics as dataset_statistics
from studio.ui.datasets.browser import read_query, render_page
from studio.ui.datasets.detail import SAVED_WITH_SUBJECT, WITH_SUBJECT, Subject, find_row, read_subject, render_row
from studio.ui.datasets.html import summary
from studio.ui.forms import by_component
from studio.ui.shell.parts import QUIET, Group, paragraph, toasts


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
        statistics = dataset_statistics.build()
        export = dataset_export.build()
    return DatasetTab(source, summary_line, version, canvas, browser, detail, recipe, bulk, statistics, export)


def render(session: DatasetSession) -> dict[str, Group]:
    """What makes every shown part of the tab as it should be now."""
    view = session.view
    return {
        "The list of datasets": lambda: dataset_source.render(session, view),
        "The dataset": lambda: {
            **dataset_recipe_box.render(session, view),
            "dataset-summary": lambda: _summary(session, view),
            "dataset-version": gr.update(value=view.version),
            "dataset-canvas": gr.update(visible=bool(view.name)),
        },
    }


def _summary(session: DatasetSession, view: SessionView) -> str:
    if view.name:
        return summary(session, view)
    return paragraph(
        "quiet",
        "No dataset is open. Drop a folder of images, type its path, or start with the demo shoes: 60 drawn images "
        "with a table of their colours and kinds.",
    )


def wire(tab: DatasetTab, session: DatasetSession, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the tab's parts."""
    dataset_source.wire(tab.source, session, then_refresh=then_refresh)
    dataset_recipe_box.wire(tab.recipe, session, version=tab.version, then_refresh=then_refresh)
    dataset_bulk.wire(tab.bulk, session, query=tab.browser.query, subject=tab.detail.subject, then_refresh=then_refresh)
    dataset_statistics.wire(tab.statistics, session, version=tab.version, then_refresh=then_refresh)
    dataset_export.wire(tab.export, session, then_refresh=then_refresh)
    _wire_grid(tab, session)
    _wire_detail(tab, session, then_refresh=then_refresh)


# Clicks come faster than answers: each is taken, one after the other.
ORDERED: dict[str, Any] = {
    **QUIET,
    "trigger_mode": "multiple",
    "concurrency_limit": 1,
    "concurrency_id": "dataset",
}


def _wire_grid(tab: DatasetTab, session: DatasetSession) -> None:
    """Connect search, filters, pages and images; all is drawn again when the dataset changed."""
    browser, detail = tab.browser, tab.detail

    def show_first(**values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the controls' values
        return _page(tab, session, {**values, "page": 1})

    def show_all(subject: object, shown_file: str, **values: Any) -> dict[Any, Any]:  # noqa: ANN401
        row = _row(tab, session, read_subject(subject), shown_file=shown_file)
        return {**_page(tab, session, values), **row}

    def turn(step: int) -> Callable[..., dict[Any, Any]]:
        def go(**values: Any) -> dict[Any, Any]:  # noqa: ANN401
            return _page(tab, session, {**values, "page": max(1, int(values["page"] or 1) + step)})

        return go

    def select(subject: object, shown_file: str, **values: Any) -> dict[Any, Any]:  # noqa: ANN401
        page: dict[Any, Any] = {}
        with toasts():
            asked = read_subject(subject)
            if asked.beyond and find_row(session, asked):
                query = read_query(values)
                page = _page(tab, session, {**values, "page": session.opened.page_with(query, asked.key)})
            return {**page, **_row(tab, session, asked, shown_file=shown_file)}

    asked = {"subject": detail.subject, "shown_file": detail.shown_file, **browser.query}
    grid = list(browser.rendered.values())
    both = [*grid, *detail.rendered.values()]
    tab.version.change(show_all, inputs_kwargs=asked, outputs=both, js=WITH_SUBJECT, **ORDERED)
    # Of images gone through fast only the last is rendered: the script sees which one an answer is about.
    latest = {**ORDERED, "trigger_mode": "always_last"}
    detail.caption.select(select, inputs_kwargs=asked, outputs=both, js=WITH_SUBJECT, **latest)
    filters = (browser.problem, browser.bucket, browser.column, browser.value, browser.sort)
    for event in (browser.search.submit, *(control.input for control in filters)):
        event(show_first, inputs_kwargs=browser.query, outputs=grid, **ORDERED)
    browser.previous.click(turn(-1), inputs_kwargs=browser.query, outputs=grid, **ORDERED)
    browser.following.click(turn(1), inputs_kwargs=browser.query, outputs=grid, **ORDERED)


def _wire_detail(tab: DatasetTab, session: DatasetSession, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the saving of captions and the buttons of the chosen image."""
    browser, detail = tab.browser, tab.detail

    def doing(act: Callable[[Subject], object]) -> Callable[..., dict[Any, Any]]:
        def do(subject: object, shown_file: str, **values: Any) -> dict[Any, Any]:  # noqa: ANN401 - the controls' values
            asked = read_subject(subject)
            with toasts():
                session.opened_as(asked.dataset)
                act(asked)
            return {**_page(tab, session, values), **_row(tab, session, asked, shown_file=shown_file)}

        return do

    gr.api(dataset_detail.saver(session), api_name="save_captions", queue=False, api_visibility="private")
    pressed = {"subject": detail.subject, "shown_file": detail.shown_file, **browser.query}
    both = [*browser.rendered.values(), *detail.rendered.values()]
    for button, act in _acts(detail, session).items():
        then_refresh(button.click(doing(act), inputs_kwargs=pressed, outputs=both, js=SAVED_WITH_SUBJECT, **ORDERED))


def _acts(detail: dataset_detail.Detail, session: DatasetSession) -> dict[gr.Button, Callable[[Subject], object]]:
    """What each button does to the image that the page shows."""

    def toggle(asked: Subject) -> None:
        if not asked.key:
            raise DatasetError("Choose an image first.")
        session.opened.set_excluded([asked.key], not session.opened.row(asked.key).excluded)

    def undo(_asked: Subject) -> None:
        session.opened.undo()
        session.check()  # an image may be read from another file now

    def redo(_asked: Subject) -> None:
        session.opened.redo()
        session.check()

    return {
        detail.exclude: toggle,
        detail.convert: lambda asked: session.convert(asked.key),
        detail.recode: lambda asked: session.opened.recode_caption(asked.key),
        detail.reset: lambda asked: session.opened.reset_captions([asked.key]),
        detail.undo: undo,
        detail.redo: redo,
    }


def _page(tab: DatasetTab, session: DatasetSession, values: dict[str, Any]) -> dict[Any, Any]:
    """The page of the grid that the controls ask for."""
    with toasts():
        return by_component(tab.browser.rendered, render_page(session, read_query(values)))


def _row(tab: DatasetTab, session: DatasetSession, asked: Subject, *, shown_file: str) -> dict[Any, Any]:
    """The image that the page shows."""
    return by_component(tab.detail.rendered, render_row(session, asked, shown_file=shown_file))
