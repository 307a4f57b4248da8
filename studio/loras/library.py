"""The LoRA library: the files of `user_data/loras/` and those that ship with the studio, told by their metadata."""

import re
import shutil
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from studio.core.errors import LoraError, WeightsFileError
from studio.core.files import move_to_trash
from studio.core.language import _, language
from studio.core.paths import assets_folder, unreserved
from studio.core.records import label_beside, label_or_none
from studio.core.results import LoraCard
from studio.loras.files import FilesBelow, alike, config_beside, file_at, files_beside, known_name, rename_with_files
from studio.loras.keys import foreign_kind, read_key, strength_notes
from studio.loras.votes import rename_in_votes
from studio.loras.weights_file import (
    DTYPE_BYTES,
    ENDING,
    WeightsHeader,
    adapter_config_of,
    file_state,
    named_config,
    read_header,
    sha256_of,
)

UNET_BLOCKS = ("down_blocks", "mid_block", "up_blocks")
_OF_KOHYA = ("lora_unet_", "lycoris_")


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
        self._listings = tuple(map(FilesBelow, filter(None, (shipped or shipped_loras(), folder))))

    def cards(self, names: Sequence[str] | None = None) -> tuple[LoraCard, ...]:
        """The cards of these, or of all; a file that cannot be used has its reason in `problem`."""
        files = self._files()
        return tuple(
            _known_card(name, files[name]) for name in (self.names() if names is None else names) if name in files
        )

    def names(self) -> tuple[str, ...]:
        """The names alone, in order: no file is opened."""
        return tuple(sorted(self._files(), key=str.lower))

    def usable_names(self) -> tuple[str, ...]:
        """Those that a form offers: a card says of the others why they cannot be used."""
        files = self._files()
        there = [name for name in self.names() if files[name].is_file()]
        return tuple(name for name in there if _is_usable(files[name], file_state(files[name])))

    def find(self, name: str) -> Path:
        """The file of a LoRA: by its name in the library, or a path to a `.safetensors` file elsewhere.

        Raises:
            LoraError: where there is none; it names those there are.
        """
        files = self._files()
        if (known := known_name(name, files)) is not None:
            return files[known]
        if path := file_at(name):
            return path
        has = ", ".join(sorted(files)) or _("none")
        raise LoraError(
            _(
                "There is no LoRA named {name} in the library, which has: {has}. Drop its file to add it.",
                name=name,
                has=has,
            )
        )

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
                raise LoraError(_("This LoRA is in the library already, as {copied}.", copied=copied))
            self._copy(config, named_config(known))
            return read_card(copied, known)
        target = self._free_path(_clean_name(name or path.stem))
        if config is not None:  # first: without it the LoRA would act at another strength
            self._copy(config, named_config(target))
        self._copy(path, target)
        return read_card(target.stem, target)

    def delete(self, name: str) -> str:
        """Move a LoRA to the trash, with what lies beside it; where it is now, in words.

        Raises:
            LoraError: where there is no such LoRA, or it comes with the studio.
            OSError: where it cannot be moved.
        """
        folder, path = self._own(name, _("{name} comes with the studio, so it cannot be deleted.", name=name))
        for file in files_beside(path):
            move_to_trash(file, without_trash=folder.parent / "trash")
        return move_to_trash(path, without_trash=folder.parent / "trash")

    def rename(self, name: str, wanted: str) -> str:
        """Rename a LoRA's file, with what lies beside it; its name from now on, in NFC.

        Raises:
            LoraError: where it is gone or comes with the studio, or no file can have that name, or one has it.
            OSError: where the folder cannot be written.
        """
        folder, path = self._own(name, _("{name} comes with the studio, so it cannot be renamed.", name=name))
        stem = unicodedata.normalize("NFC", wanted.strip())
        if stem == path.stem:
            return name
        if _clean_name(stem) != stem:
            words = _(
                'The name of a LoRA must have 1 to {limit} bytes, none of them < > : " / \\ | ? *, must neither begin '
                "nor end with a dot, nor be a name of Windows’ own such as con, got {name!r}.",
                limit=NAME_LIMIT_BYTES,
                name=wanted[:NAME_LIMIT_BYTES],
            )
            raise LoraError(words)
        if alike(stem) in {alike(known.stem) for known in self._files().values() if known != path}:
            raise LoraError(_("The library has another LoRA named {stem}. Choose another name.", stem=stem))
        rename_with_files(path, target := path.with_name(f"{stem}{path.suffix}"))
        if path.parent == folder:
            rename_in_votes(folder, stem, path.stem)
        return next(known for known, file in self._files().items() if file == target)

    def path_of(self, name: str) -> Path:
        """The file of a LoRA of the library by its whole name, which may come from a page.

        Raises:
            LoraError: where there is none of that name.
        """
        path = self._files().get(name)
        if path is None:
            raise LoraError(_("There is no LoRA named {name} in the library any more.", name=name))
        return path

    def is_own(self, path: Path) -> bool:
        """Whether it is the user's, to be renamed and deleted; others come with the studio."""
        return self._folder is not None and path.is_relative_to(self._folder)

    def label_file(self, path: Path) -> Path:
        """Where what a person noted on a LoRA is kept: beside it; of one that comes with the studio in the library."""
        return label_beside(path if self._folder is None or self.is_own(path) else self._folder / path.name)

    def notes(self) -> dict[str, str]:
        """What people noted, by the names of the LoRAs that have a note; the page searches it."""
        labels = {file.name for file in self._folder.rglob("*.label.json")} if self._folder else set()
        noted = {name: path for name, path in self._files().items() if label_beside(path).name in labels}
        return {name: label_or_none(self.label_file(path)).note for name, path in noted.items()}

    def _own(self, name: str, otherwise: str) -> tuple[Path, Path]:
        """(the library's folder, the file of one of the user's own LoRAs); `otherwise` is said of any other."""
        path = self.path_of(name)
        if self._folder is None or not self.is_own(path):
            raise LoraError(otherwise)
        return self._folder, path

    def name_of_copy(self, path: Path) -> str | None:
        """The name under which the very same file is here already; None where it is not.

        Raises:
            OSError: where a file cannot be read.
        """
        size_bytes = path.stat().st_size
        for name, known in self._files().items():
            there = known.is_file()  # and no dangling link
            if there and known.stat().st_size == size_bytes and sha256_of(known) == sha256_of(path):
                return name
        return None

    def _files(self) -> dict[str, Path]:
        return {name: path for listing in self._listings for name, path in listing.files().items()}

    def _free_path(self, wanted: str) -> Path:
        assert self._folder is not None
        taken, name, number = {alike(known) for known in self._files()}, wanted, 2
        while alike(name) in taken:
            name, number = f"{wanted} {number}", number + 1
        return self._folder / f"{name}{ENDING}"

    def _copy(self, source: Path, target: Path) -> None:
        """Under a hidden name first, so that a kill or a full disk leaves nothing that looks like a LoRA."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".adding-") as folder:
            copy = Path(shutil.copyfile(source, Path(folder) / "copy"))
            copy.replace(target)


def _clean_name(name: str) -> str:
    cut = _UNFIT_FOR_A_NAME.sub("_", name).encode(errors="ignore")[:NAME_LIMIT_BYTES]
    return unreserved(cut.decode(errors="ignore").strip(" .")) or "lora"


def check_kind(header: WeightsHeader) -> None:
    """Make sure that a file holds a LoRA for Stable Diffusion 1.x in a known dialect, as far as names can tell.

    Raises:
        LoraError: naming what it is instead, or which tensors are not understood.
    """
    name = header.path.name
    if not header.tensors:
        raise LoraError(_("{name} holds no tensors, so it would change nothing.", name=name))
    odd = {info.dtype for info in header.tensors.values()} - DTYPE_BYTES.keys()
    if odd:
        raise LoraError(
            _(
                "{name} stores numbers as {dtypes}, which the studio does not know. "
                "Get it as float16, bfloat16 or float32.",
                name=name,
                dtypes=", ".join(sorted(odd)),
            )
        )
    if kind := foreign_kind(header.tensors):
        raise LoraError(
            _("{name} is {kind}; the studio attaches LoRAs for Stable Diffusion 1.x.", name=name, kind=kind)
        )
    unknown = [name for name in header.tensors if read_key(name) is None]
    if len(unknown) == len(header.tensors):
        raise LoraError(
            _(
                "{name} holds no LoRA that the studio knows: its tensors have names such as {tensor}.",
                name=name,
                tensor=unknown[0],
            )
        )
    if unknown:
        raise LoraError(
            _(
                "{name} is not fully understood: {num_unknown} of {num_tensors} tensors belong to no known layer "
                "({tensor}, …). None of it is used, because half a LoRA makes other images.",
                name=name,
                num_unknown=len(unknown),
                num_tensors=len(header.tensors),
                tensor=unknown[0],
            )
        )


def _known_card(name: str, path: Path) -> LoraCard:
    """The card of a file, read again only where the file is another one: the page asks twice a second."""
    try:
        return _read_once(name, path, file_state(path), language())
    except OSError:  # gone meanwhile: `read_card` says so
        return read_card(name, path)


@lru_cache(maxsize=10_000)  # apart from the cards, of which fewer are kept
def _is_usable(path: Path, _state: tuple[int, ...]) -> bool:
    return not read_card(path.stem, path).problem


@lru_cache(maxsize=256)  # a card may have a thumbnail of 400,000 characters
def _read_once(name: str, path: Path, _state: tuple[int, ...], _language: str) -> LoraCard:
    return read_card(name, path)


def read_card(name: str, path: Path) -> LoraCard:
    """What a file tells of itself; where it cannot be used, why."""
    try:
        header = read_header(path)
        check_kind(header)
        notes = file_notes(header)
    except (LoraError, WeightsFileError) as error:
        size = path.stat().st_size if path.is_file() else 0
        return LoraCard(name=name, path=path, size_bytes=size, problem=str(error))
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


def file_notes(header: WeightsHeader) -> tuple[str, ...]:
    """What one may not expect of a file: an assumed strength, and layers that a program drops.

    Raises:
        LoraError: where the strength that it says cannot be read.
    """
    keys = (read_key(name) for name in header.tensors if name.startswith(_OF_KOHYA))
    ends = {key.layer for key in keys if key and key.part == "unet" and not key.layer.startswith(UNET_BLOCKS)}
    return (*strength_notes(header), *([ends_note(sorted(ends))] if ends else []))


def ends_note(layers: Sequence[str]) -> str:
    """Of layers outside the U-Net's blocks: sd-scripts looks into its blocks alone."""
    return _(
        "sd-scripts' own LoRA reader drops {layers}; A1111, Forge, ComfyUI and diffusers read all layers.",
        layers=f" {_('and')} ".join(layers),
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
