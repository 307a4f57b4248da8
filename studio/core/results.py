"""What the engine tells the rest of the studio: plain facts, no torch, the same on disk and between processes."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from studio.core.language import _
from studio.core.records import AnyFloat, KeptText, Record
from studio.core.settings import GenerationSettings, ImagesSettings, PrecisionName, SmokeSettings
from studio.core.system import MemoryUse


class PrecisionDecision(Record):
    """What `studio.engine.device.decide_precision` decided, and why, in a sentence for the user."""

    precision: PrecisionName
    requested: PrecisionName
    reason: KeptText
    tf32: bool = False

    @property
    def raised(self) -> bool:
        """True where the user asked for less than what is used."""
        return self.precision != self.requested


class Timings(Record):
    """Seconds of one `generate()` call. `first_call` marks the warm-up after loading.

    Steps are timed in groups of a few, between two looks at the latents (a GPU works ahead of the clock in
    between), and each has its group's mean. Previews and what a watcher does are not in them.
    """

    text_seconds: float
    step_seconds: tuple[float, ...]
    vae_seconds: float
    total_seconds: float
    first_call: bool


class Check(Record):
    """One check that an image passed or failed: its name, and what was seen."""

    name: str
    passed: bool
    finding: str


class DeviceDifference(Record):
    """One part of the device check: the largest difference to the CPU, relative to the largest CPU value.

    `consequence` is what the studio does where the part is wrong, empty where it cannot do without it; both in English.
    """

    part: str
    difference: AnyFloat
    limit: float
    seconds: float | None = None
    memory_bytes: int | None = None
    consequence: str = ""

    @property
    def passed(self) -> bool:
        return self.difference <= self.limit

    @property
    def words(self) -> str:
        """`VAE decode differs by 2.0e-01, 1e-02 is allowed`."""
        part = _(self.part)
        return _("{part} differs by {by:.1e}, {limit:.0e} is allowed", part=part, by=self.difference, limit=self.limit)


class AttentionTrial(Record):
    """One way to compute attention, tried on a device at its real size; fields as `AttentionPlan`'s."""

    max_scores: int | None
    contiguous: bool
    head_width: int | None
    difference: AnyFloat
    limit: float
    seconds: float
    memory_bytes: int | None = None

    @property
    def passed(self) -> bool:
        return self.difference <= self.limit

    @property
    def label(self) -> str:
        """`chunks of 64 MiB`, `whole, heads widened to 64`."""
        size = _("whole") if self.max_scores is None else _("chunks of {mib} MiB", mib=self.max_scores * 4 // 2**20)
        widened = self.head_width is not None
        return _("{size}, heads widened to {width}", size=size, width=self.head_width) if widened else size


CHECK_FORMAT = 2  # of a device check; an older one is made anew
# A smaller chunk that is nearly as fast is better: it takes less memory.
NEARLY_AS_FAST = 1.05


class DeviceCheck(Record):
    """The device compared with the CPU in float32. `differences` is empty on the CPU itself."""

    device: str
    device_name: str
    operating_system: str
    torch_version: str
    checked_at: datetime
    differences: tuple[DeviceDifference, ...] = ()
    attention: tuple[AttentionTrial, ...] = ()
    format: int = 1

    @staticmethod
    def chosen_of(trials: Sequence[AttentionTrial]) -> AttentionTrial | None:
        """The fastest way to compute attention that is right, the first one that is nearly so; None where none is."""
        right = [trial for trial in trials if trial.passed]
        fastest = min((trial.seconds for trial in right), default=0.0)
        return next((trial for trial in right if trial.seconds <= NEARLY_AS_FAST * fastest), None)

    @property
    def chosen_attention(self) -> AttentionTrial | None:
        return self.chosen_of(self.attention)

    @property
    def passed(self) -> bool:
        """Whether all that the studio cannot do without is right."""
        wrong = any(not difference.passed and not difference.consequence for difference in self.differences)
        return not wrong and (not self.attention or self.chosen_attention is not None)

    def is_wrong(self, part: str) -> bool:
        """Whether a part was compared and found wrong."""
        return any(not difference.passed for difference in self.differences if difference.part == part)

    @property
    def avoided(self) -> tuple[DeviceDifference, ...]:
        """What is wrong, and the studio does without."""
        return tuple(d for d in self.differences if not d.passed and d.consequence)

    @property
    def sentence(self) -> str:
        """The result in words."""
        device = self.device_name
        if not self.differences and not self.attention:
            return _("The studio runs on the {device}: there is no other device to compare it with.", device=device)
        if not self.passed:
            return f"{self.fault} {self.advice}"
        worst = max((d for d in self.differences if d.passed), key=lambda d: d.difference / d.limit)
        matches = _(
            "{device} matches the CPU: the largest difference is {difference:.1e} ({part}), {limit:.0e} is allowed.",
            device=device,
            difference=worst.difference,
            part=_(worst.part),
            limit=worst.limit,
        )
        chosen = self.chosen_attention
        attention = [_("Attention: {label}, the fastest correct method.", label=chosen.label)] if chosen else []
        avoided = [_("Wrong here: {part}; {instead}.", part=_(d.part), instead=_(d.consequence)) for d in self.avoided]
        return " ".join([matches, *attention, *avoided])

    @property
    def fault(self) -> str:
        """Of a check that is not passed, what is wrong, in a sentence."""
        if self.attention and self.chosen_attention is None:
            why = _("no attention method is correct, of {num_tried} that were tried", num_tried=len(self.attention))
        else:
            why = max((d for d in self.differences if not d.consequence), key=lambda d: d.difference / d.limit).words
        return _("{device} does not match the CPU: {why}.", device=self.device_name, why=why)

    @property
    def advice(self) -> str:
        """What to do then."""
        torch = self.torch_version
        return _("Start the studio with --cpu, and update the operating system and torch ({torch}).", torch=torch)


class EngineFacts(Record):
    """The device, and what is loaded on it. `device_check` is None where it was not made, as on a CPU."""

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
    device_check: DeviceCheck | None = None


class ValidPicture(Record):
    """An image of the smoke test that passed every check; `file` is relative to the report."""

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


class InvalidPicture(Record):
    """An image of the smoke test that failed a check: which, why, what to try, and where its copy lies."""

    prompt: str
    seed: int
    checks: tuple[Check, ...]
    error: str
    valid: Literal[False] = False


PictureRecord = Annotated[ValidPicture | InvalidPicture, Field(discriminator="valid")]


class LoraUsed(Record):
    """A LoRA that acted in an image.

    `sha256` is of its whole file, so that the very same one can be found again; `weights_hash` is what A1111 knows it
    by, empty in images made before the studio kept it.
    """

    name: str
    strength: float
    sha256: str
    weights_hash: str = ""


class LoraCard(Record):
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
    notes: tuple[str, ...] = ()


class ImageRecord(Record):
    """All that is needed to make an image again, and what its checks saw. It is kept inside the image's file."""

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


class MadeImage(Record):
    """An image of the Generate mode that passed every check, and its file."""

    path: Path
    record: ImageRecord
    valid: Literal[True] = True


class FailedImage(Record):
    """An image that failed a check: which, and what to try."""

    settings: GenerationSettings
    checks: tuple[Check, ...]
    error: str
    valid: Literal[False] = False


class ImagesReport(Record):
    """The images of one press of Generate, as far as they are made."""

    settings: ImagesSettings
    images: tuple[Annotated[MadeImage | FailedImage, Field(discriminator="valid")], ...] = ()
    finished: bool = False
    cancelled: bool = False


class SmokeReport(Record):
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
        """True only when every prompt has its image, and every image is valid."""
        return len(self.valid_pictures) == len(self.settings.prompts)

    @property
    def seconds(self) -> tuple[float, ...]:
        """Seconds of each valid image, in order."""
        return tuple(picture.timings.total_seconds for picture in self.valid_pictures)

    @property
    def verdict(self) -> str:
        """PASS or FAIL, and why, in words; STOPPED where it was cancelled."""
        return ": ".join(self.verdict_parts)

    @property
    def verdict_parts(self) -> tuple[str, str]:
        """(PASS, why)."""
        total, valid = len(self.settings.prompts), len(self.valid_pictures)
        if self.passed:
            return _("PASS"), _("{valid} of {total} images are valid.", valid=valid, total=total)
        if self.cancelled:
            made = len(self.pictures)
            why = _("cancelled after {made} of {total} images, so there is no verdict.", made=made, total=total)
            return _("STOPPED"), why
        reasons = [f"{p.prompt}: {p.error}" for p in self.pictures if isinstance(p, InvalidPicture)]
        failed = _("{invalid} of {total} images are not valid.", invalid=total - valid, total=total)
        return _("FAIL"), " ".join([failed, *reasons])


class SavedReport(Record):
    """A report and the folder it was saved in, with its images."""

    folder: Path
    report: SmokeReport
