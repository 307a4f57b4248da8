"""One image of a plan.

Which images a batch makes: a function of the settings, the stored rows and an item's number alone.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, lru_cache
from pathlib import Path
from random import Random

import numpy as np

from studio.batches.checking import RowChecker, count_attributes, count_cells
from studio.batches.columns import apply_overrides, check_columns, own_seed, parse_attributes, setting_of, settings_in
from studio.batches.grammar import Text
from studio.batches.layout import item_seed, uniform
from studio.batches.plan_files import PLAN, PlanParts, plan_size, read_parts, temporary_file, variants_of, write_parts
from studio.batches.prompt_files import find_sources
from studio.batches.rows import Row, Rows, write_rows
from studio.batches.settings import BatchSettings
from studio.batches.template import TemplateReader, Wildcards, columns_in, fill, is_plain
from studio.core.errors import BatchError, StudioError, about
from studio.core.language import _
from studio.core.paths import typed_path
from studio.core.records import Record
from studio.core.settings import SEED_MAX, GenerationSettings
from studio.datasets.captions import tidy
from studio.images.prompts import plain_prompt


class BatchItem(Record):
    """One image of a plan, before it is made.

    Attributes:
        index: its place in the plan, from 0.
        generation: everything that draws it; LoRA tags and weights are still in its prompt.
        caption: its prompt's words alone.
        attributes: the value of every column, in the columns' order, as written.
    """

    index: int
    generation: GenerationSettings
    caption: str
    attributes: dict[str, str]


_MAX_NOTED_WORDS = 5


class BatchPlan:
    """The items of a batch, by number. Asking for one needs no order and leaves nothing behind.

    Attributes:
        num_items: how many there are.
        columns: the table's, then those of the box of attributes.
        notes: what was left out or decided, each a sentence.
        digest: SHA-256 over all that decides the items, in hexadecimal.
    """

    def __init__(self, parts: PlanParts, digest: str) -> None:
        self._parts = parts
        self._shared = parts.settings.generation
        self._attributes = parse_attributes(parts.settings.attributes)
        self.digest = digest
        self.notes = parts.notes
        self.columns: tuple[str, ...] = (*parts.table_columns, *(column.name for column in self._attributes))
        self._num_cells = len(parts.table_columns) if parts.format >= 2 else 0
        self._layout = plan_size(parts, self._attributes).layout
        self.num_items = self._layout.num_items
        wildcards = Wildcards(parts.wildcard_folder, parts.wildcards)
        self._reader = TemplateReader(self.columns, wildcards, joins_empty=parts.format == 1)
        # Neighbours have the same line and settings; what is kept here changes no result.
        self._template = lru_cache(maxsize=256)(self._reader.read)
        self._line = lru_cache(maxsize=64)(parts.lines.__getitem__)
        self._apply = lru_cache(maxsize=1024)(lambda overrides: apply_overrides(self._shared, dict(overrides)))

    def store(self, folder: Path) -> None:
        """Fix it in a folder: what is edited elsewhere changes nothing of it any more.

        Raises:
            BatchError: where the folder has a plan already.
            OSError: where the folder cannot be written; it then holds no plan.
        """
        if (folder / PLAN).exists():
            raise BatchError(
                _(
                    "{folder} has a plan already, and what was made of it belongs to it. Start another batch.",
                    folder=folder,
                )
            )
        write_parts(self._parts, self.digest, folder)

    def item(self, index: int) -> BatchItem:
        """One item, from 0 on.

        Raises:
            IndexError: where there is no such item.
            BatchError: where a value breaks a rule that could not be checked when the plan was made.
        """
        if not 0 <= index < self.num_items:
            raise IndexError(f"item must be between 0 and {self.num_items - 1}, got {index}")
        places = self._layout.places(np.array([index], np.int64))
        line = self._line(int(places.line[0]))
        cells = line.cells if self._parts.records is None else self._parts.records[int(places.record[0])].cells
        chosen = (column.values[int(value[0])] for column, value in zip(self._attributes, places.values, strict=True))
        values = (*cells, *chosen)
        attributes = dict(zip(self.columns, values, strict=True))
        overrides = {**settings_in(attributes), **line.options}
        given_seed = overrides.pop("seed", "")
        try:
            prompt = self._prompt(line, index, int(places.variant[0]), values)
            settings = self._apply(tuple(sorted(overrides.items())))
            # An own seed goes on from copy to copy, the shared one from item to item.
            seed = own_seed(given_seed) + int(places.copy[0]) if given_seed else settings.seed + index
        except StudioError as error:
            place = _("{name} line {number}", name=self._parts.source_names[line.source], number=line.number)
            raise BatchError(_("{place}, item {item}: {error}", place=place, item=index, error=error)) from error
        generation = settings.model_copy(update={"prompt": prompt, "seed": seed % (SEED_MAX + 1)})
        return BatchItem(index=index, generation=generation, caption=plain_prompt(prompt), attributes=attributes)

    def _prompt(self, line: Row, index: int, variant: int, values: tuple[str, ...]) -> str:
        if is_plain(line.prompt):
            return line.prompt.strip()
        template = self._template(line.prompt)
        if isinstance(template, Text):
            text = template.text
        elif variant < 0:
            text = template.draw(Random(item_seed(self._shared.seed, index)))
        else:
            text = template.at(variant)
        filled = fill(text, values, self._num_cells)
        return tidy(filled) if any(not values[column] for column in columns_in(text)) else filled.strip()

    def with_value(self, items: Sequence[int], column: str, value: str) -> list[int]:
        """Those of some items that have a value in a column, in their order; none where there is no such column."""
        if column not in self.columns or not items:
            return []
        parts, at = self._parts, self.columns.index(column)
        places = self._layout.places(np.array(items, np.int64))
        if at < len(parts.table_columns):
            rows, numbers = (parts.lines, places.line) if parts.records is None else (parts.records, places.record)
            having = {number for number in set(numbers.tolist()) if rows[number].cells[at] == value}
        else:
            numbers = places.values[at - len(parts.table_columns)]
            values = self._attributes[at - len(parts.table_columns)].values
            having = {number for number, known in enumerate(values) if known == value}
        return [item for item, number in zip(items, numbers.tolist(), strict=True) if number in having]

    def value_counts(self) -> Mapping[str, Mapping[str, int] | int]:
        """How many items have each value, by column; of a column with over 200 values only how many values there are.

        Values that no item has are not counted. A million items take about a second or two.
        """
        return self._value_counts

    @cached_property
    def _value_counts(self) -> dict[str, dict[str, int] | int]:
        parts = self._parts
        rows = parts.lines if parts.records is None else parts.records
        counts, per_row = count_attributes(
            self._layout,
            self._attributes,
            num_rows=len(rows) if parts.table_columns else 0,
            by_record=parts.records is not None,
        )
        return {**(count_cells(rows, parts.table_columns, per_row) if parts.table_columns else {}), **counts}

    def examples(self, count: int = 10) -> tuple[BatchItem, ...]:
        """Some items, spread over the plan and its columns, in its order.

        Raises:
            BatchError: as `item`.
        """
        count = min(count, self.num_items)
        # One from each part, at a place drawn by chance: at equal distances a column could have one value in all.
        within = uniform(0, "examples", np.arange(count, dtype=np.int64))
        starts = [part * self.num_items // count for part in range(count)]
        ends = [*starts[1:], self.num_items]  # of whole items, so that none comes twice
        return tuple(self.item(a + int(w * (b - a))) for a, b, w in zip(starts, ends, within.tolist(), strict=True))


def make_plan(settings: BatchSettings, *, wildcards: Path) -> BatchPlan:
    """Plan a batch: every row is read and checked once, and kept in a temporary file, which is gone with the plan.

    Args:
        wildcards: the folder of wildcards where the settings name none.

    Raises:
        BatchError: where it cannot be planned, naming file, line, column, rule and value.
        OSError: where the disk is full.
    """
    parts = _make_parts(settings, _wildcard_folder(settings, wildcards))
    return BatchPlan(parts, parts.digest())


def open_plan(folder: Path) -> BatchPlan:
    """Read a stored plan back.

    Raises:
        BatchError: where there is none, or it was damaged or changed.
    """
    parts, digest = read_parts(folder)
    return BatchPlan(parts, digest)


def _wildcard_folder(settings: BatchSettings, default: Path) -> Path:
    if not settings.wildcards.strip():
        return default
    folder = typed_path(settings.wildcards.strip())
    if not folder.is_dir():
        missing = BatchError(
            _("wildcards: there is no folder {folder}. Choose another, or clear the field.", folder=folder)
        )
        raise missing.about("wildcards")
    return folder


def _make_parts(settings: BatchSettings, wildcard_folder: Path) -> PlanParts:
    with about("attributes"):
        attributes = parse_attributes(settings.attributes)
    with about("prompt_file" if settings.prompt_file.strip() else "prompts"):
        sources = find_sources(settings)
    columns = (*sources.columns, *(column.name for column in attributes))
    with about("attributes"):
        check_columns(columns)
    _check_grid(settings, columns)
    wildcards = Wildcards(wildcard_folder)
    reader = TemplateReader(columns, wildcards)
    with about("attributes"):
        checker = RowChecker(
            settings,
            names=sources.names,
            table_columns=sources.columns,
            attributes=attributes,
            reader=reader,
        )
    lines = _keep(checker.lines(sources.lines))
    records = None if sources.records is None else _keep(checker.records(sources.records))
    if not len(lines) or (records is not None and not len(records)):
        empty = BatchError(_("{name} holds no row. Write one, or choose another file.", name=sources.names[-1]))
        raise empty.about("prompt_file")
    parts = PlanParts(
        settings=settings,
        source_names=sources.names,
        table_columns=sources.columns,
        lines=lines,
        records=records,
        num_variants=variants_of(np.frombuffer(checker.num_variants, dtype=np.int64)),
        wildcards=wildcards.used,
        wildcard_folder=wildcard_folder,
        notes=(),
    )
    notes = [*sources.notes, *checker.notes, *_column_notes(columns, reader), *plan_size(parts, attributes).notes]
    return replace(parts, notes=tuple(notes))


def _keep(rows: Iterable[Row]) -> Rows:
    file = temporary_file()
    return Rows(file, write_rows(rows, file))


def _check_grid(settings: BatchSettings, columns: Sequence[str]) -> None:
    for name, column in (("grid_x", settings.grid_x), ("grid_y", settings.grid_y)):
        if column and column not in columns:
            missing = BatchError(
                _(
                    "{name} must be a column of the plan, got {column!r}. Available: {columns}.",
                    name=name,
                    column=column,
                    columns=", ".join(columns) or _("none"),
                )
            )
            raise missing.about(name)


def _column_notes(columns: Sequence[str], reader: TemplateReader) -> list[str]:
    notes = []
    if acting := [column for column in columns if setting_of(column)]:
        notes.append(_("Columns that are settings of each image: {names}.", names=", ".join(acting)))
    words = [f"{{{word}}}" for word in itertools.islice(reader.words, _MAX_NOTED_WORDS)]
    if words:
        notes.append(
            _(
                "No column is called {names}: the words stand in the prompts without their braces. Columns: {columns}.",
                names=", ".join(words),
                columns=", ".join(columns) or _("none"),
            )
        )
    return notes
