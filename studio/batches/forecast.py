"""What a batch would make and take, before it runs: as it was measured, or as batches like it took."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from statistics import fmean

from studio.batches.folder import BatchFolder, read_batch_settings
from studio.batches.ledger import ledger_files, read_items
from studio.batches.plan import BatchPlan
from studio.batches.settings import BatchSettings
from studio.core.errors import StudioError
from studio.core.language import _, number
from studio.core.records import Record
from studio.core.settings import GenerationSettings
from studio.core.text import clock_text, counted, duration

EXAMPLES = 10


class Example(Record):
    """One planned image."""

    index: int
    prompt: str
    caption: str
    seed: int


class PlanFacts(Record):
    """A plan in short.

    Attributes:
        value_counts: of each column its values and how many images have them; only their number where they are many,
            and nothing where they were not counted.
        seconds_per_picture, bytes_per_picture, load_seconds: as measured; None before.
        free_bytes: on the disk where it goes; None before.
    """

    num_items: int
    num_columns: int
    value_counts: dict[str, dict[str, int] | int]
    examples: tuple[Example, ...]
    notes: tuple[str, ...]
    seconds_per_picture: float | None = None
    bytes_per_picture: float | None = None
    load_seconds: float = 0.0
    free_bytes: int | None = None

    @classmethod
    def of(cls, plan: BatchPlan, *, counted: bool = True) -> "PlanFacts":
        """Without what only measuring can tell.

        Args:
            counted: whether values are counted, which takes a second or two for a million items.
        """
        counts = plan.value_counts() if counted else {}
        examples = tuple(
            Example(index=i.index, prompt=i.generation.prompt, caption=i.caption, seed=i.generation.seed)
            for i in plan.examples(EXAMPLES)
        )
        return cls(
            num_items=plan.num_items,
            num_columns=len(plan.columns),
            value_counts={c: count if isinstance(count, int) else dict(count) for c, count in counts.items()},
            examples=examples,
            notes=plan.notes,
        )

    @property
    def total_seconds(self) -> float | None:
        """Of the whole batch; None where it was not measured."""
        if self.seconds_per_picture is None:
            return None
        return self.load_seconds + self.num_items * self.seconds_per_picture

    @property
    def total_bytes(self) -> float | None:
        """Of all images; None where it was not measured."""
        return None if self.bytes_per_picture is None else self.num_items * self.bytes_per_picture

    @property
    def sentence(self) -> str:
        """`60 images in 1 min 04 s (1.07 s each), 1.2 MB of disk.`"""
        images = counted(self.num_items, "image", "images")
        if self.total_seconds is None or self.total_bytes is None:
            return _("{images}. Time and disk space are not measured yet.", images=images)
        said = _(
            "{images} in {time} ({each:.2f} s each), {size} of disk.",
            images=images,
            time=duration(self.total_seconds),
            each=self.seconds_per_picture,
            size=_size(self.total_bytes),
        )
        if self.free_bytes is None or self.total_bytes <= self.free_bytes:
            return said
        free = _("The disk has only {gigabytes:,.1f} GB: free some before it runs.", gigabytes=self.free_bytes / 1e9)
        return f"{said} {free}"

    @property
    def words(self) -> str:
        """All of it for a terminal."""
        lines = [self.sentence, ""]
        if self.total_seconds is not None:
            ready = clock_text(datetime.now() + timedelta(seconds=self.total_seconds))
            lines.insert(1, _("Started now, it is ready at {clock}.", clock=ready))
        for column, found in self.value_counts.items():
            if isinstance(found, int):
                said = counted(found, "value", "values")
            else:
                said = ", ".join(f"{value} {number(num)}" for value, num in found.items())
            lines.append(f"{column}: {said}")
        lines.append("")
        for shown in self.examples:
            seed = _("seed {seed}", seed=shown.seed)
            lines.append(f"{number(shown.index, '>7,')}  {seed}  {shown.prompt}")
        return "\n".join([*lines, "", *self.notes]).rstrip()


def _size(num_bytes: float) -> str:
    return f"{number(num_bytes / 1e6, ',.0f')} MB" if num_bytes < 1e9 else f"{number(num_bytes / 1e9, ',.1f')} GB"


MAX_LIKE = 20  # batches that are looked at for one like it, the newest first
MAX_MEASURED = 200  # of its images


@dataclass(frozen=True)
class Pace:
    """What an image takes on this machine, as it was measured."""

    seconds_per_picture: float
    bytes_per_picture: float


def pace_of_like(settings: BatchSettings, folders: Iterable[BatchFolder]) -> Pace | None:
    """The pace of the newest batch that made images with the same settings; None where there is no such batch.

    Time is in proportion to the passes of the U-Net; all else that it depends on must be the same.
    """
    wanted = _made_like(settings)
    for folder in list(folders)[:MAX_LIKE]:
        minutes = tuple(int(path.stat().st_mtime) // 60 for path in ledger_files(folder.ledgers))
        found = _made(folder, minutes)
        if found is not None and found[0] == wanted:
            __, passes, seconds, num_bytes = found
            return Pace(seconds * passes_of(settings.generation) / passes, num_bytes)
    return None


def passes_of(generation: GenerationSettings) -> int:
    """Passes of the U-Net for an image: two in each guided step."""
    steps = generation.num_inference_steps
    return steps + len(generation.guided_steps(steps))


_Alike = tuple[object, ...]


def _made_like(settings: BatchSettings) -> _Alike:
    generation = settings.generation
    own = settings.model, settings.precision, settings.cpu, settings.picture_format, settings.quality
    shared = generation.width, generation.height, generation.scheduler
    return (*own, *shared, len(generation.loras))


@lru_cache(maxsize=2 * MAX_LIKE)
def _made(folder: BatchFolder, _minutes: object) -> tuple[_Alike, int, float, float] | None:
    """(what its images' time depends on, passes, seconds and bytes of one); None where it tells nothing."""
    try:
        settings = read_batch_settings(folder)
        rows = list(islice((row for row in read_items(folder.ledgers) if row.state == "done"), MAX_MEASURED))
    except StudioError:
        return None  # a batch that cannot be read says so where it is shown
    if not rows:
        return None
    seconds, num_bytes = fmean(row.seconds for row in rows), fmean(row.num_bytes for row in rows)
    return _made_like(settings), passes_of(settings.generation), seconds, num_bytes
