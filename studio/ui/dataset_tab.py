"""The Dataset tab: a source, a grid, one picture; below them captions, statistics, doctor, export."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.dataset.desk import DatasetDesk, DeskView
from studio.ui import (
    dataset_browser,
    dataset_bulk,
    dataset_detail,
    dataset_export,
    dataset_insight,
    dataset_recipe_box,
    dataset_source,
)
from studio.ui.dataset_browser import read_query, render_page
from studio.ui.dataset_detail import find_row, render_buttons, render_row, renew_row
from studio.ui.dataset_html import summary
from studio.ui.parts import Update
from studio.ui.toasts import toasts


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
    dataset_bulk.wire(tab.bulk, desk, query=tab.browser.query, then_refresh=then_refresh)
    dataset_insight.wire(tab.insight, desk, version=tab.version, then_refresh=then_refresh)
    dataset_export.wire(tab.export, desk, then_refresh=then_refresh)
    _wire_grid(tab, desk)
    _wire_detail(tab, desk, then_refresh=then_refresh)


HIDDEN: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
# Clicks come faster than answers: each is taken, one after the other.
ORDERED: dict[str, Any] = {
    **HIDDEN,
    "trigger_mode": "multiple",
    "concurrency_limit": 1,
    "concurrency_id": "dataset",
}


def _wire_grid(tab: DatasetTab, desk: DatasetDesk) -> None:
    """Connect search, filters, pages and pictures; all is drawn again when the dataset changed."""
    browser, detail = tab.browser, tab.detail
    late = {**browser.query, "current": detail.current}
    typed = {"selected": detail.selected, "caption": detail.caption, "base": detail.base}

    def show_first(current: str, **values: Any) -> list[Any]:  # noqa: ANN401 - the controls' values
        return _show(desk, current, {**values, "page": 1})

    def show_all(
        current: str,
        shown_file: str,
        selected: str,
        base: str,
        caption: str,
        **values: Any,  # noqa: ANN401
    ) -> list[Any]:
        renewed = renew_row(desk, current=current, shown_file=shown_file, selected=selected, base=base, caption=caption)
        return [*_show(desk, current, values), *renewed]

    def turn(step: int) -> Callable[..., list[Any]]:
        def go(current: str, **values: Any) -> list[Any]:  # noqa: ANN401
            return _show(desk, current, {**values, "page": max(1, int(values["page"] or 1) + step)})

        return go

    def select(event: gr.EventData) -> list[Any]:
        with toasts():
            return render_row(desk, str(getattr(event, "key", "")))

    tab.version.change(
        show_all,
        inputs_kwargs={**late, **typed, "shown_file": detail.shown_file},
        outputs=[*browser.rendered, *detail.rendered],
        **ORDERED,
    )
    filters = (browser.problem, browser.bucket, browser.column, browser.value, browser.sort)
    for event in (browser.search.submit, *(control.input for control in filters)):
        event(show_first, inputs_kwargs=late, outputs=browser.rendered, **ORDERED)
    browser.previous.click(turn(-1), inputs_kwargs=late, outputs=browser.rendered, **ORDERED)
    browser.following.click(turn(1), inputs_kwargs=late, outputs=browser.rendered, **ORDERED)
    browser.grid.click(select, None, detail.rendered, **ORDERED)


def _wire_detail(tab: DatasetTab, desk: DatasetDesk, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect the caption, which is saved while one types, and the buttons of the chosen picture."""
    browser, detail = tab.browser, tab.detail
    both = [*browser.rendered, *detail.rendered]

    def save(selected: str, caption: str, base: str) -> list[Any]:
        # Nothing was typed: what another tab or a change of many did meanwhile is not taken back.
        if caption == base or find_row(desk, selected) is None:
            return [gr.skip()] * (len(detail.buttons) + 1)
        with toasts():
            desk.opened.set_caption(selected, caption)
            return [caption, *render_buttons(desk, find_row(desk, selected), saved=" · saved")]

    def stepping(step: int) -> Callable[..., list[Any]]:
        def go(current: str, **values: Any) -> list[Any]:  # noqa: ANN401 - the controls' values
            with toasts():
                asked = read_query(values)
                key, page = desk.opened.neighbour(asked, current, step=step)
                shown = render_page(desk, asked.model_copy(update={"page": page}), selected=key)
                return [*shown, *render_row(desk, key)]

        return go

    def doing(act: Callable[[str], object]) -> Callable[..., list[Any]]:
        def do(selected: str, **values: Any) -> list[Any]:  # noqa: ANN401
            with toasts():
                act(selected)
            return [*_show(desk, selected, values), *render_row(desk, selected)]

        return do

    typed = {"selected": detail.selected, "caption": detail.caption, "base": detail.base}
    saved = [detail.base, *detail.buttons]
    detail.caption.input(save, inputs_kwargs=typed, outputs=saved, **{**ORDERED, "trigger_mode": "always_last"})
    then_refresh(detail.caption.blur(save, inputs_kwargs=typed, outputs=saved, **ORDERED))
    late = {**browser.query, "current": detail.current}
    detail.previous.click(stepping(-1), inputs_kwargs=late, outputs=both, **ORDERED)
    detail.following.click(stepping(1), inputs_kwargs=late, outputs=both, **ORDERED)
    pressed = {**browser.query, "selected": detail.selected}
    for button, act in _acts(detail, desk).items():
        then_refresh(button.click(doing(act), inputs_kwargs=pressed, outputs=both, **ORDERED))


def _acts(detail: dataset_detail.Detail, desk: DatasetDesk) -> dict[gr.Button, Callable[[str], object]]:
    """What each button does to the picture of a key."""

    def toggle(key: str) -> None:
        desk.opened.set_excluded([key], not desk.opened.row(key).excluded)

    def undo(_key: str) -> None:
        desk.opened.undo()
        desk.check()  # a picture may be read from another file now

    def redo(_key: str) -> None:
        desk.opened.redo()
        desk.check()

    return {
        detail.exclude: toggle,
        detail.convert: desk.convert,
        detail.recode: lambda key: desk.opened.recode_caption(key),
        detail.reset: lambda key: desk.opened.reset_captions([key]),
        detail.undo: undo,
        detail.redo: redo,
    }


def _show(desk: DatasetDesk, current: str, values: dict[str, Any]) -> list[Any]:
    """The page of the grid that the controls ask for."""
    with toasts():
        return render_page(desk, read_query(values), selected=current)
