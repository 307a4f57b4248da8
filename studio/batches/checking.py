"""Every row of a plan checked before it stands, and how many items have each value.

How many items have each value of each column, counted without making the items.

Every row looked at before a plan stands: so that no night ends at a mistake in line 70,000.
"""

import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np

from studio.batches.columns import AttributeColumn, check_overrides, own_seed, setting_of, settings_in
from studio.batches.grammar import Variants
from studio.batches.layout import Integers, Layout
from studio.batches.rows import Row, Rows
from studio.batches.settings import BatchSettings
from studio.batches.template import TemplateReader, columns_in, fill, is_plain
from studio.core.errors import BatchError, SettingsError, StudioError
from studio.core.language import _
from studio.core.settings import RELATED_SETTINGS, GenerationSettings
from studio.images.prompts import has_lora_tag, take_lora_tags
from studio.images.tokens import TokenCounter, prompt_notes, tokenizer_of

MAX_COUNTED_VALUES = 200
_CHUNK_ITEMS = 65_536


def count_attributes(
    layout: Layout, attributes: Sequence[AttributeColumn], *, num_rows: int, by_record: bool
) -> tuple[dict[str, dict[str, int] | int], Integers]:
    """(items of each value of each column, (num_rows,) items of each row).

    Args:
        num_rows: how many rows with cells there are; 0 where they need not be counted.
        by_record: the rows are the layout's records, not its lines.
    """
    per_row = np.zeros(num_rows, np.int64)
    per_value = [np.zeros(len(column.values), np.int64) for column in attributes]
    for start in range(0, layout.num_items if num_rows or attributes else 0, _CHUNK_ITEMS):
        places = layout.places(np.arange(start, min(start + _CHUNK_ITEMS, layout.num_items), dtype=np.int64))
        if num_rows:
            _add(per_row, places.record if by_record else places.line)
        for counts, value in zip(per_value, places.values, strict=True):
            _add(counts, value)
    found: dict[str, dict[str, int] | int] = {}
    for column, counts in zip(attributes, per_value, strict=True):
        by_value = {value: int(number) for value, number in zip(column.values, counts, strict=True) if number}
        found[column.name] = by_value if len(by_value) <= MAX_COUNTED_VALUES else len(by_value)
    return found, per_row


def _add(counts: Integers, places: Integers) -> None:
    """Add to `counts` how often each place comes; in its reach alone, as neighbours have neighbouring places."""
    low, high = int(places.min()), int(places.max()) + 1
    counts[low:high] += np.bincount(places - low, minlength=high - low)


class CellCounter:
    """Counts the values of one column of a table; after 200 of them, only how many there are."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._hashes: array[int] | None = None

    def add(self, values: Sequence[str], numbers: Sequence[int]) -> None:
        """As many more items as the numbers say have these values."""
        if set(numbers) - {1}:
            values = [value for value, number in zip(values, numbers, strict=True) if number]
        if self._hashes is not None:
            self._hashes.extend(map(hash, values))
            return
        if len(values) == len(numbers) == sum(numbers):
            self._counts.update(values)
        else:
            for value, number in zip(values, filter(None, numbers), strict=True):
                self._counts[value] += number
        if len(self._counts) > MAX_COUNTED_VALUES:
            self._hashes = array("q", map(hash, self._counts))

    @property
    def result(self) -> dict[str, int] | int:
        """Items by value, or the number of values."""
        if self._hashes is None:
            return dict(self._counts)
        ordered = np.sort(np.frombuffer(self._hashes, dtype=np.int64))
        return 1 + int(np.count_nonzero(ordered[1:] != ordered[:-1]))


def count_cells(rows: Rows, columns: Sequence[str], per_row: Integers) -> dict[str, dict[str, int] | int]:
    """Items of each value of a table's columns, from the number of items of each row."""
    counters = [CellCounter() for __ in columns]
    start = 0
    for chunk in rows.cells():
        numbers = per_row[start : start + len(chunk[0])].tolist()
        start += len(numbers)
        for counter, values in zip(counters, chunk, strict=True):
            counter.add(values, numbers)
    return {column: counter.result for column, counter in zip(columns, counters, strict=True)}


MAX_TRIED = 100_000
"""Of how many variants and values, in all, LoRA tags are tried when a plan is made; the rest when they are drawn."""
MAX_COUNTED_PROMPTS = 1000
"""Of how many prompts the tokens are counted."""
_MAX_PAIRS = 10_000
_MAX_COUNT = 2**62
_MAX_TEXTS_TO_FILL = 20
_Related = tuple[tuple[str, str], ...]
"""Those of a row's own settings that must fit each other, by name."""


class RowChecker:
    """Checks the rows of one plan, and counts the variants of each."""

    def __init__(
        self,
        settings: BatchSettings,
        *,
        names: Sequence[str],
        table_columns: Sequence[str],
        attributes: Sequence[AttributeColumn],
        reader: TemplateReader,
    ) -> None:
        """`names` are of the sources."""
        shared = settings.generation
        self.num_variants = array("q")
        self._names = names
        self._table_columns = table_columns
        self._attributes = attributes
        self._reader = reader
        self._left_to_try = MAX_TRIED
        self._first_values = {column.name: column.values[0] for column in attributes}
        self._acting = {setting for name in (*table_columns, *self._first_values) if (setting := setting_of(name))}
        self._acting_cells = [(place, name) for place, name in enumerate(table_columns) if setting_of(name)]
        self._tags_in_attributes = any(has_lora_tag(value) for column in attributes for value in column.values)
        self._texts_to_fill: list[str] = []
        self._long_prompt = shared.long_prompt
        self._tokens = TokenCounter(tokenizer_of(settings.model))
        self._notes: dict[str, tuple[str, int]] = {}  # by what each is about: its text, and on how many lines
        self._left_to_count = MAX_COUNTED_PROMPTS
        self._note("negative_prompt", shared.negative_prompt)
        # A value alone breaks no rule between settings: what it meets in the plan decides, and is looked at apart.
        alone = shared.model_copy(
            update={name: GenerationSettings.model_fields[name].default for name in RELATED_SETTINGS}
        )
        self._check = lru_cache(maxsize=256)(lambda overrides: check_overrides(alone, dict(overrides)))
        self._check_meeting = lru_cache(maxsize=4096)(lambda values: check_overrides(shared, dict(values)))
        self._related = {
            setting: column.values for column in attributes if (setting := setting_of(column.name)) in RELATED_SETTINGS
        }
        self._related_in_lines: set[_Related] = set()
        self._check_attributes()

    def lines(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows with prompts, each checked, and its variants counted.

        Raises:
            BatchError: naming the line and what is wrong in it.
        """
        for row in rows:
            try:
                if row.options or (row.cells and self._acting_cells):
                    self._check_row(row)
                self._check_line_together(row)
                plain = is_plain(row.prompt) and not has_lora_tag(row.prompt)
                self.num_variants.append(1 if plain else self._check_prompt(row))
                self._note_row(row)
            except StudioError as error:
                raise self._error_in(row, error) from error
            yield row

    def records(self, rows: Iterable[Row]) -> Iterator[Row]:
        """The rows with cells alone, each checked.

        Raises:
            BatchError: naming the line and what is wrong in it.
        """
        for row in rows:
            try:
                if self._acting_cells:
                    self._check_row(row)
                for of_line in self._related_in_lines:
                    self._meet((*of_line, *self._related_of(row)))
                values = [*row.cells, *self._first_values.values()]
                for text in self._texts_to_fill if any(map(has_lora_tag, self._texts_to_fill)) else ():
                    take_lora_tags(fill(text, values, len(row.cells)))
            except StudioError as error:
                raise self._error_in(row, error) from error
            yield row

    def _error_in(self, row: Row, error: StudioError) -> BatchError:
        said = BatchError(
            _("{name} line {number}: {problem}", name=self._names[row.source], number=row.number, problem=error)
        )
        return said.about("prompt_file" if row.source else "prompts")

    @property
    def notes(self) -> list[str]:
        """What of the prompts acts otherwise than in A1111 or is cut off, with the first line that has it."""
        return [
            f"{note} " + _("Lines like it: {number:,}.", number=number) if number > 1 else note
            for note, number in self._notes.values()
        ]

    def _note_row(self, row: Row) -> None:
        """Each prompt as written; the first ones also with their columns' first values, and their tokens counted."""
        text = row.prompt
        if counted := self._left_to_count > 0:
            self._left_to_count -= 1
            cells = list(row.cells) or [""] * len(self._table_columns)
            variant = text if is_plain(text) else self._reader.read(text).at(0)
            text = fill(variant, [*cells, *self._first_values.values()], len(cells))
        self._note(_("{name} line {number}", name=self._names[row.source], number=row.number), text, counted=counted)

    def _note(self, place: str, text: str, *, counted: bool = True) -> None:
        if not counted and not any(sign in text for sign in ("[", "AND", "<")):  # a million lines take their time
            return
        for note in prompt_notes(text, long_prompt=self._long_prompt or not counted, tokens=self._tokens):
            about = note.partition(":")[0]  # past a colon it quotes the prompt; all in one plan are in one language
            first, number = self._notes.get(about, (f"{place}: {note}", 0))
            self._notes[about] = first, number + 1

    def _check_row(self, row: Row) -> None:
        """The settings that a row has, beside the first value of each column of attributes."""
        if row.options and (twice := sorted(self._acting & row.options.keys())):
            raise BatchError(
                _("{names} is set at the line's end, and by a column too. Keep one of them.", names=", ".join(twice))
            )
        self._try({**settings_in({**self._cells(row), **self._first_values}), **row.options})

    def _cells(self, row: Row) -> dict[str, str]:
        return {name: row.cells[place] for place, name in self._acting_cells} if row.cells else {}

    def _check_line_together(self, row: Row) -> None:
        """A line's scheduler and steps with all that they meet; what records, which come later, give is met then."""
        related = self._related_of(row)
        if self._table_columns and not row.cells:
            self._related_in_lines.add(related)
        else:
            self._meet(related)

    def _related_of(self, row: Row) -> _Related:
        if not row.options and not self._acting_cells:
            return ()
        own = {**settings_in(self._cells(row)), **row.options}
        return tuple((setting, own[setting]) for setting in RELATED_SETTINGS if setting in own)

    def _meet(self, own: _Related) -> None:
        """Try a row's scheduler and steps with each that columns of attributes give, else with the shared ones."""
        given = dict(own)
        others = [[(name, value) for value in values] for name, values in self._related.items() if name not in given]
        for chosen in itertools.product(*others):
            if met := {**given, **{name: value for name, value in chosen if value}}:
                self._check_meeting(tuple(met.items()))

    def _try(self, overrides: dict[str, str]) -> None:
        if "seed" in overrides:  # mostly another one in each row
            own_seed(overrides.pop("seed"))
        if overrides:
            self._check(tuple(sorted(overrides.items())))

    def _check_attributes(self) -> None:
        """Each value of each column that is a setting; a LoRA's with every strength."""
        acting = [column for column in self._attributes if setting_of(column.name)]
        paired = [column for column in acting if setting_of(column.name) in ("lora", "strength")]
        elsewhere = {"lora": "any"} if any(setting_of(name) == "lora" for name in self._table_columns) else {}
        groups = [(column,) for column in acting if column not in paired] + ([tuple(paired)] if paired else [])
        for group in groups:
            values = itertools.islice(itertools.product(*(column.values for column in group)), _MAX_PAIRS)
            for chosen in values:
                named = {column.name: value for column, value in zip(group, chosen, strict=True)}
                try:
                    self._try(settings_in({**elsewhere, **named} if group == tuple(paired) else named))
                except SettingsError as error:
                    raise BatchError(_("attributes, {names}: {error}", names=", ".join(named), error=error)) from error

    def _check_prompt(self, row: Row) -> int:
        """Read a prompt and count its variants; try LoRA tags, in all variants and values that are not too many."""
        variants = self._reader.read(row.prompt)
        if not row.cells and self._table_columns:
            self._texts_to_fill += [variants.at(i) for i in range(min(variants.count, _MAX_TEXTS_TO_FILL))]
        in_wildcards = self._reader.tags_in_wildcards and "__" in row.prompt
        if self._tags_in_attributes or in_wildcards or has_lora_tag(row.prompt):
            self._try_tags(variants, row)
        return min(variants.count, _MAX_COUNT)

    def _try_tags(self, variants: Variants, row: Row) -> None:
        for index in range(min(variants.count, max(1, self._left_to_try))):
            text = variants.at(index)
            self._left_to_try -= variants.count > 1
            for values in self._values_for(text, row):
                take_lora_tags(fill(text, values, len(self._table_columns)))

    def _values_for(self, text: str, row: Row) -> Iterator[list[str]]:
        """Values for the columns in a text, so that each value comes up; cells of other rows are not known here."""
        named = columns_in(text)
        if not named:
            yield []
            return
        cells = list(row.cells) or [""] * len(self._table_columns)
        if not row.cells and any(number < len(cells) for number in named):
            return  # filled from records, which are looked at later
        offset = len(cells)
        most = max((len(self._attributes[n - offset].values) for n in named if n >= offset), default=1)
        for index in range(min(most, max(1, self._left_to_try))):
            self._left_to_try -= most > 1
            yield cells + [column.values[index % len(column.values)] for column in self._attributes]
