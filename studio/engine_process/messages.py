"""What the page and the engine process say to one another: JSON, one message a line.

JSON lines over pipes survive a restart of either side, are checked by pydantic at both ends, and can be replayed.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from studio.results import (
    DeviceCheck,
    EngineFacts,
    Fact,
    InvalidPicture,
    MemorySample,
    PictureRecord,
    SavedReport,
    ValidPicture,
)
from studio.settings import ModelSettings, SmokeSettings

Picture = ValidPicture | InvalidPicture


class Load(Fact):
    """Load a model, in place of the one before."""

    kind: Literal["load"] = "load"
    settings: ModelSettings


class Smoke(Fact):
    """Run the smoke test."""

    kind: Literal["smoke"] = "smoke"
    settings: SmokeSettings


class CheckDevice(Fact):
    """Compare the device with the CPU."""

    kind: Literal["check_device"] = "check_device"


class Cancel(Fact):
    """Stop the running task at its next step."""

    kind: Literal["cancel"] = "cancel"


class Starting(Fact):
    """The process has the device, and loads torch."""

    kind: Literal["starting"] = "starting"


class Waiting(Fact):
    """Another process has the device."""

    kind: Literal["waiting"] = "waiting"
    owner: str


class Loading(Fact):
    """A model is being loaded."""

    kind: Literal["loading"] = "loading"
    model: str


class Loaded(Fact):
    """A model is loaded; `device_check` is what is known of this machine from before."""

    kind: Literal["loaded"] = "loaded"
    facts: EngineFacts
    device_check: DeviceCheck | None


class Step(Fact):
    """A step of picture `picture` (from 0) is done; `preview_png` is base64, there every few steps."""

    kind: Literal["step"] = "step"
    picture: int
    step: int
    num_steps: int
    elapsed_seconds: float
    memory: MemorySample
    preview_png: str | None = None


class PictureDone(Fact):
    """A picture is done, valid or not; `folder` is where its file lies."""

    kind: Literal["picture_done"] = "picture_done"
    picture: int
    folder: Path
    record: PictureRecord


class SmokeDone(Fact):
    """The smoke test is over: passed, failed or cancelled, as the report says."""

    kind: Literal["smoke_done"] = "smoke_done"
    saved: SavedReport


class DeviceChecked(Fact):
    """The device check is done."""

    kind: Literal["device_checked"] = "device_checked"
    check: DeviceCheck


class Failed(Fact):
    """A request could not be carried out; `message` is for the user."""

    kind: Literal["failed"] = "failed"
    message: str


Request = Load | Smoke | CheckDevice | Cancel
Event = Starting | Waiting | Loading | Loaded | Step | PictureDone | SmokeDone | DeviceChecked | Failed

REQUESTS: TypeAdapter[Request] = TypeAdapter(Annotated[Request, Field(discriminator="kind")])
EVENTS: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def to_line(message: Request | Event) -> bytes:
    """One message as one line of JSON."""
    return message.model_dump_json().encode() + b"\n"
