"""Captions in files beside the images: strict UTF-8, one line each.

What is not is named with its byte, and can be read by a guess.
"""

import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from studio.core.errors import DatasetError
from studio.core.files import guess_text, read_file
from studio.core.language import N_, _
from studio.images.records import Problem, Remedy

MAX_CAPTION_BYTES = 64 * 1024
_UTF8_MARK = b"\xef\xbb\xbf"
_MARKS = re.compile(r"^[\s\ufeff]+")
_RTF_MARK = b"{\\rtf"
# striprtf's patterns for links and fonts can take hours on a file of a few kB: links are taken as the text they show.
_FIELD = re.compile(r"\\field(?![a-z])", re.IGNORECASE)
# The second byte of a character of East Asia may be written as the letter that it would be alone: テ is \'83e.
_PAIR = re.compile(r"(\\'(?:[89a-e][0-9a-f]|f[0-9a-e]))(?:(\\'[0-9a-f]{2})|([@-\[\]^-z|~]))", re.IGNORECASE)
_FONT_TABLE = re.compile(r"\{[^{}]*\\fonttbl")
_FONT = re.compile(r"\\f\d")
_BRACE = re.compile(r"[{}]")
MAX_FONTS = 500
_RANKS = {".txt": 0, ".caption": 1}  # .txt is what most tools write


@dataclass(frozen=True)
class CaptionReading:
    """A caption file's text, on one line; None where it cannot be read, and `problems` says why."""

    text: str | None
    problems: tuple[Problem, ...] = ()


def name_of(key: str) -> str:
    """A path in one of the two ways in which Unicode writes an accent: Macs use the other."""
    return unicodedata.normalize("NFC", key)


def stem_of(key: str) -> str:
    """The same, without its ending."""
    return name_of(str(PurePosixPath(key).with_suffix("")))


def find_captions(pictures: Sequence[str], captions: Sequence[str]) -> dict[str, list[str]]:
    """The caption files of each image, the one that counts first: `a.txt`, `a.png.txt`, then other endings.

    Where `a.png` and `a.jpg` share `a.txt`, what has the image's whole name counts first.
    """
    by_stem = defaultdict(list)
    for file in captions:
        by_stem[stem_of(file)].append(file)
    owners = _owners(pictures)

    def rank(file: str) -> int:
        return _RANKS.get(PurePosixPath(file).suffix.lower(), len(_RANKS))

    found = {}
    for key in pictures:
        of_stem, of_name = (sorted(by_stem.get(name, ()), key=rank) for name in (stem_of(key), name_of(key)))
        is_shared = len(owners[stem_of(key)]) > 1
        # Sorting keeps the order within an ending.
        found[key] = [*of_name, *of_stem] if is_shared else sorted([*of_stem, *of_name], key=rank)
    return found


def caption_targets(pictures: Mapping[str, str]) -> dict[str, str | None]:
    """Where each image's caption is written so that it is the one that counts; None where it would be another's too.

    Args:
        pictures: each image's key with the caption file that counts now; "" where it has none.
    """
    owners = _owners(list(pictures))
    targets: dict[str, str | None] = {}
    for key, file in pictures.items():
        wanted = [
            file if file.lower().endswith(".txt") else "",
            str(PurePosixPath(key).with_suffix(".txt")),
            f"{key}.txt",
        ]
        targets[key] = next((name for name in wanted if name and owners[stem_of(name)] == {key}), None)
    return targets


def _owners(pictures: Sequence[str]) -> dict[str, set[str]]:
    """The images to which a caption file of each stem belongs."""
    owners = defaultdict(set)
    for key in pictures:
        owners[stem_of(key)].add(key)
        owners[name_of(key)].add(key)
    return owners


def caption_file(key: str, caption: str) -> bytes:
    """What a caption file holds from which this caption is read.

    Raises:
        DatasetError: where it is no text: it holds a zero byte, or starts like a binary format.
    """
    content = f"{check_typed(key, caption)}\n".encode()
    if decode_caption(content).text != caption:
        raise DatasetError(
            _(
                "The caption of {key} cannot be kept in a text file: it holds a zero byte, or begins "
                "with a byte order mark or as RTF does ({caption!r}). Delete that.",
                key=key,
                caption=caption[:20],
            )
        )
    return content


def read_caption(path: Path) -> CaptionReading:
    """Read a caption file. Never raises for what it holds, nor for what it is."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
            return _rejected(N_("caption not a file"), _("The caption's name belongs to something that is no file."))
        if status.st_size > MAX_CAPTION_BYTES:
            sentence = _(
                "The caption file has {num_bytes:,} bytes, and a caption is a line or two. Check the file.",
                num_bytes=status.st_size,
            )
            return _rejected(N_("caption too large"), sentence)
        content = read_file(path, max_bytes=MAX_CAPTION_BYTES)
    except OSError as error:
        sentence = _("The caption file cannot be read ({reason}).", reason=error.strerror)
        return _rejected(N_("caption unreadable"), sentence)
    return decode_caption(content)


def decode_caption(content: bytes) -> CaptionReading:
    """The text of a caption file's bytes."""
    problems = []
    if _rtf_in(content) is not None:
        return _recodable(N_("caption is RTF"), _("The caption file is RTF (rich text), not plain text."), content)
    if content.startswith(_UTF8_MARK):
        sentence = _("The caption file begins with a byte order mark, which is left out.")
        problems.append(_note(N_("caption with BOM"), sentence))
    try:
        decoded = content.decode("utf-8")
    except UnicodeDecodeError as error:
        return _not_utf8(content, error.start)
    if "\0" in decoded:
        return _with_nul(content)
    # Of several files that were joined to one, each brings its mark.
    lines = [" ".join(_MARKS.sub("", line).split()) for line in decoded.splitlines()]
    filled = [line for line in lines if line]
    if not filled:
        sentence = _("The caption file is empty, so the image is learned for no prompt.")
        problems.append(_note(N_("caption empty"), sentence))
    if len(filled) > 1:
        sentence = _("The caption file has {num_lines} lines, which are joined to one.", num_lines=len(filled))
        problems.append(_note(N_("caption of several lines"), sentence))
    return CaptionReading(" ".join(filled), tuple(problems))


def guess_caption(path: Path) -> tuple[str, str]:
    """Read a caption that is not UTF-8 in the encoding that fits it best: (text, encoding).

    A guess: short texts fit many encodings, so whoever asked must look at the result.

    Raises:
        DatasetError: where no encoding fits, or it is no caption file.
        OSError: where it cannot be read.
    """
    if not path.is_file() or path.stat().st_size > MAX_CAPTION_BYTES:
        raise DatasetError(_("{name} is no caption file.", name=path.name))
    text, encoding = _guess(read_file(path, max_bytes=MAX_CAPTION_BYTES))
    return " ".join(text.split()), encoding


def _guess(content: bytes) -> tuple[str, str]:
    """The text of a caption that is not plain UTF-8, and what it was taken for.

    Raises:
        DatasetError: where it can be read as nothing.
    """
    rtf = _rtf_in(content)
    if rtf is None:
        return guess_text(content)
    from striprtf.striprtf import rtf_to_text  # here: few captions are RTF

    # RTF is ASCII that names other characters by their code page
    plain = _FIELD.sub("", rtf.decode("cp1252", "replace"))
    plain = _PAIR.sub(lambda pair: pair[0] if pair[2] else f"{pair[1]}\\'{ord(pair[3]):02x}", plain)
    _check_fonts(plain)
    try:
        text: str = rtf_to_text(plain, errors="replace")  # type: ignore[no-untyped-call]
    except (ValueError, LookupError, OverflowError, TypeError) as error:
        raise DatasetError(
            _("The RTF cannot be read ({error}). Save the caption as plain text.", error=error)
        ) from error
    # RTF writes characters beyond U+FFFF, such as emoji, as two halves; what stays half is no text.
    whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if "\0" in whole:
        raise DatasetError(_("The RTF holds zero bytes, as text does not. Save the caption as plain text."))
    return whole, "RTF"


def _rtf_in(content: bytes) -> bytes | None:
    """The RTF that begins behind byte order marks and space; None where there is none."""
    start = content.find(_RTF_MARK)
    before = content[: max(0, start)].decode("utf-8", "replace").replace("\ufeff", "")
    return content[start:] if start >= 0 and not before.strip() else None


def _check_fonts(rtf: str) -> None:
    """A table of fonts in which each ends with a semicolon: the reader's pattern takes for ever on others.

    Raises:
        DatasetError: where it is not such a table.
    """
    if (start := _FONT_TABLE.search(rtf)) is None:
        return
    depth, end = 1, None
    for brace in _BRACE.finditer(rtf, start.end()):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            end = brace.start()
            break
    *fonts, rest = rtf[start.end() : end].split(";")
    if end is None or len(fonts) > MAX_FONTS or _FONT.search(rest) or any(len(_FONT.findall(f)) != 1 for f in fonts):
        raise DatasetError(_("The RTF's table of fonts is damaged. Save the caption as plain text."))


def check_typed(key: str, caption: str) -> str:
    """A caption that was typed for an image, as it is.

    Raises:
        DatasetError: where it is too long, or no text.
    """
    try:
        num_bytes = len(caption.encode())
    except UnicodeEncodeError as error:
        character = f"U+{ord(caption[error.start]):04X}"
        raise DatasetError(
            _(
                "The caption of {key} cannot be saved: its character {place} ({character}) is half "
                "of one. Delete it and type it again.",
                key=key,
                place=error.start + 1,
                character=character,
            )
        ) from error
    if num_bytes > MAX_CAPTION_BYTES:
        raise DatasetError(
            _(
                "The caption of {key} must have at most {limit:,} bytes, got {num_bytes:,}. "
                "Shorten it: a caption is a line or two.",
                key=key,
                limit=MAX_CAPTION_BYTES,
                num_bytes=num_bytes,
            )
        )
    return caption


def _not_utf8(content: bytes, position: int) -> CaptionReading:
    sentence = _(
        "Byte {position} of the caption file, 0x{byte:02x}, is not UTF-8.",
        position=position + 1,
        byte=content[position],
    )
    return _recodable(N_("caption not UTF-8"), sentence, content)


def _with_nul(content: bytes) -> CaptionReading:
    """A zero byte is valid UTF-8, and yet no text; UTF-16 without its mark is full of them."""
    position = content.index(0) + 1
    sentence = _("Byte {position} of the caption file is zero, so it is not plain text.", position=position)
    return _recodable(N_("caption with NUL"), sentence, content)


def _recodable(code: str, sentence: str, content: bytes) -> CaptionReading:
    try:
        text, encoding = _guess(content)
    except DatasetError:
        advice = _("Rewrite the caption as UTF-8.")
        return _rejected(code, f"{sentence} {advice}")
    guess = _(
        "It could be {encoding}: “{text}”. Re-encode the caption if that reads right.",
        encoding=encoding,
        text=" ".join(text.split())[:80],
    )
    remedies: tuple[Remedy, ...] = ("recode caption", "exclude")
    problem = Problem(code=code, severity="reject", sentence=f"{sentence} {guess}", remedies=remedies)
    return CaptionReading(None, (problem,))


def _rejected(code: str, sentence: str) -> CaptionReading:
    return CaptionReading(None, (Problem(code=code, severity="reject", sentence=sentence, remedies=("exclude",)),))


def _note(code: str, sentence: str) -> Problem:
    return Problem(code=code, severity="note", sentence=sentence)


BETWEEN_CAPTIONS = "||"
"""Between several captions of one image, of which training takes one by chance each time."""
_BETWEEN = re.compile(r"(?:^|(?<=\s))\|\|(?=\s|$)")


def alternatives_of(caption: str) -> tuple[str, ...]:
    """The captions that stand in one, `a red shoe || red sneakers`, none twice; ("",) where there is none.

    The sign stands apart from words: `||_||` is a tag.
    """
    parts = (" ".join(part.split()) for part in _BETWEEN.split(caption))
    return tuple(dict.fromkeys(part for part in parts if part)) or ("",)


def change_each(caption: str, change: Callable[[str], str]) -> str:
    """The caption with a change made to each of its alternatives; one that is left empty goes."""
    if not _BETWEEN.search(caption):
        return change(caption)
    changed = dict.fromkeys(change(one) for one in alternatives_of(caption))
    return f" {BETWEEN_CAPTIONS} ".join(filter(None, changed))


def tidy(caption: str) -> str:
    """Close the gaps that missing values leave."""
    text = re.sub(r"\(\s*[,;\s]*\)|\[\s*[,;\s]*\]", " ", caption)
    text = re.sub(r"\s+", " ", text)
    text = re.sub(r"\s+([,;:.!?)\]])", r"\1", text)
    text = re.sub(r"([(\[])\s+", r"\1", text)
    text = re.sub(r"([(\[])[,;]+\s*", r"\1", text)
    text = re.sub(r"([,;])(?:\s*[,;])+", r"\1", text)
    text = re.sub(r"[,;]([)\]])", r"\1", text)
    return text.strip(" ,;")
