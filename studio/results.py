"""What the engine tells the rest of the studio: plain facts, no torch, the same on disk and between processes."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.settings import GenerationSettings, ImagesSettings, PrecisionName, SmokeSettings


class Fact(BaseModel):
    """Frozen, and strict about names, so that a report from another version is refused and not misread."""

    # A difference can be infinite, and JSON's null would lose that.
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class MemorySample(Fact):
    """Memory at one moment, in bytes. `accelerator_*` are None on a CPU."""

    process_bytes: int
    system_available_bytes: int
    system_total_bytes: int
    accelerator_allocated_bytes: int | None = None
    accelerator_limit_bytes: int | None = None


class MemoryUse(Fact):
    """Memory before and after a piece of work, and the extremes in between (sampled every 50 ms)."""

    before: MemorySample
    after: MemorySample
    peak_process_bytes: int
    least_available_bytes: int
    peak_accelerator_bytes: int | None = None


class PrecisionDecision(Fact):
    """What `studio.engine.precision.decide_precision` decided, and why, in a sentence for the user."""

    precision: PrecisionName
    requested: PrecisionName
    reason: str

    @property
    def raised(self) -> bool:
        """True where the user asked for less than what is used."""
        return self.precision != self.requested


class Timings(Fact):
    """Seconds of one `generate()` call. `first_call` marks the warm-up after loading.

    Steps are timed in groups of a few, between two looks at the latents (a GPU works ahead of the clock in
    between), and each has its group's mean. Previews and what a watcher does are not in them.
    """

    text_seconds: float
    step_seconds: tuple[float, ...]
    vae_seconds: float
    total_seconds: float
    first_call: bool


class Check(Fact):
    """One check that an image passed or failed: its name, and what was seen."""

    name: str
    passed: bool
    finding: str


class EngineFacts(Fact):
    """The device, and what is loaded on it."""

    device: str
    device_name: str
    precision: PrecisionDecision
    model: str
    model_folder: str
    model_revision: str = ""
    parameters: int
    width: int
    height: int
    load_seconds: float
    load_memory: MemoryUse
    notes: tuple[str, ...] = ()


class ValidPicture(Fact):
    """A picture of the smoke test that passed every check; `file` is relative to the report."""

    prompt: str
    seed: int
    file: str
    shape: tuple[int, int, int]
    dtype: str
    low: int
    high: int
    checks: tuple[Check, ...]
    timings: Timings
    memory: MemoryUse
    valid: Literal[True] = True


class InvalidPicture(Fact):
    """A picture of the smoke test that failed a check: which, why, what to try, and where its copy lies."""

    prompt: str
    seed: int
    checks: tuple[Check, ...]
    error: str
    valid: Literal[False] = False


PictureRecord = Annotated[ValidPicture | InvalidPicture, Field(discriminator="valid")]


class LoraUsed(Fact):
    """A LoRA that acted in a picture. `sha256` is of its whole file, so that the very same one can be found again."""

    name: str
    strength: float
    sha256: str


class LoraCard(Fact):
    """A LoRA of the library as its file tells of itself. `problem` says why it cannot be used; empty where it can."""

    name: str
    path: Path
    size_bytes: int
    title: str = ""
    description: str = ""
    trigger: str = ""
    base_model: str = ""
    rank: int | None = None
    thumbnail: str = ""
    problem: str = ""


class ImageRecord(Fact):
    """All that is needed to make a picture again, and what its checks saw. It is kept inside the picture's file."""

    settings: GenerationSettings
    width: int
    height: int
    model: str
    model_revision: str
    scheduler: str
    loras: tuple[LoraUsed, ...]
    device: str
    precision: PrecisionName
    checks: tuple[Check, ...]
    timings: Timings
    made_at: datetime
    versions: dict[str, str]


class MadeImage(Fact):
    """A picture of the Generate mode that passed every check, and its file."""

    path: Path
    record: ImageRecord
    valid: Literal[True] = True


class FailedImage(Fact):
    """A picture that failed a check: which, and what to try."""

    settings: GenerationSettings
    checks: tuple[Check, ...]
    error: str
    valid: Literal[False] = False


class ImagesReport(Fact):
    """The pictures of one press of Generate, as far as they are made."""

    settings: ImagesSettings
    images: tuple[Annotated[MadeImage | FailedImage, Field(discriminator="valid")], ...] = ()
    finished: bool = False
    cancelled: bool = False


class DeviceDifference(Fact):
    """One part of the device check: the largest difference to the CPU, relative to the largest CPU value."""

    part: str
    difference: float
    limit: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.limit


class DeviceCheck(Fact):
    """The device compared with the CPU in float32. `differences` is empty on the CPU itself."""

    device: str
    device_name: str
    operating_system: str
    torch_version: str
    checked_at: datetime
    differences: tuple[DeviceDifference, ...] = ()

    @property
    def passed(self) -> bool:
        return all(difference.passed for difference in self.differences)

    @property
    def sentence(self) -> str:
        """The result in words."""
        if not self.differences:
            return f"The studio runs on the {self.device_name}: there is no other device to compare it with."
        worst = max(self.differences, key=lambda d: d.difference / d.limit)
        if self.passed:
            return (
                f"{self.device_name} computes what the CPU computes: the largest difference is "
                f"{worst.difference:.1e} ({worst.part}), {worst.limit:.0e} is allowed."
            )
        return (
            f"{self.device_name} does not compute what the CPU computes: {worst.part} differs by "
            f"{worst.difference:.1e}, {worst.limit:.0e} is allowed. Start the studio with --cpu, and update "
            f"the operating system and torch ({self.torch_version})."
        )


class SmokeReport(Fact):
    """The whole smoke test: what `report.json` holds."""

    started_at: datetime
    settings: SmokeSettings
    engine: EngineFacts
    pictures: tuple[PictureRecord, ...]
    versions: dict[str, str]
    cancelled: bool = False

    @property
    def valid_pictures(self) -> tuple[ValidPicture, ...]:
        return tuple(picture for picture in self.pictures if isinstance(picture, ValidPicture))

    @property
    def passed(self) -> bool:
        """True only when every prompt has its picture, and every picture is valid."""
        return len(self.valid_pictures) == len(self.settings.prompts)

    @property
    def seconds(self) -> tuple[float, ...]:
        """Seconds of each valid picture, in order."""
        return tuple(picture.timings.total_seconds for picture in self.valid_pictures)

    @property
    def verdict(self) -> str:
        """PASS or FAIL, and why, in words; STOPPED where it was cancelled."""
        total, valid = len(self.settings.prompts), len(self.valid_pictures)
        if self.passed:
            return f"PASS: {valid} of {total} pictures are valid."
        if self.cancelled:
            return f"STOPPED: cancelled after {len(self.pictures)} of {total} pictures, so there is no verdict."
        reasons = " ".join(f"{p.prompt}: {p.error}" for p in self.pictures if isinstance(p, InvalidPicture))
        return f"FAIL: {total - valid} of {total} pictures are not valid. {reasons}"


class SavedReport(Fact):
    """A report and the folder it was saved in, with its pictures."""

    folder: Path
    report: SmokeReport
