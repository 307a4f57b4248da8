"""Files: read through one door, written whole or not at all; the encoding of text that is not UTF-8.

Which encoding bytes that are not UTF-8 are written in: a guess, made with care for texts of a few words.

Statistics need more text than a caption has, so what captions are mostly written in is tried first, by looking
whether the letters that come out can stand together; charset-normalizer decides the rest.

Writing files so that a kill or a full disk leaves the old file or the new one, never half of either.
"""

import errno
import io
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from studio.core.errors import DatasetError, UnreadableFileError
from studio.core.language import _

_UTF8_MARK = b"\xef\xbb\xbf"
_BOMS = ((_UTF8_MARK, "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_GUESSES = ["cp1251", "gb18030", "big5", "euc_kr", "euc_jp"]
_JAPANESE = ("shift_jis", "cp932")  # the second is Windows' own, with more signs
_SAMPLE_BYTES = 1_000_000
_MIN_NUL_SHARE = 0.25

_KANA = re.compile("[\u3041-\u30ff]")
_NO_JAPANESE = re.compile("[^\x00-\x7f\u3000-\u30ff\u4e00-\u9fff\uff01-\uff9f\u2010-\u2026\u25a0-\u26ff]")
_HALF_WIDTH = re.compile("[\uff61-\uff9f]")
_LETTER_BESIDE = re.compile("[A-Za-z][\u4e00-\u9fff]|[\u4e00-\u9fff][A-Za-z]")
# West-European text has its letters with accents one or two at a time, and few signs beside them.
_NO_WESTERN = re.compile("[^\x00-\x7f\u00c0-\u00ffŒœŠšŽžŸ“”‘’„–—…•€£©®™°«»¡¿§¼½¾²³´·×\u00a0]")
_LONG_RUN = re.compile("[^\x00-\x7f“”‘’„–—…«»\u00a0]{3}")


def guess_text(content: bytes) -> tuple[str, str]:
    """The bytes as text, and the encoding that fits them best. Short texts fit several: look at the result.

    Raises:
        DatasetError: where none fits.
    """
    for mark, encoding in _BOMS:
        if content.startswith(mark) and (text := _decoded(content, encoding)) is not None:
            return without_marks(text), encoding
    while content.startswith(_UTF8_MARK):
        content = content.removeprefix(_UTF8_MARK)
    if b"\0" in content:
        return _guess_utf_16(content)
    japanese = next(((text, name) for name in _JAPANESE if (text := _decoded(content, name)) is not None), None)
    if japanese is not None and _reads_japanese(japanese[0]):
        return japanese
    for encoding in ("cp1252", "latin-1"):
        text = _decoded(content, encoding)
        if text is not None and not _NO_WESTERN.search(text) and not _LONG_RUN.search(text):
            return text, encoding
    from charset_normalizer import from_bytes  # here: every room imports this module, and few read foreign text

    best = from_bytes(content[:_SAMPLE_BYTES], cp_isolation=_GUESSES, threshold=0.6).best()
    text = None if best is None else _decoded(content, best.encoding)
    if best is not None and text is not None:
        return text, best.encoding
    if japanese is not None:
        return japanese
    text = _decoded(content, "cp1252")
    if text is None or not _is_mostly_ascii(content):
        raise DatasetError(_("The bytes fit no encoding that captions are written in. Rewrite the text as UTF-8."))
    return text, "cp1252"


def without_marks(text: str) -> str:
    """The text without byte order marks at its beginning: programs that each add one leave several."""
    return text.lstrip("\ufeff")


def _guess_utf_16(content: bytes) -> tuple[str, str]:
    """UTF-16 without its mark: every other byte of western text is zero, and which tells the order."""
    encoding = "utf-16-le" if content[1::2].count(0) >= content[::2].count(0) else "utf-16-be"
    text = _decoded(content, encoding)
    if text is None or "\0" in text or content.count(0) < _MIN_NUL_SHARE * len(content):
        raise DatasetError(_("It holds zero bytes, as text in no encoding does. Rewrite the text as UTF-8."))
    return text, encoding


def _reads_japanese(text: str) -> bool:
    """Whether it is Japanese, and not western text whose accents ate the letter behind them (père → p鑽e)."""
    if _NO_JAPANESE.search(text):
        return False
    if _KANA.search(text):
        return True
    return not _HALF_WIDTH.search(text) and not _LETTER_BESIDE.search(text)


def _is_mostly_ascii(content: bytes) -> bool:
    return sum(byte < 0x80 for byte in content[:_SAMPLE_BYTES]) >= 0.75 * len(content[:_SAMPLE_BYTES])


def _decoded(content: bytes, encoding: str) -> str | None:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        return None


GB = 1000**3


def open_file(path: Path, *, max_bytes: int | None = None) -> io.BufferedReader:
    """The one door through which files are read: opens a regular file, and nothing else.

    Opening a pipe waits for a writer for ever, opening a device may start it, and reading one may never end.

    Raises:
        OSError: where there is no such file, it is no regular file, or it has more than `max_bytes`.
    """
    assert_regular(path, max_bytes=max_bytes)
    # Between the look and the opening it may have become a pipe: then this does not wait, and is seen.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    file = os.fdopen(descriptor, "rb")
    try:
        _assert_regular(os.fstat(descriptor), path, max_bytes)
    except OSError:
        file.close()
        raise
    return file


def assert_regular(path: Path, *, max_bytes: int | None = None) -> os.stat_result:
    """Make sure, without opening it, that a library may open this file by its path.

    Returns:
        What the system says of the file.

    Raises:
        OSError: as `open_file`.
    """
    try:
        found = path.stat()
    except ValueError as error:  # the path holds a zero byte
        raise UnreadableFileError(errno.ENOENT, str(error), str(path)) from error
    _assert_regular(found, path, max_bytes)
    return found


def _assert_regular(found: os.stat_result, path: Path, max_bytes: int | None) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise UnreadableFileError(errno.EISDIR, _("it is a folder"), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise UnreadableFileError(errno.EOPNOTSUPP, _("it is a pipe, a socket or a device, not a file"), str(path))
    if max_bytes is not None and found.st_size > max_bytes:
        raise UnreadableFileError(errno.EFBIG, _("it has over {size}", size=_size_words(max_bytes)), str(path))


def read_file(path: Path, *, max_bytes: int | None = GB) -> bytes:
    """The whole file, read through `open_file`; also one that grows while it is read, or says that it is empty, as
    systems' own files do, gives no more than `max_bytes`.

    Raises:
        OSError: as `open_file`.
    """
    with open_file(path, max_bytes=max_bytes) as file:
        content = file.read() if max_bytes is None else file.read(max_bytes + 1)
    if max_bytes is not None and len(content) > max_bytes:
        raise UnreadableFileError(errno.EFBIG, _("it has over {size}", size=_size_words(max_bytes)), str(path))
    return content


def read_text(path: Path, *, encoding: str = "utf-8", errors: str = "strict", max_bytes: int = GB) -> str:
    """The file as text, read through `open_file`, with `\\n` for each end of a line.

    Raises:
        OSError: as `open_file`.
        UnicodeDecodeError: where it is in another encoding, unless `errors` is `replace`.
    """
    with io.TextIOWrapper(io.BytesIO(read_file(path, max_bytes=max_bytes)), encoding=encoding, errors=errors) as text:
        return text.read()


def _size_words(num_bytes: int) -> str:
    return f"{num_bytes / GB:.0f} GB" if num_bytes >= GB else f"{num_bytes / 1000**2:.0f} MB"


FileStamp = tuple[int, int, int, int]
"""Size in bytes, times of the content's and of the entry's last change in nanoseconds, inode number."""


def file_stamp(path: Path) -> FileStamp:
    """What differs once a file was replaced or rewritten, and costs no reading.

    Size and modification time alone do not tell: `cp -p`, `rsync -t` and archives keep both. The system sets the time
    of the entry's change (on Windows: of its creation) by itself, and another file has another inode. Only a hash is
    certain: take it before anything that cannot be undone.

    Raises:
        OSError: where there is no such file.
    """
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


def remove_uploads(files: Iterable[Path], folder: Path) -> None:
    """Remove files that the page uploaded into `folder` itself or a folder of it; whatever else is named stays.

    Raises:
        OSError: where one cannot be removed.
    """
    root = folder.resolve()
    for file in files:
        parent = file.parent.resolve()
        if root in (parent, parent.parent):
            if (parent / file.name).is_file():
                (parent / file.name).unlink()
            if parent != root and parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, making its folder: a temporary file beside it, fsync, rename, fsync the folder.

    Raises:
        OSError: where the disk is full or the folder cannot be written; the old file is untouched.
    """
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into that becomes `path`, as `write_atomically` does it, when the block ends well.

    Raises:
        OSError: as `write_atomically`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power cut."""
    if os.name == "nt":  # Windows cannot open folders; NTFS journals the rename itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_to_trash(path: Path, *, without_trash: Path) -> str:
    """Move a file or a folder to the system's trash, or to this folder where it has none; where it is now, in words.

    Raises:
        OSError: where it is gone or cannot be moved.
    """
    from send2trash import send2trash  # here: the command line starts without it

    try:
        send2trash(path)
    except OSError as error:
        if not path.exists():
            raise FileNotFoundError(errno.ENOENT, _("It is gone"), str(path)) from error
        without_trash.mkdir(parents=True, exist_ok=True)
        target = without_trash / f"{datetime.now():%Y%m%d-%H%M%S-%f}-{path.name}"
        shutil.move(path, target)
        return _("in {target}; delete it there to free its space", target=target)
    return _("in the system's trash")
