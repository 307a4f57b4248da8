"""Which pictures a batch makes: a function of the settings, the stored prompts and an item's number alone."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from studio.batch_settings import BatchSettings
from studio.batches.item import BatchItem
from studio.errors import BatchError
from studio.prompts import plain_prompt
from studio.settings import SEED_MAX, GenerationSettings, parse_settings


class BatchPlan:
    """The items of a batch, by number."""

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._lines = [line for line in settings.prompts.splitlines() if line.strip() and not line.startswith("#")]
        self._values: dict[str, list[str]] = {}
        for line in settings.attributes.splitlines():
            column, _, values = line.partition(":")
            self._values[column.strip()] = [value.strip() for value in values.split(",")]
        self._combinations = list(itertools.product(self._lines, *self._values.values()))
        self.columns: tuple[str, ...] = tuple(self._values)
        self.num_items: int = settings.total or len(self._combinations) * settings.images_per_prompt
        self.notes: tuple[str, ...] = ()
        self.digest: str = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()

    def item(self, index: int) -> BatchItem:
        """One item."""
        place = index // self._settings.images_per_prompt % len(self._combinations)
        prompt, *values = self._combinations[place]
        attributes = dict(zip(self.columns, values, strict=True))
        for column, value in attributes.items():
            prompt = prompt.replace(f"{{{column}}}", value)
        base = self._settings.generation
        changes: dict[str, object] = {"prompt": prompt, "seed": (base.seed + index) % (SEED_MAX + 1)}
        changes.update((name, value) for name, value in attributes.items() if name in GenerationSettings.model_fields)
        generation = parse_settings(GenerationSettings, {**base.model_dump(), **changes})
        return BatchItem(index=index, generation=generation, caption=plain_prompt(prompt), attributes=attributes)

    def value_counts(self) -> Mapping[str, Mapping[str, int] | int]:
        """How many items have each value of each column; only the number of values where there are over 200."""
        counts: dict[str, Counter[str]] = {column: Counter() for column in self.columns}
        for index in range(self.num_items):
            for column, value in self.item(index).attributes.items():
                counts[column][value] += 1
        return counts

    def examples(self, count: int = 10) -> tuple[BatchItem, ...]:
        """Items spread over the plan."""
        shown = min(count, self.num_items)
        return tuple(self.item(i * self.num_items // shown) for i in range(shown))


def make_plan(settings: BatchSettings, *, wildcards: Path, stored: Path | None = None) -> BatchPlan:
    """Plan a batch.

    Raises:
        BatchError: where it cannot be planned, naming file, line, rule and value.
    """
    return BatchPlan(settings)


def store_plan(settings: BatchSettings, *, wildcards: Path, folder: Path) -> BatchPlan:
    """Plan a batch and fix it in `folder`.

    Raises:
        BatchError: as `make_plan`.
        OSError: where the folder cannot be written.
    """
    plan = make_plan(settings, wildcards=wildcards)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plan.json").write_text(settings.model_dump_json(), encoding="utf-8")
    return plan


def open_plan(folder: Path) -> BatchPlan:
    """Read a stored plan back.

    Raises:
        BatchError: where it is not there, or damaged.
    """
    try:
        text = (folder / "plan.json").read_text(encoding="utf-8")
    except OSError as error:
        raise BatchError(f"The plan in {folder} cannot be read ({error.strerror}).") from error
    return BatchPlan(BatchSettings.model_validate_json(text))
