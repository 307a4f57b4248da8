"""What the page and the engine process say to one another: JSON, one message a line.

JSON lines over pipes survive a restart of either side, are checked by pydantic at both ends, and can be replayed.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from studio.core.language import language
from studio.core.records import Record
from studio.core.results import (
    DeviceCheck,
    EngineFacts,
    ImagesReport,
    InvalidPicture,
    PictureRecord,
    SavedReport,
    ValidPicture,
)
from studio.core.settings import CompareSettings, ImagesSettings, ModelSettings, SmokeSettings
from studio.core.system import MemorySample
from studio.images.comparison import SavedComparison

Picture = ValidPicture | InvalidPicture


class Asked(Record):
    """What the page asks; answers are in the language of whoever asked."""

    language: str = Field(default_factory=language)


class Load(Asked):
    """Load a model, in place of the one before."""

    kind: Literal["load"] = "load"
    settings: ModelSettings


class Smoke(Asked):
    """Run the smoke test; where `speeds` says so, then measure what each speed costs on its prompts."""

    kind: Literal["smoke"] = "smoke"
    settings: SmokeSettings
    speeds: bool = False


class CheckDevice(Asked):
    """Check the device against the CPU."""

    kind: Literal["check_device"] = "check_device"


class Generate(Asked):
    """Make some images."""

    kind: Literal["generate"] = "generate"
    settings: ImagesSettings


class Compare(Asked):
    """Make images with the LoRAs of two sides."""

    kind: Literal["compare"] = "compare"
    settings: CompareSettings


class CheckLora(Asked):
    """Read a LoRA of the library against the loaded model, without attaching it."""

    kind: Literal["check_lora"] = "check_lora"
    name: str


class Cancel(Asked):
    """Stop the running task at its next step."""

    kind: Literal["cancel"] = "cancel"


class Starting(Record):
    """The process has the device, and loads torch."""

    kind: Literal["starting"] = "starting"


class Waiting(Record):
    """Another process has the device."""

    kind: Literal["waiting"] = "waiting"
    owner: str


class Loading(Record):
    """A model is being loaded."""

    kind: Literal["loading"] = "loading"
    model: str


class Downloading(Record):
    """A model is on its way: bytes of all its files together."""

    kind: Literal["downloading"] = "downloading"
    file: str
    done_bytes: int
    total_bytes: int
    elapsed_seconds: float


class Loaded(Record):
    """A model is loaded.

    `tokenizer_file` is the model's tokenizer as one JSON file, so that the page can count tokens without torch.
    """

    kind: Literal["loaded"] = "loaded"
    facts: EngineFacts
    tokenizer_file: Path


class Step(Record):
    """A step of image `picture` (from 0) is done; `preview_png` is base64, there every few steps."""

    kind: Literal["step"] = "step"
    picture: int
    num_pictures: int
    step: int
    num_steps: int
    elapsed_seconds: float
    memory: MemorySample
    preview_png: str | None = None


class RunNote(Record):
    """What the user should know of the run before it goes on: the memory that a large image takes."""

    kind: Literal["run_note"] = "run_note"
    message: str


class PictureDone(Record):
    """An image is done, valid or not; `folder` is where its file lies."""

    kind: Literal["picture_done"] = "picture_done"
    picture: int
    folder: Path
    record: PictureRecord


class SmokeDone(Record):
    """The smoke test is over: passed, failed or cancelled, as the report says."""

    kind: Literal["smoke_done"] = "smoke_done"
    saved: SavedReport


class ImagesChanged(Record):
    """An image of Generate is done, or the run is over, as the report says."""

    kind: Literal["images_changed"] = "images_changed"
    report: ImagesReport


class ComparisonChanged(Record):
    """An image of a comparison is done, or it is over, as the report says."""

    kind: Literal["comparison_changed"] = "comparison_changed"
    saved: SavedComparison


class LoraChecked(Record):
    """Whether a LoRA fits the loaded model: what it changes, what one may not expect of it, or why it does not fit."""

    kind: Literal["lora_checked"] = "lora_checked"
    name: str
    changes: str = ""
    notes: tuple[str, ...] = ()
    problem: str = ""


class CheckingDevice(Record):
    """The device check has come to a part of its own; a load makes it first where it was not made yet."""

    kind: Literal["checking_device"] = "checking_device"
    part: str


class DeviceChecked(Record):
    """The device check is done."""

    kind: Literal["device_checked"] = "device_checked"
    check: DeviceCheck


class MakingRoom(Record):
    """The engine ends, because another process waits for the device; a new one may wait in its turn."""

    kind: Literal["making_room"] = "making_room"
    owner: str


class Failed(Record):
    """A request could not be carried out; `message` is for the user, `facts` are of the model that is still loaded."""

    kind: Literal["failed"] = "failed"
    message: str
    facts: EngineFacts | None


Run = Smoke | Generate | Compare
Request = Load | Smoke | Generate | Compare | CheckLora | CheckDevice | Cancel
Event = (
    Starting
    | Waiting
    | Loading
    | Downloading
    | Loaded
    | Step
    | RunNote
    | PictureDone
    | SmokeDone
    | ImagesChanged
    | ComparisonChanged
    | LoraChecked
    | CheckingDevice
    | DeviceChecked
    | MakingRoom
    | Failed
)

REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def to_line(message: Request | Event) -> bytes:
    """One message as one line of JSON."""
    return message.model_dump_json().encode() + b"\n"
