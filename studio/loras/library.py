"""The LoRA library: the files of `user_data/loras/` and those that ship with the studio, told by their metadata.

The blind vote: which side people preferred without knowing which it was, kept beside the LoRA.
"""

import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from studio.core.errors import LoraError, WeightsFileError
from studio.core.files import read_file, write_atomically
from studio.core.paths import assets_folder, typed_path
from studio.core.results import LoraCard, Record
from studio.loras.keys import config_beside, foreign_kind, read_key, strength_notes
from studio.loras.weights_file import (
    DTYPE_BYTES,
    ENDING,
    WeightsHeader,
    adapter_config_of,
    file_state,
    files_below,
    known_name,
    named_config,
    read_header,
    sha256_of,
    visible,
)

Winner = Literal["left", "right", "neither"]
CONFIDENCE_Z = 1.96  # 95 %


class Vote(Record):
    """One look at one pair. `left` and `right` are the sides' names in the comparison, as `white-ground 0.8`."""

    left: str
    right: str
    winner: Winner
    prompt: str
    seed: int
    voted_at: datetime


_VOTES: TypeAdapter[tuple[Vote, ...]] = TypeAdapter(tuple[Vote, ...])


class VoteCount(Record):
    """How the votes between two sides stand."""

    left: str
    right: str
    num_left: int
    num_right: int
    num_neither: int

    @property
    def interval(self) -> tuple[float, float] | None:
        """The 95 % interval of the right side's share of the decided votes; None before the first.

        Wilson's score interval (1927), which holds for few votes too.
        """
        decided = self.num_left + self.num_right
        if decided == 0:
            return None
        share, z2 = self.num_right / decided, CONFIDENCE_Z**2
        middle = share + z2 / (2 * decided)
        spread = CONFIDENCE_Z * math.sqrt(share * (1 - share) / decided + z2 / (4 * decided**2))
        low, high = (middle - spread) / (1 + z2 / decided), (middle + spread) / (1 + z2 / decided)
        return max(0.0, low), min(1.0, high)

    @property
    def sentence(self) -> str:
        """The count, the interval, and what it allows to say."""
        if self.interval is None:
            return f"No decided vote yet between {self.left} and {self.right}."
        low, high = self.interval
        verdict = (
            f"{self.right} is preferred"
            if low > 0.5
            else f"{self.left} is preferred"
            if high < 0.5
            else "not decided yet"
        )
        return (
            f"{self.right}: {self.num_right}, {self.left}: {self.num_left}, no difference: {self.num_neither}. "
            f"{self.right} wins {100 * low:.0f} to {100 * high:.0f} % of decided votes (95 % confidence): {verdict}."
        )


def votes_file(folder: Path, lora: str) -> Path:
    """Where the votes of a LoRA lie: beside the LoRAs that users add, for shipped ones too."""
    return folder / f"{Path(lora).name}.votes.json"


def read_votes(folder: Path, lora: str) -> tuple[Vote, ...]:
    """All votes of a LoRA, oldest first.

    Raises:
        LoraError: where the file cannot be read.
    """
    path = votes_file(folder, lora)
    if not path.is_file():
        return ()
    try:
        return _VOTES.validate_json(read_file(path))
    except (OSError, ValidationError) as error:
        raise LoraError(f"The votes in {path} cannot be read. Move the file away to start again.") from error


def add_vote(folder: Path, lora: str, vote: Vote) -> tuple[Vote, ...]:
    """Keep one more vote.

    Raises:
        LoraError: where the votes before it cannot be read: they are not overwritten.
        OSError: where it cannot be written.
    """
    votes = (*read_votes(folder, lora), vote)
    text = json.dumps(_VOTES.dump_python(votes, mode="json"), indent=1)
    write_atomically(votes_file(folder, lora), text.encode())
    return votes


def count_votes(votes: Iterable[Vote], *, left: str, right: str) -> VoteCount:
    """Count the votes between two sides."""
    winners = [vote.winner for vote in votes if (vote.left, vote.right) == (left, right)]
    return VoteCount(
        left=left,
        right=right,
        num_left=winners.count("left"),
        num_right=winners.count("right"),
        num_neither=winners.count("neither"),
    )


THUMBNAIL = re.compile(r"data:image/(jpeg|png|webp);base64,[A-Za-z0-9+/=]+")
THUMBNAIL_LIMIT = 400_000  # characters; a 512-pixel JPEG has about 100,000
NAME_LIMIT_BYTES = 180  # of the 255 that a file's name may have: its ending, a number and `.votes.json` have room too
# What would end `<lora:name:1>` early, would lead to another folder, or may not be in a file's name on Windows.
_UNFIT_FOR_A_NAME = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f]')


def shipped_loras() -> Path:
    """The folder of the LoRAs that come with the studio."""
    return assets_folder() / "loras"


class LoraLibrary:
    """Finds LoRAs by name and takes new ones in. A user's file hides a shipped one of the same name."""

    def __init__(self, folder: Path | None = None, *, shipped: Path | None = None) -> None:
        self._folder = folder
        self._shipped = shipped or shipped_loras()

    def cards(self) -> tuple[LoraCard, ...]:
        """One card for each file, by name; a file that cannot be used has its reason in `problem`."""
        files = sorted(self._files().items(), key=lambda item: item[0].lower())
        return tuple(_known_card(name, path) for name, path in files)

    def names(self) -> tuple[str, ...]:
        """The names alone, in order: no file is opened."""
        return tuple(sorted(self._files(), key=str.lower))

    def find(self, name: str) -> Path:
        """The file of a LoRA: by its name in the library, or a path to a `.safetensors` file elsewhere.

        Raises:
            LoraError: where there is none; it names those there are.
        """
        files = self._files()
        if (known := known_name(name, files)) is not None:
            return files[known]
        if path := _file_elsewhere(name):
            return path
        names = ", ".join(sorted(files)) or "none"
        raise LoraError(f"There is no LoRA named {name} in the library, which has: {names}. Drop its file to add it.")

    def name_of(self, name: str) -> str:
        """A LoRA's name as the library writes it; one that it has not stays as it is."""
        known = known_name(name, self._files())
        return name if known is None else known

    def add(self, path: Path, *, name: str | None = None) -> LoraCard:
        """Copy a file into the library, with peft's configuration beside it; nothing that is there is overwritten.

        Raises:
            LoraError: where it is no LoRA for Stable Diffusion 1.x, or the very same file is there already.
            WeightsFileError: where it is damaged or no safetensors file.
            OSError: where the library cannot be written.
        """
        assert self._folder is not None, "this library has no folder to add to"
        header = read_header(path)
        check_kind(header)
        config = config_beside(header)
        if copied := self.name_of_copy(path):
            known = self._files()[copied]
            if config is None or adapter_config_of(known) is not None or known.parent != self._folder:
                raise LoraError(f"This LoRA is in the library already, as {copied}.")
            self._copy(config, named_config(known))
            return read_card(copied, known)
        target = self._free_path(_clean_name(name or path.stem))
        if config is not None:  # first: without it the LoRA would act at another strength
            self._copy(config, named_config(target))
        self._copy(path, target)
        return read_card(target.stem, target)

    def name_of_copy(self, path: Path) -> str | None:
        """The name under which the very same file is here already; None where it is not.

        Raises:
            OSError: where a file cannot be read.
        """
        size_bytes = path.stat().st_size
        for name, known in self._files().items():
            if not known.is_file():  # a dangling link
                continue
            if known.stat().st_size == size_bytes and sha256_of(known) == sha256_of(path):
                return name
        return None

    def _files(self) -> dict[str, Path]:
        folders = [self._shipped, *([self._folder] if self._folder else [])]
        return {name: path for folder in folders for name, path in files_below(folder).items()}

    def _free_path(self, wanted: str) -> Path:
        assert self._folder is not None
        taken, name, number = {_alike(known) for known in self._files()}, wanted, 2
        while _alike(name) in taken:
            name, number = f"{wanted} {number}", number + 1
        return self._folder / f"{name}{ENDING}"

    def _copy(self, source: Path, target: Path) -> None:
        """Under a hidden name first, so that a kill or a full disk leaves nothing that looks like a LoRA."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".adding-") as folder:
            copy = Path(shutil.copyfile(source, Path(folder) / "copy"))
            copy.replace(target)


def _file_elsewhere(name: str) -> Path | None:
    try:
        path = typed_path(name)
        return path if path.suffix.lower() == ENDING and path.is_absolute() and path.is_file() else None
    except (OSError, RuntimeError):  # longer than a path can be; `~` of a user that does not exist
        return None


def _clean_name(name: str) -> str:
    cut = _UNFIT_FOR_A_NAME.sub("_", name).encode(errors="ignore")[:NAME_LIMIT_BYTES]
    return cut.decode(errors="ignore").strip(" .") or "lora"


def _alike(name: str) -> str:
    """Equal for names that are the same file on a Mac or on Windows."""
    return visible(name).casefold()


def check_kind(header: WeightsHeader) -> None:
    """Make sure that a file holds a LoRA for Stable Diffusion 1.x in a known dialect, as far as names can tell.

    Raises:
        LoraError: naming what it is instead, or which tensors are not understood.
    """
    name = header.path.name
    if not header.tensors:
        raise LoraError(f"{name} holds no tensors, so it would change nothing.")
    odd = {info.dtype for info in header.tensors.values()} - DTYPE_BYTES.keys()
    if odd:
        raise LoraError(
            f"{name} stores numbers as {', '.join(sorted(odd))}, which the studio does not know. Get it as float16, "
            "bfloat16 or float32."
        )
    if kind := foreign_kind(header.tensors):
        raise LoraError(f"{name} is {kind}; the studio attaches LoRAs for Stable Diffusion 1.x.")
    unknown = [name for name in header.tensors if read_key(name) is None]
    if len(unknown) == len(header.tensors):
        raise LoraError(f"{name} holds no LoRA that the studio knows: its tensors have names such as {unknown[0]}.")
    if unknown:
        raise LoraError(
            f"{name} is not fully understood: {len(unknown)} of {len(header.tensors)} tensors belong to no known "
            f"layer ({unknown[0]}, …). None of it is used, because half a LoRA makes other images."
        )


def _known_card(name: str, path: Path) -> LoraCard:
    """The card of a file, read again only where the file is another one: the page asks twice a second."""
    try:
        return _read_once(name, path, file_state(path))
    except OSError:  # gone meanwhile: `read_card` says so
        return read_card(name, path)


@lru_cache(maxsize=4096)
def _read_once(name: str, path: Path, _state: tuple[int, ...]) -> LoraCard:
    return read_card(name, path)


def read_card(name: str, path: Path) -> LoraCard:
    """What a file tells of itself; where it cannot be used, why."""
    try:
        header = read_header(path)
        check_kind(header)
        notes = strength_notes(header)
    except (LoraError, WeightsFileError) as error:
        return LoraCard(
            name=name, path=path, size_bytes=path.stat().st_size if path.is_file() else 0, problem=str(error)
        )
    said = header.metadata
    return LoraCard(
        name=name,
        path=path,
        size_bytes=header.size_bytes,
        title=_first(said, "modelspec.title", "ss_output_name"),
        description=_first(said, "modelspec.description"),
        trigger=_first(said, "modelspec.trigger_phrase"),
        base_model=_first(said, "ss_sd_model_name", "ss_base_model_version", "modelspec.architecture"),
        rank=_rank(header),
        thumbnail=_thumbnail(said),
        notes=notes,
    )


def _first(said: Mapping[str, str], *names: str) -> str:
    """The first of these that the file tells, cut to a sensible length: it is shown on cards."""
    return next((said[name][:200] for name in names if said.get(name) not in (None, "", "None")), "")


def _rank(header: WeightsHeader) -> int | None:
    """The greatest rank of its layers."""
    downs = [
        info.shape[0]
        for tensor, info in header.tensors.items()
        if info.shape and (key := read_key(tensor)) and key.role == "down"
    ]
    return max(downs, default=None)


def _thumbnail(said: Mapping[str, str]) -> str:
    """The image inside the file as a data URL; only what surely is one: the page shows it as it is."""
    thumbnail = said.get("modelspec.thumbnail", "")
    return thumbnail if len(thumbnail) <= THUMBNAIL_LIMIT and THUMBNAIL.fullmatch(thumbnail) else ""
