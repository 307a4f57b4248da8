"""The files of a library: found below its folder, known by their names; what lies beside a LoRA, which goes where it
goes, and may say how strong it is.
"""

import os
import time
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from studio.core.errors import LoraError
from studio.core.files import read_file, read_text, sync_folder, write_atomically
from studio.core.language import _
from studio.core.paths import typed_path
from studio.loras.weights_file import ENDING, WeightsHeader, adapter_config_of, named_config, sha256_of

ADAPTER_CONFIG_LIMIT_BYTES = 2**20
_VARIATIONS = frozenset(map(chr, range(0xFE00, 0xFE10)))  # they choose between shapes of the character before
_CLOCK_TICK_NS = 3 * 10**9  # FAT keeps times in steps of two seconds


class FilesBelow:
    """The `.safetensors` files below a folder, listed again only where a folder changed. Any thread may ask."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._times: dict[str, int] = {}
        self._listed_at = 0

    def files(self) -> dict[str, Path]:
        """As `files_below`."""
        if not self._is_current():
            listed_at, times = time.time_ns(), dict[str, int]()
            self._files = files_below(self._folder, times)
            self._times, self._listed_at = times, listed_at
        return self._files

    def _is_current(self) -> bool:
        try:
            now = {folder: _time_of(folder) for folder in self._times}
        except OSError:
            return False
        # A folder that changed just before it was listed may change again within a tick of the disk's clock.
        return bool(now) and now == self._times and max(now.values()) < self._listed_at - _CLOCK_TICK_NS


def _time_of(folder: str) -> int:
    return os.stat(folder).st_mtime_ns  # noqa: PTH116 - for each folder at each look


def files_below(folder: Path, times: dict[str, int] | None = None) -> dict[str, Path]:
    """The `.safetensors` files by their names; where a sub-folder repeats one, by the path below the folder.

    What is hidden is left out, and links to folders are not followed.

    Args:
        times: takes every folder that was looked into, with the time of its last change in nanoseconds.
    """
    found: dict[str, Path] = {}
    paths: list[Path] = []
    for parent, folders, names in os.walk(folder):
        if times is not None:
            times[parent] = _time_of(parent)
        folders[:] = [name for name in folders if not name.startswith(".")]
        names += [name for name in folders if name.lower().endswith(ENDING)]  # no files, which their cards say
        paths += [Path(parent, name) for name in names if name.lower().endswith(ENDING) and not name.startswith(".")]
    for path in sorted(paths, key=lambda path: (len(path.parts), path)):
        below = path.relative_to(folder).with_suffix("").as_posix()
        if _is_text(below):
            found[below if path.stem in found else path.stem] = path
    return found


def _is_text(name: str) -> bool:
    """False where a name's bytes are no UTF-8, as Linux allows: such a name could be neither shown nor written."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def files_beside(path: Path) -> tuple[Path, ...]:
    """Every file that bears a LoRA's name with another ending, but those of another LoRA, of `shoes.v2` beside `shoes`.

    Raises:
        OSError: where the folder cannot be read.
    """
    files = sorted(file for file in path.parent.iterdir() if file.name.startswith(f"{path.stem}."))
    longer = [f"{file.stem}." for file in files if file.suffix.lower() == ENDING and file.stem != path.stem]
    return tuple(
        file
        for file in files
        if file.suffix.lower() != ENDING and not file.name.startswith(tuple(longer)) and not file.is_dir()
    )


def with_content(paths: Iterable[Path], sha256: str, size_bytes: int) -> Path | None:
    """The first of these files that holds just that; None where none does.

    Raises:
        OSError: where one cannot be read.
    """
    there = (path for path in paths if path.is_file() and path.stat().st_size == size_bytes)
    return next((path for path in there if sha256_of(path) == sha256), None)


def rename_with_files(path: Path, target: Path) -> None:
    """Rename a LoRA's file, with all that lies beside it. Wherever a kill ends this, the LoRA acts as it did.

    Raises:
        LoraError: where a file of the new name is there already.
        OSError: where the folder cannot be written.
    """
    config = adapter_config_of(path)
    moves = {file: file.with_name(f"{target.stem}{file.name[len(path.stem) :]}") for file in files_beside(path)}
    for file, to in {path: target, **moves}.items():
        if to.exists() and not to.samefile(file):  # of a disk that takes a for A it is the same
            raise LoraError(
                _(
                    "{name} is in {parent} already. Choose another name, or move that file away.",
                    name=to.name,
                    parent=to.parent,
                )
            )
    other = adapter_config_of(target)
    if other is not None and (config is None or not other.samefile(config)):
        raise LoraError(
            _("{other} would change the strength of {name}. Choose another name.", other=other, name=target.name)
        )
    copied = config is not None and not named_config(target).exists()
    if config is not None and copied:  # first: without it the LoRA would act at another strength
        write_atomically(named_config(target), read_file(config))
    try:
        path.rename(target)
    except OSError:
        if copied:
            named_config(target).unlink()
        raise
    for before, to in moves.items():
        before.replace(to)
    sync_folder(path.parent)


def config_beside(header: WeightsHeader) -> Path | None:
    """peft's own file; only of tensors that peft names, and that say nothing of their strength."""
    is_pefts = any(".lora_A." in name for name in header.tensors)
    return adapter_config_of(header.path) if is_pefts else None


def adapter_config_text(config: Path, header: WeightsHeader) -> str:
    """What peft's file of this LoRA holds.

    Raises:
        LoraError: where it cannot be read.
    """
    try:
        return read_text(config, encoding="utf-8-sig", max_bytes=ADAPTER_CONFIG_LIMIT_BYTES)
    except (OSError, ValueError) as error:
        why = _("cannot be read. Copy or download it again")
        raise unusable_strength(header, config, why) from error


def unusable_strength(header: WeightsHeader, config: Path | None, why: str) -> LoraError:
    """An error of what says the strength; `why` goes on after it: `is not JSON`."""
    name = header.path.name
    if config is None:
        return LoraError(_("{name} is damaged: its lora_adapter_metadata {why}.", name=name, why=why))
    return LoraError(
        _(
            "{config}, which says how strong {name} is, cannot be used: it {why}.",
            config=config.name,
            name=name,
            why=why,
        )
    )


def known_name(name: str, names: Iterable[str]) -> str | None:
    """The name itself, or the one that looks the same: a Mac writes é as two characters."""
    if name in (known := tuple(names)):
        return name
    seen = visible(name)
    return next((other for other in known if visible(other) == seen), None)


def visible(name: str) -> str:
    """What the eye sees of a name: in NFC, every kind of space a space, without characters that have no shape."""
    shown = (" " if unicodedata.category(c) == "Zs" else c for c in unicodedata.normalize("NFC", name))
    return "".join(c for c in shown if unicodedata.category(c) not in ("Cf", "Cc") and c not in _VARIATIONS).strip()


def alike(name: str) -> str:
    """Equal for names that are the same file on a Mac or on Windows."""
    return visible(name).casefold()


def file_at(name: str) -> Path | None:
    """A LoRA outside the library, by its whole path; None where there is none."""
    try:
        path = typed_path(name)
        return path if path.suffix.lower() == ENDING and path.is_absolute() and path.is_file() else None
    except (OSError, RuntimeError):  # longer than a path can be; `~` of a user that does not exist
        return None
