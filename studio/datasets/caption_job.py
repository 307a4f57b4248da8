"""The job that writes captions. No torch: the model is loaded by whoever runs it, as this room knows none."""

import os
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from filelock import FileLock, Timeout
from PIL import Image

from studio.core.errors import CancelledError, DatasetError, PictureFileError, error_message
from studio.core.language import _
from studio.core.paths import UserData
from studio.datasets.captioning import (
    CaptionFolder,
    CaptionSettings,
    ImageCaptions,
    finished_caption,
    finished_tags,
    open_dataset,
    outcome_words,
    read_caption_settings,
    read_captions,
    rows_to_caption,
)
from studio.datasets.source import DatasetRow
from studio.images.decoding import open_rgb
from studio.jobs.device_lock import device_turn
from studio.jobs.folder import StopRequests, StopSignal, forget_old_requests, take_requests
from studio.jobs.reporter import JobReporter, report_failure, retry_until_disk_space

CaptionEnd = Literal["finished", "stopped", "paused"]


class Captioner(Protocol):
    """A loaded model."""

    @property
    def says_tags(self) -> bool:
        """Whether what it says are tags, separated by commas."""

    def caption(
        self, image: Image.Image, *, prompt: str, num_candidates: int, max_new_tokens: int, seed: int
    ) -> tuple[str, ...]:
        """What it says of an RGB image."""


LoadCaptioner = Callable[[CaptionSettings, Callable[[str], None], Callable[[], bool]], Captioner]
"""Loads the settings' model; told to say what it does, and how to hear that it should stop."""


def run_captioning(folder: CaptionFolder, user_data: UserData, load: LoadCaptioner) -> CaptionEnd:
    """Caption every image that is not captioned yet, to the end or to a stop.

    This is the boundary of the job's process: whatever ends it is in the job's status, and goes on up.

    Raises:
        StudioError: what the user can act on.
        OSError, MemoryError, RuntimeError: likewise, of the system and of the device.
    """
    stop = StopSignal()
    with _alone(folder), stop.listening():
        try:
            forget_old_requests(folder)
            settings = read_caption_settings(folder)
            reporter = JobReporter(folder, num_steps=0)
            job = CaptionJob(folder, settings, user_data, reporter, StopRequests(folder, stop))
            try:
                purpose = _("the captions of {name}", name=settings.dataset)
                should_stop = job.requests.should_stop
                with device_turn(user_data, purpose, waiting=reporter.waits_for_device, given_up=should_stop):
                    end = job.work(load)
            except CancelledError:
                end = job.end_early()
            take_requests(folder)  # answered
            return end
        except BaseException as error:
            report_failure(folder, error, error_message(error))
            raise


@contextmanager
def _alone(folder: CaptionFolder) -> Iterator[None]:
    lock = FileLock(folder.lock)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise DatasetError(_("{name} is being worked on. Stop it first.", name=folder.name)) from error
    try:
        yield
    finally:
        lock.release()


@dataclass
class CaptionJob:
    """The work on one job, from where it stands."""

    folder: CaptionFolder
    settings: CaptionSettings
    user_data: UserData
    reporter: JobReporter
    requests: StopRequests
    made: dict[str, ImageCaptions] = field(default_factory=dict)

    def work(self, load: LoadCaptioner) -> CaptionEnd:
        """Load the model and caption what is left."""
        opened = open_dataset(self.settings, self.user_data)
        self.made = dict(read_captions(self.folder))
        left = [row for row in rows_to_caption(opened, self.settings.which) if row.key not in self.made]
        self.reporter.num_steps = len(self.made) + len(left)
        self.reporter.state("preparing", _("Loading {model}.", model=self.settings.model), step=len(self.made))
        captioner = load(self.settings, self.reporter.progress, self.requests.should_stop) if left else None
        self.reporter.state("running", step=len(self.made))
        for row in left:
            if self.requests.should_stop():
                return self.end_early()
            assert captioner is not None
            self._keep(self._caption(captioner, row, background=opened.recipe.background))
        self.reporter.state("finished", outcome_words(self.made.values()), step=len(self.made))
        return "finished"

    def end_early(self) -> CaptionEnd:
        """Say how far it came."""
        outcome = self.requests.outcome
        num, total = len(self.made), self.reporter.num_steps
        message = _("{num:,} of {total:,} images are captioned; resume to continue.", num=num, total=total)
        self.reporter.state(outcome, message, step=num)
        return outcome

    def _caption(self, captioner: Captioner, row: DatasetRow, *, background: str) -> ImageCaptions:
        started = time.monotonic()
        asked = self.settings
        try:
            image = open_rgb(row.path, background=background)
        except PictureFileError as error:
            return ImageCaptions(key=row.key, problem=str(error))
        said = captioner.caption(
            image,
            prompt=asked.prompt,
            num_candidates=asked.num_candidates,
            max_new_tokens=asked.max_new_tokens,
            seed=asked.seed + zlib.crc32(row.key.encode(errors="replace")),  # of each image, in whichever order
        )
        finished = finished_tags if captioner.says_tags else finished_caption
        captions = dict.fromkeys(filter(None, (finished(text, asked) for text in said)))
        problem = "" if captions else _("Nothing is left of what the model said.")
        seconds = time.monotonic() - started
        return ImageCaptions(key=row.key, candidates=tuple(captions), problem=problem, seconds=seconds)

    def _keep(self, made: ImageCaptions) -> None:
        retry_until_disk_space(
            lambda: _append(self.folder.captions, made.model_dump_json().encode() + b"\n"),
            what=_("a caption"),
            reporter=self.reporter,
            should_stop=self.requests.should_stop,
            stopped=CancelledError(_("Stopped while it waited for room on the disk.")),
        )
        self.made[made.key] = made
        num, total = len(self.made), self.reporter.num_steps
        self.reporter.stepped(
            num,
            made.seconds,
            lambda mean: _("{num:,} of {total:,} images  {mean:.2f} s each", num=num, total=total, mean=mean),
        )


def _append(path: Path, line: bytes) -> None:
    """All of a line or none of it; one that a kill cut off is ended first."""
    with path.open("ab+") as file:
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            line = line if file.read(1) == b"\n" else b"\n" + line
        try:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.truncate(path, end)
            raise
