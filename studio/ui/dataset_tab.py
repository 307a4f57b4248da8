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
        """Every part that the timer keeps true, by its name."""
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
    version = gr.Textbox(visible="hidden", elem_id="dataset-version", label="Version")
    with gr.Column(visible=False, elem_id="dataset-canvas") as canvas:
        filters = dataset_browser.build_filters()
        with gr.Row(elem_classes="dataset-panes"):
            with gr.Column(elem_classes="dataset-pictures"):
                browser = dataset_browser.Browser(**filters, grid=dataset_browser.build_grid())
            detail = dataset_detail.build()
        recipe = dataset_recipe_box.build()
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
    _wire_browsing(tab, desk, then_refresh=then_refresh)


def _wire_browsing(tab: DatasetTab, desk: DatasetDesk, *, then_refresh: Callable[[Any], None]) -> None:
    """Connect grid and detail: what is shown, chosen, typed and changed."""
    browser, detail = tab.browser, tab.detail
    query = browser.query
    both = [*browser.rendered, *detail.rendered]
    hidden = {"api_visibility": "private", "show_progress": "hidden"}
    # Clicks come faster than answers: each is taken, one after the other.
    ordered = {**hidden, "trigger_mode": "multiple", "concurrency_limit": 1, "concurrency_id": "dataset"}

    def show(current: str, **values: Any) -> list[Any]:  # noqa: ANN401 - the controls' values
        with toasts():
            return render_page(desk, read_query(values), selected=current)

    def show_first(current: str, **values: Any) -> list[Any]:  # noqa: ANN401
        return show(current, **{**values, "page": 1})

    def show_all(
        current: str,
        shown_file: str,
        selected: str,
        base: str,
        caption: str,
        **values: Any,  # noqa: ANN401
    ) -> list[Any]:
        renewed = renew_row(desk, current=current, shown_file=shown_file, selected=selected, base=base, caption=caption)
        return [*show(current, **values), *renewed]

    def turn(current: str, step: int, **values: Any) -> list[Any]:  # noqa: ANN401
        return show(current, **{**values, "page": max(1, int(values["page"] or 1) + step)})

    def select(event: gr.EventData) -> list[Any]:
        with toasts():
            return render_row(desk, str(getattr(event, "key", "")))

    def step(current: str, step: int, **values: Any) -> list[Any]:  # noqa: ANN401
        with toasts():
            asked = read_query(values)
            key, page = desk.opened.neighbour(asked, current, step=step)
            return [
                *render_page(desk, asked.model_copy(update={"page": page}), selected=key),
                *render_row(desk, key),
            ]

    def save(selected: str, caption: str, base: str) -> list[Any]:
        # Nothing was typed: what another tab or a change of many did meanwhile is not taken back.
        if caption == base or find_row(desk, selected) is None:
            return [gr.skip()] * (len(detail.buttons) + 1)
        with toasts():
            desk.opened.set_caption(selected, caption)
            return [caption, *render_buttons(desk, find_row(desk, selected), saved=" · saved")]

    def change(selected: str, act: Callable[[str], object], **values: Any) -> list[Any]:  # noqa: ANN401
        with toasts():
            act(selected)
        return [*show(selected, **values), *render_row(desk, selected)]

    def toggle(key: str) -> None:
        desk.opened.set_excluded([key], not desk.opened.row(key).excluded)

    def undo(_key: str) -> None:
        desk.opened.undo()
        desk.check()

    def redo(_key: str) -> None:
        desk.opened.redo()
        desk.check()

    pressed, late = {**query, "selected": detail.selected}, {**query, "current": detail.current}
    typed = {"selected": detail.selected, "caption": detail.caption, "base": detail.base}
    tab.version.change(
        show_all, inputs_kwargs={**late, **typed, "shown_file": detail.shown_file}, outputs=both, **ordered
    )
    for control in (browser.search, browser.problem, browser.bucket, browser.column, browser.value, browser.sort):
        event = control.submit if control is browser.search else control.input
        event(show_first, inputs_kwargs=late, outputs=browser.rendered, **ordered)
    browser.previous.click(_stepped(turn, -1), inputs_kwargs=late, outputs=browser.rendered, **ordered)
    browser.following.click(_stepped(turn, 1), inputs_kwargs=late, outputs=browser.rendered, **ordered)
    browser.grid.click(select, None, detail.rendered, **ordered)
    detail.previous.click(_stepped(step, -1), inputs_kwargs=late, outputs=both, **ordered)
    detail.following.click(_stepped(step, 1), inputs_kwargs=late, outputs=both, **ordered)
    saved = [detail.base, *detail.buttons]
    last = {**hidden, "concurrency_limit": 1, "concurrency_id": "dataset", "trigger_mode": "always_last"}
    detail.caption.input(save, inputs_kwargs=typed, outputs=saved, **last)
    then_refresh(detail.caption.blur(save, inputs_kwargs=typed, outputs=saved, **ordered))
    acts: dict[gr.Button, Callable[[str], object]] = {
        detail.exclude: toggle,
        detail.convert: desk.convert,
        detail.recode: lambda key: desk.opened.recode_caption(key),
        detail.reset: lambda key: desk.opened.reset_captions([key]),
        detail.undo: undo,
        detail.redo: redo,
    }
    for button, act in acts.items():
        then_refresh(button.click(_acting(change, act), inputs_kwargs=pressed, outputs=both, **ordered))


def _stepped(turn: Callable[..., list[Any]], step: int) -> Callable[..., list[Any]]:
    """The handler of a button that goes a step."""

    def go(current: str, **values: Any) -> list[Any]:  # noqa: ANN401 - the controls' values
        return turn(current, step, **values)

    return go


def _acting(change: Callable[..., list[Any]], act: Callable[[str], object]) -> Callable[..., list[Any]]:
    """The handler of a button that changes the selected picture."""

    def do(selected: str, **values: Any) -> list[Any]:  # noqa: ANN401 - the controls' values
        return change(selected, act, **values)

    return do
