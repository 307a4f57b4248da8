"""Caption files: strict UTF-8, one line each; what is not is named with its byte, and can be read by a guess."""

import stat
from dataclasses import dataclass
from pathlib import Path

from charset_normalizer import from_bytes

from studio.dataset.problems import Problem
from studio.errors import DatasetError

MAX_CAPTION_BYTES = 64 * 1024

_BOMS = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"\xef\xbb\xbf", "utf-8-sig"))
# What charset-normalizer may choose from: encodings that caption files really have.
_GUESSES = ["utf_8", "cp1252", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr", "cp1251", "utf_16_le", "utf_16_be"]
_MIN_LATIN_SHARE = 0.75


@dataclass(frozen=True)
class CaptionReading:
    """A caption file's text, on one line; None where it cannot be read, and `problems` says why."""

    text: str | None
    problems: tuple[Problem, ...] = ()


def read_caption(path: Path) -> CaptionReading:
    """Read a caption file. Never raises for what it holds, nor for what it is."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
            return _rejected("caption not a file", "The caption's name belongs to something that is no file.")
        if status.st_size > MAX_CAPTION_BYTES:
            return _rejected(
                "caption too large",
                f"The caption file has {status.st_size:,} bytes, and a caption is a line or two. Look what it is.",
            )
        content = path.read_bytes()
    except OSError as error:
        return _rejected("caption unreadable", f"The caption file cannot be read ({error.strerror}).")
    return decode_caption(content)


def decode_caption(content: bytes) -> CaptionReading:
    """The text of a caption file's bytes."""
    problems = []
    if content.startswith(b"\xef\xbb\xbf"):
        content = content[3:]
        problems.append(_note("caption with BOM", "The caption file begins with a byte order mark, which is left out."))
    try:
        decoded = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return _not_utf8(content, error.start)
    if "\0" in decoded:
        return _rejected(
            "caption with NUL",
            f"Byte {decoded.index(chr(0)) + 1} of the caption file is zero, so it is no plain text. Write it anew.",
        )
    lines = [" ".join(line.split()) for line in decoded.splitlines()]
    filled = [line for line in lines if line]
    if not filled:
        problems.append(_note("caption empty", "The caption file is empty, so the picture is learned for no prompt."))
    if len(filled) > 1:
        sentence = f"The caption file has {len(filled)} lines, which are joined to one."
        problems.append(_note("caption of several lines", sentence))
    return CaptionReading(" ".join(filled), tuple(problems))


def guess_caption(path: Path) -> tuple[str, str]:
    """Read a caption that is not UTF-8 in the encoding that fits it best: (text, encoding).

    A guess: short texts fit many encodings, so whoever asked must look at the result.

    Raises:
        DatasetError: where no encoding fits, or it is no caption file.
        OSError: where it cannot be read.
    """
    if not path.is_file() or path.stat().st_size > MAX_CAPTION_BYTES:
        raise DatasetError(f"{path.name} is no caption file.")
    text, encoding = guess_text(path.read_bytes())
    if "\0" in text:
        raise DatasetError(f"{path.name} fits no encoding of text. Write the caption anew.")
    return " ".join(text.split()), encoding


def guess_text(content: bytes) -> tuple[str, str]:
    """The bytes as text, and the encoding that fits them best.

    Raises:
        DatasetError: where none fits.
    """
    for mark, encoding in _BOMS:
        if content.startswith(mark):
            try:
                return content.decode(encoding), encoding
            except UnicodeDecodeError:
                break
    if _is_mostly_ascii(content):  # too little else for statistics: west-European text with an accent or two
        try:
            return content.decode("cp1252"), "cp1252"
        except UnicodeDecodeError:
            return content.decode("latin-1"), "latin-1"
    best = from_bytes(content, cp_isolation=_GUESSES, threshold=0.6).best()
    if best is None:
        raise DatasetError("The bytes fit no encoding that captions are written in.")
    return str(best), best.encoding


def _is_mostly_ascii(content: bytes) -> bool:
    letters = sum(byte >= 0x20 and byte < 0x7F for byte in content)
    return b"\0" not in content and letters >= _MIN_LATIN_SHARE * len(content)


def _not_utf8(content: bytes, position: int) -> CaptionReading:
    try:
        text, encoding = guess_text(content)
        shown = " ".join(text.split())[:80]
        guess = f" It could be {encoding}: “{shown}”. Re-encode the caption if that reads right."
    except DatasetError:
        guess = " Save it as UTF-8."
    problem = Problem(
        code="caption not UTF-8",
        severity="reject",
        sentence=f"Byte {position + 1} of the caption file, 0x{content[position]:02x}, is not UTF-8.{guess}",
        remedies=("recode caption", "exclude"),
    )
    return CaptionReading(None, (problem,))


def _rejected(code: str, sentence: str) -> CaptionReading:
    return CaptionReading(None, (Problem(code=code, severity="reject", sentence=sentence, remedies=("exclude",)),))


def _note(code: str, sentence: str) -> Problem:
    return Problem(code=code, severity="note", sentence=sentence)
