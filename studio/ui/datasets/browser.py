"""The grid of thumbnails: searched, filtered, sorted, a page at a time."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from studio.core.language import _, number
from studio.core.settings import parse_settings
from studio.core.text import counted
from studio.datasets.query import ANY, SORT_NAMES, STATES, DatasetQuery, Facet, RowPage
from studio.datasets.report import count_problems
from studio.datasets.session import DatasetSession
from studio.ui.datasets.html import facet_chips, grid, thumbnail_size
from studio.ui.shell.parts import paragraph

MAX_VALUES = 200
FIELDS = DatasetQuery.model_fields
_FACETS = TypeAdapter(tuple[Facet, ...])

# How large thumbnails are is the browser's business: it keeps that, and the server hears nothing of it.
_SIZED = """const slider = element.querySelector("input");
const size = (pixels) => document.documentElement.style.setProperty("--thumb-size", `${pixels}px`);
slider.value = localStorage.getItem("thumbnail size") ?? slider.value;
size(slider.value);
slider.addEventListener("input", () => {
  localStorage.setItem("thumbnail size", slider.value);
  size(slider.value);
});"""
# The caption's script does the rest: it marks the chosen thumbnail and takes the presses.
_DRAWN = """const drawn = () => document.dispatchEvent(new Event("studio:grid"));
watch("value", drawn);
drawn();"""


# A bar that is pressed has a chip; the script tells those who cannot see that.
_DROPPED = """element.addEventListener("click", (event) => {
  const drop = event.target.closest("[data-drop]")?.dataset.drop;
  if (drop) trigger("click", { drop });
});
const tell = () => {
  const pressed = new Set([...element.querySelectorAll("[data-facet]")].map((chip) => chip.dataset.facet));
  for (const bar of document.querySelectorAll(".chart tr[data-facet]"))
    bar.querySelector("button")?.setAttribute("aria-pressed", pressed.has(bar.dataset.facet));
};
watch("value", () => requestAnimationFrame(tell));"""


@dataclass(frozen=True)
class Browser:
    """Its components, by what they are for; `of` names the dataset that all the others are about."""

    search: gr.Textbox
    problem: gr.Dropdown
    bucket: gr.Dropdown
    column: gr.Dropdown
    value: gr.Dropdown
    sort: gr.Dropdown
    page: gr.State
    previous: gr.Button
    following: gr.Button
    words: gr.HTML
    facets: gr.Textbox
    chips: gr.HTML
    grid: gr.HTML
    of: gr.Textbox

    @property
    def query(self) -> dict[str, gr.components.Component]:
        """What makes a `DatasetQuery`, by its names."""
        names = ("search", "problem", "bucket", "column", "value", "facets", "sort", "page", "of")
        return {name: getattr(self, name) for name in names}

    @property
    def rendered(self) -> dict[str, gr.components.Component]:
        """What `render_page` fills, by its names."""
        return {
            **self.query,
            **{name: getattr(self, name) for name in ("previous", "following", "words", "chips", "grid")},
        }


def build_filters() -> dict[str, Any]:
    """Lay out the search, the filters and the pager, above the grid."""
    with gr.Row(elem_classes="dataset-filters"):  # one row, so that the images begin high up
        search = gr.Textbox(
            label=label_of(FIELDS["search"]),
            placeholder=_("words, Enter"),
            elem_id="dataset-search",
            min_width=100,
        )
        problem, bucket, column, value, sort = (
            gr.Dropdown(
                choices_of(choices),
                value=choices[0],
                label=label_of(FIELDS[name]),
                elem_id=f"dataset-{name}",
                allow_custom_value=True,
                interactive=True,
                min_width=80,
            )
            for name, choices in (
                ("problem", STATES),
                ("bucket", (ANY,)),
                ("column", (ANY,)),
                ("value", (ANY,)),
                ("sort", SORT_NAMES),
            )
        )
        words = gr.HTML(elem_id="dataset-words", padding=False, min_width=0)
        gr.HTML(thumbnail_size(), padding=False, min_width=0, js_on_load=_SIZED)
        previous = gr.Button(_("‹ Page back"), elem_id="dataset-previous-page", min_width=0, size="sm")
        following = gr.Button(_("Next page ›"), elem_id="dataset-next-page", min_width=0, size="sm")
    page = gr.State(1)  # read when a handler runs: what draws the grid anew must not turn the page back
    return {
        "search": search,
        "problem": problem,
        "bucket": bucket,
        "column": column,
        "value": value,
        "sort": sort,
        "page": page,
        "previous": previous,
        "following": following,
        "words": words,
        "facets": gr.Textbox("[]", visible="hidden", elem_id="dataset-chosen-bars", label=_("Bars")),
        "chips": gr.HTML(elem_id="dataset-bars", padding=False, js_on_load=_DROPPED),
        "of": gr.Textbox(visible="hidden", elem_id="dataset-of", label=_("Dataset")),
    }


def label_of(field: FieldInfo) -> str:
    """What a setting is called."""
    title = field.title or ""
    return _(title)


def info_of(field: FieldInfo) -> str:
    """What a setting does."""
    description = field.description or ""
    return _(description)


def choices_of(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each name's label in the language of the page, and the name, which is the same in all."""
    return [(_(name), name) for name in names]


def build_grid() -> gr.HTML:
    """Lay out the grid."""
    return gr.HTML(elem_id="dataset-grid", padding=False, js_on_load=_DRAWN)


def read_query(values: dict[str, Any]) -> DatasetQuery:
    """The controls' values as a query; what is not filled in is its default.

    Raises:
        SettingsError: where one breaks its rule.
    """
    known = {name: value for name, value in values.items() if name in FIELDS and value not in (None, "")}
    known["facets"] = read_facets(values.get("facets"))
    known["page"] = max(1, int(known.get("page", 1)))
    return parse_settings(DatasetQuery, known)


def read_facets(sent: object) -> tuple[Facet, ...]:
    """The bars that a page sent; none where they are none."""
    try:
        return _FACETS.validate_json(str(sent or "[]"))
    except ValidationError:
        return ()


def changed_facets(sent: object, *, pressed: str = "", dropped: str = "") -> str:
    """The bars with one more, or without one, as the page holds them.

    Args:
        pressed: a facet as JSON; one that is there already is released.
        dropped: a place among them.
    """
    facets = list(read_facets(sent))
    new = read_facets(f"[{pressed}]")
    facets = [facet for facet in facets if facet not in new] + [facet for facet in new if facet not in facets]
    if dropped.isdecimal():
        facets = [facet for place, facet in enumerate(facets) if place != int(dropped)]
    return _FACETS.dump_json(tuple(facets)).decode()


def render_for(session: DatasetSession, values: dict[str, Any]) -> dict[str, Any]:
    """What `render_page` gives for the controls' values; without search, filters and page of another dataset.

    Raises:
        SettingsError: where a value breaks its rule.
    """
    if not session.is_open or values["of"] == session.opened.name:
        return render_page(session, read_query(values))
    rendered = render_page(session, DatasetQuery())
    nothing = {"problem": STATES[0], "bucket": ANY, "column": ANY, "value": ANY}
    filters = {name: {**rendered[name], "value": value} for name, value in nothing.items()}
    return {**rendered, **filters, "search": "", "facets": "[]", "sort": SORT_NAMES[0], "of": session.opened.name}


def render_page(session: DatasetSession, query: DatasetQuery) -> dict[str, Any]:
    """The page of rows that the query asks for, and what can be asked for now, by the names of `Browser.rendered`."""
    if not session.is_open:
        return {"words": "", "chips": "", "grid": ""}
    stamp, dataset = session.stamp, session.opened
    rows = dataset.rows
    page = dataset.page(query)
    buckets = Counter(filter(None, map(dataset.bucket_words, rows)))
    values = Counter(row.columns.get(query.column, "") for row in rows) if query.column != ANY else Counter()
    codes = [(with_number(_(code), num), code) for code, num in count_problems(rows).items()]
    sizes = [(with_number(size, num), size) for size, num in buckets.most_common()]
    named = [(with_number(value or _("empty"), num), value) for value, num in values.most_common(MAX_VALUES)]
    # Choices alone: what was chosen may be another one by the time that this arrives.
    return {
        "problem": gr.update(choices=choices_of(STATES) + codes),
        "bucket": gr.update(choices=[*choices_of([ANY]), *sizes]),
        "column": gr.update(choices=[*choices_of([ANY]), *((name, name) for name in dataset.columns)]),
        "value": gr.update(choices=[*choices_of([ANY]), *named], **({"value": ANY} if query.column == ANY else {})),
        "page": page.number,
        "previous": gr.update(interactive=page.number > 1),
        "following": gr.update(interactive=page.number < page.num_pages),
        "words": paragraph("quiet", _page_words(page, len(rows))),
        "chips": facet_chips(query.facets),
        "grid": grid(session, page, stamp),
    }


def with_number(name: str, num: int) -> str:
    """A choice and how many have it: `empty (1,991)`."""
    return f"{name} ({number(num)})"


def _page_words(page: RowPage, num_all: int) -> str:
    """How many images were found, and which of them are on the page."""
    if page.num_rows == 0:
        return _("No image of {num_all:,} matches: relax the search or the filters.", num_all=num_all)
    if page.num_rows == num_all:
        found = counted(num_all, "image", "images")
    else:
        found = _("{num_found:,} of {images}", num_found=page.num_rows, images=counted(num_all, "image", "images"))
    if page.num_pages == 1:
        return _("{found}, all on this page.", found=found)
    return _("{found}, page {page} of {num_pages}.", found=found, page=page.number, num_pages=page.num_pages)
