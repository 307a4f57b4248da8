"""Wildcards: `__colour__` is a line of colour.txt in the folder of wildcards."""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from studio.core.errors import BatchError, DatasetError
from studio.core.text_encoding import guess_text

MAX_FILE_BYTES = 64 * 1024 * 1024
_NAMES_SHOWN = 20


class Wildcards:
    """The wildcard files of a folder, or those that were kept of one. Each file is read once, when it is required."""

    def __init__(self, folder: Path, kept: Mapping[str, tuple[str, ...]] | None = None) -> None:
        self._folder = folder
        self._names = sorted(kept) if kept is not None else _names(folder)
        self._values: dict[str, tuple[str, ...]] = dict(kept or {})

    @property
    def used(self) -> dict[str, tuple[str, ...]]:
        """The values of every file that was read, by name."""
        return dict(sorted(self._values.items()))

    def values(self, pattern: str) -> tuple[str, ...]:
        """The lines of all files that `pattern` means (`shoes/*` is several), sorted, each once.

        As in dynamicprompts, a name that is not there is looked for in the folders below.

        Raises:
            BatchError: where there is no such file, or it holds nothing; it names those there are.
        """
        pattern = re.sub(r"[\\/]+", "/", pattern).strip("/ ")
        names = self._matching(pattern) or self._matching(f"**/{pattern}")
        if not names:
            there = ", ".join(self._names[:_NAMES_SHOWN]) + (", …" if len(self._names) > _NAMES_SHOWN else "")
            raise BatchError(
                f"there is no wildcard {pattern!r} in {self._folder}, which has: {there or 'none'}. Put a file "
                f"{pattern}.txt there, with one value per line."
            )
        values = sorted({value for name in names for value in self._read(name)})
        if not values:
            raise BatchError(f"the wildcard {pattern!r} in {self._folder} holds no value. Write one on each line.")
        return tuple(values)

    def _matching(self, pattern: str) -> list[str]:
        return [name for name in self._names if fnmatchcase(name, pattern)]

    def _read(self, name: str) -> tuple[str, ...]:
        if name not in self._values:
            path = self._folder / f"{name}.txt"
            try:
                if path.stat().st_size > MAX_FILE_BYTES:
                    raise BatchError(f"the wildcard file {path} has over 64 MB. Make it smaller.")
                text = _decode(path.read_bytes(), path)
            except OSError as error:
                raise BatchError(f"the wildcard file {path} cannot be read ({error.strerror}).") from error
            lines = (line.strip() for line in text.splitlines())
            self._values[name] = tuple(line for line in lines if line and not line.startswith("#"))
        return self._values[name]


def _names(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.txt"))


def _decode(content: bytes, path: Path) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        pass
    try:
        return guess_text(content)[0]
    except DatasetError as error:
        raise BatchError(f"the wildcard file {path} cannot be read: {error}") from error
