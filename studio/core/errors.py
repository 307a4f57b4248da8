"""What users see when something cannot be done: one root, few branches, each message a whole sentence."""

import errno
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from studio.core.language import N_, _, said

MAX_FOREIGN_WORDS = 300
"""Characters that are shown of an error which is not ours: some tell all that they were given."""


class FieldProblem(NamedTuple):
    """A sentence, and the settings that it is about: `rank`, or of settings inside others `generation.loras.0.name`."""

    text: str
    fields: tuple[str, ...]


class StudioError(Exception):
    """Something the user can act on; its text says what happened, why, and what to do.

    Attributes:
        problems: the same by the settings that are to blame; empty where none is known.
    """

    problems: tuple[FieldProblem, ...] = ()

    def __str__(self) -> str:
        return said(super().__str__())

    def about(self, *fields: str) -> Self:
        """The same error, which these settings are to blame for: a form says it there."""
        self.problems = (FieldProblem(str(self), fields),)
        return self


class SettingsError(StudioError):
    """A setting that breaks its rule: `num_inference_steps must be between 1 and 150, got 0.`"""


class ModelError(StudioError):
    """A model that cannot be found, read or used."""


class PrecisionError(StudioError):
    """A parameter or buffer that is not in the precision which the policy decided."""


class EngineError(StudioError):
    """The engine process cannot do what it was asked: busy, starting, or gone."""


class LoraError(StudioError):
    """A LoRA file that cannot be found, read or attached; the model is as it was before."""


class WeightsFileError(StudioError):
    """A file of weights that is not safetensors, or is damaged."""


class PictureFileError(StudioError):
    """An image file that cannot be read, or carries no settings."""


class DatasetError(StudioError):
    """A dataset, a folder or a table that cannot be found, read or changed."""


class RunError(StudioError):
    """A run or a job that cannot be found, started, resumed or steered."""


class TrainingError(StudioError):
    """A training that cannot begin, or cannot go on; what was saved before is still there."""


class BatchError(StudioError):
    """A batch that cannot be planned, found or made."""


class UnreadableFileError(OSError):
    """What bears a file's name and is none, or holds more than is read of it; it was not opened."""


class SkippedError(StudioError):
    """A bench that cannot run here; its text says what it needs."""


class CancelledError(StudioError):
    """The user cancelled; nothing is wrong."""


class GenerationCancelledError(CancelledError):
    """The user cancelled while an image was being made."""


class DownloadCancelledError(CancelledError):
    """The user cancelled a download; what has arrived is kept, and the next attempt continues from there."""


class NotEnoughMemoryError(StudioError):
    """What was asked for takes more memory than the device has, as its shapes tell before anything is computed."""


class DeviceError(StudioError):
    """The device computes wrongly what the studio cannot do without."""


CHECK_NAMES = (N_("latents"), N_("decoded"), N_("image"))
"""The checks of `studio.engine.validation`, in their order."""


class InvalidImageError(StudioError):
    """An image that failed a check of `studio.engine.validation`, and so was not shown or saved as good.

    Attributes:
        check: which check failed, of CHECK_NAMES.
        step: the denoising step (1-based) at which it was seen; None for the checks after denoising.
        finding: what was seen, in a sentence.
        advice: what to try, in a sentence.
        rejected_file: where the copy for diagnosis lies; None where it could not be kept.
    """

    def __init__(
        self,
        *,
        check: str,
        finding: str,
        advice: str,
        step: int | None = None,
        rejected_file: Path | None = None,
    ) -> None:
        self.check = check
        self.step = step
        self.finding = finding
        self.advice = advice
        self.rejected_file = rejected_file
        super().__init__(str(self))

    def __str__(self) -> str:
        check, said = _(self.check), [self.finding, self.advice]
        if self.step is None:
            failed = _("The {check} check failed:", check=check)
        else:
            failed = _("The {check} check failed at step {step}:", check=check, step=self.step)
        if self.rejected_file:
            said.append(_("A copy for diagnosis is in {file}.", file=self.rejected_file))
        return " ".join([failed, *said])


@contextmanager
def about(*fields: str) -> Iterator[None]:
    """Whatever error of ours the block raises is about these settings, where it names none itself."""
    try:
        yield
    except StudioError as error:
        if not error.problems:
            error.about(*fields)
        raise


# How torch, on each device, and the systems say that memory ran out; MemoryError itself says nothing.
_NO_MEMORY_WORDS = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "memoryerror",
    "bad_alloc",
    "invalid buffer size",  # Metal: one tensor larger than a buffer may be
    "tensor dims larger than int_max",  # MPSGraph
    "total bytes of ndarray",  # MPSGraph: over 4 GiB
)


def says_no_memory(words: str) -> bool:
    """Whether an error's words, or the end of a log, say that there was too little memory."""
    return any(said in words.lower() for said in _NO_MEMORY_WORDS)


def error_message(error: BaseException) -> str:
    """What the user reads of any error: of ours its own words, else `system_error_message`."""
    return str(error) if isinstance(error, StudioError) else system_error_message(error)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, in whatever words the system or the device says it."""
    return isinstance(error, MemoryError) or says_no_memory(str(error))


def is_disk_full(error: BaseException) -> bool:
    """Whether a disk, or the user's part of it, had no room left for what was written."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def system_error_message(error: BaseException) -> str:
    """What the user reads of an error that is not ours: memory, disk and permission said as such."""
    if is_out_of_memory(error):
        return _(
            "There is not enough memory for this. Choose a smaller image size or a smaller model, or close other"
            " programs."
        )
    if isinstance(error, OSError):
        place = error.filename or _("a file")
        if is_disk_full(error):
            return _("The disk is full: {place} could not be written. Free some space, then try again.", place=place)
        if isinstance(error, UnreadableFileError):
            return _("{place} cannot be read: {reason}. Choose another file.", place=place, reason=error.strerror)
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return _(
                "{place} is not writable. Change its permissions, or choose another folder with --user-data.",
                place=place,
            )
        return _("The system refused: {error}.", error=error)
    said = textwrap.shorten(str(error), MAX_FOREIGN_WORDS, placeholder="…")
    return _(
        "This should not have happened: {kind}: {said}. The log has the details.", kind=type(error).__name__, said=said
    )
