"""Plans for tests: from settings, with wildcards beside them."""

from collections import Counter
from pathlib import Path

from studio.batches.plan import BatchPlan, make_plan, open_plan
from studio.batches.settings import BatchSettings
from studio.core.settings import GenerationSettings, parse_settings


def settings_of(**values: object) -> BatchSettings:
    return parse_settings(BatchSettings, values)


def plan_of(folder: Path = Path("no wildcards"), /, **values: object) -> BatchPlan:
    return make_plan(settings_of(**values), wildcards=folder)


def store_plan(settings: BatchSettings, *, wildcards: Path, folder: Path) -> BatchPlan:
    """Planned, fixed in `folder`, and read back."""
    make_plan(settings, wildcards=wildcards).store(folder)
    return open_plan(folder)


def prompts_of(plan: BatchPlan) -> list[str]:
    return [plan.item(index).generation.prompt for index in range(plan.num_items)]


def counts_by_hand(plan: BatchPlan, *columns: str) -> Counter[tuple[str, ...]]:
    """How many items have each combination of values, by looking at every item."""
    items = (plan.item(index) for index in range(plan.num_items))
    return Counter(tuple(item.attributes[column] for column in columns) for item in items)


def wildcard_folder(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


SHARED = GenerationSettings(prompt="", seed=100)
