"""Every row looked at before a plan stands: so that no night ends at a mistake in line 70,000."""

import itertools
from array import array
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from studio.batches.attributes import AttributeColumn
from studio.batches.overrides import check_overrides, own_seed, setting_of, settings_in
from studio.batches.rows import Row
from studio.batches.template import TemplateReader, columns_in, fill, is_plain
from studio.batches.variants import Variants
from studio.errors import BatchError, SettingsError, StudioError
from studio.prompts import take_lora_tags
from studio.settings import RELATED_SETTINGS, GenerationSettings

MAX_TRIED = 100_000
"""Of how many variants and values, in all, LoRA tags are tried when a plan is made; the rest when they are drawn."""
_MAX_PAIRS = 10_000
_MAX_COUNT = 2**62
_MAX_TEXTS_TO_FILL = 20
_Related = tuple[tuple[str, str], ...]
"""Those of a row's own settings that must fit each other, by name."""


class RowChecker:
    """Checks the rows of one plan, and counts the variants of each."""

    def __init__(
        self,
        shared: GenerationSettings,
        *,
        names: Sequence[str],
        table_columns: Sequence[str],
        attributes: Sequence[AttributeColumn],
        reader: TemplateReader,
    ) -> None:
        """`names` are of the sources."""
        self.num_variants = array("q")
        self._names = names
        self._table_columns = table_columns
        self._attributes = attributes
        self._reader = reader
        self._left_to_try = MAX_TRIED
        self._first_values = {column.name: column.values[0] for column in attributes}
        self._acting = {setting for name in (*table_columns, *self._first_values) if (setting := setting_of(name))}
        self._acting_cells = [(place, name) for place, name in enumerate(table_columns) if setting_of(name)]
        self._tags_in_attributes = any(_has_tag(value) for column in attributes for value in column.values)
        self._texts_to_fill: list[str] = []
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
                plain = is_plain(row.prompt) and not _has_tag(row.prompt)
                self.num_variants.append(1 if plain else self._check_prompt(row))
            except StudioError as error:
                raise BatchError(f"{self._names[row.source]} line {row.number}: {error}") from error
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
                for text in self._texts_to_fill if any(map(_has_tag, (*self._texts_to_fill, *row.cells))) else ():
                    take_lora_tags(fill(text, values))
            except StudioError as error:
                raise BatchError(f"{self._names[row.source]} line {row.number}: {error}") from error
            yield row

    def _check_row(self, row: Row) -> None:
        """The settings that a row has, beside the first value of each column of attributes."""
        if row.options and (twice := sorted(self._acting & row.options.keys())):
            raise BatchError(f"{', '.join(twice)} is set at the line's end, and by a column too. Keep one of them.")
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
                    raise BatchError(f"attributes, {', '.join(named)}: {error}") from error

    def _check_prompt(self, row: Row) -> int:
        """Read a prompt and count its variants; try LoRA tags, in all variants and values that are not too many."""
        variants = self._reader.read(row.prompt)
        if not row.cells and self._table_columns:
            self._texts_to_fill += [variants.at(i) for i in range(min(variants.count, _MAX_TEXTS_TO_FILL))]
        in_wildcards = self._reader.tags_in_wildcards and "__" in row.prompt
        if self._tags_in_attributes or in_wildcards or _has_tag(row.prompt) or any(map(_has_tag, row.cells)):
            self._try_tags(variants, row)
        return min(variants.count, _MAX_COUNT)

    def _try_tags(self, variants: Variants, row: Row) -> None:
        for index in range(min(variants.count, max(1, self._left_to_try))):
            text = variants.at(index)
            self._left_to_try -= variants.count > 1
            for values in self._values_for(text, row):
                take_lora_tags(fill(text, values))

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


def _has_tag(text: str) -> bool:
    return "<lora:" in text
