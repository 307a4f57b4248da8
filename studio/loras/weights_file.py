"""Weights files without torch: what one says of itself, and how a LoRA is to be exported.

What an export is required. No torch: the command line reads it.

What a `.safetensors` file says of itself: names, shapes and metadata, read without its weights and without torch.
"""

import hashlib
import itertools
import json
import math
import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args

from annotated_types import Ge, Le
from pydantic import Field

from studio.core.errors import WeightsFileError
from studio.core.files import file_stamp, open_file
from studio.core.language import N_, _
from studio.core.paths import typed_path
from studio.core.settings import Settings

LoraDialect = Literal["kohya", "diffusers"]
ModelForm = Literal["merged", "checkpoint"]
ExportForm = Literal["kohya", "diffusers", "merged", "checkpoint"]
ExportDtype = Literal["float16", "float32"]
EXPORT_FORMS: tuple[ExportForm, ...] = get_args(ExportForm)
EXPORT_DTYPES: tuple[ExportDtype, ...] = get_args(ExportDtype)
MODEL_ENDINGS: dict[ModelForm, str] = {"merged": "-merged", "checkpoint": "-checkpoint.safetensors"}
_ENDINGS: dict[ExportForm, str] = {
    "kohya": "-kohya.safetensors",
    "diffusers": "-diffusers.safetensors",
    "merged": MODEL_ENDINGS["merged"],
    "checkpoint": MODEL_ENDINGS["checkpoint"],
}


class ExportSettings(Settings):
    """A LoRA, and the form it shall have."""

    lora: str = Field(min_length=1, title=N_("LoRA"), description=N_("A LoRA of the library, or a .safetensors file."))
    to: ExportForm = Field(
        "kohya",
        title=N_("Form"),
        description=N_(
            "kohya: a LoRA for A1111, Forge, ComfyUI, InvokeAI. diffusers: a LoRA for "
            "load_lora_weights. merged: the whole model with the LoRA in it, a folder in "
            "diffusers' layout. checkpoint: the same as one file."
        ),
    )
    output: Path | None = Field(
        None,
        title=N_("Output"),
        description=N_("Where to write; nothing is overwritten. Defaults to the LoRA's name, in the current folder."),
    )
    strength: Annotated[float, Ge(-4), Le(4)] = Field(
        1.0, title=N_("Strength"), description=N_("The LoRA's strength in the output. 0 writes the base model alone.")
    )
    dtype: ExportDtype = Field(
        "float16", title=N_("Number format"), description=N_("float16 is half as large, and what most programs expect.")
    )

    @property
    def is_file(self) -> bool:
        """Whether a file is written, and not a folder."""
        return self.to != "merged"

    def target(self, stem: str) -> Path:
        """Where it is written, for a LoRA of this name."""
        return typed_path(self.output or f"{stem}{_ENDINGS[self.to]}").absolute()


HEADER_LIMIT_BYTES = 10 * 2**20
TENSORS_LIMIT = 20_000
DIMENSIONS_LIMIT = 64  # torch has no more
NUMBER_LIMIT = 2**63  # lengths and offsets of a real file are far below; sums and products of larger ones take forever
PICKLE_ENDINGS = (".ckpt", ".pt", ".pth", ".bin")
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
DTYPE_BYTES = {
    **{"F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2},
    **{"I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1},
}


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a file, by safetensors' words: `F16`, `F32`, …"""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class WeightsHeader:
    """The head of a file: every tensor by its name, and the metadata, which is text by text."""

    path: Path
    tensors: Mapping[str, TensorInfo]
    metadata: Mapping[str, str]
    size_bytes: int


def read_header(path: Path) -> WeightsHeader:
    """Read a file's head, and make sure that the file is whole.

    Raises:
        WeightsFileError: for a pickle, a web page, a Git LFS pointer, a file cut short, and anything else that is not
            safetensors.
    """
    _refuse_by_name(path)
    try:
        size = _regular_file_size(path)
        with open_file(path) as file:
            length = _header_length(path, file.read(72))
            file.seek(8)
            raw = file.read(length)
    except OSError as error:
        reason = error.strerror or error
        raise WeightsFileError(_("{path} cannot be read: {reason}.", path=path, reason=reason)) from error
    tensors, metadata, data_bytes = _parse(path, raw)
    if 8 + length + data_bytes != size:
        raise WeightsFileError(
            _(
                "{name} is damaged: it has {size:,} bytes where {expected:,} belong. It was cut short or changed "
                "on the way; copy or download it again.",
                name=path.name,
                size=size,
                expected=8 + length + data_bytes,
            )
        )
    return WeightsHeader(path, tensors, metadata, size)


ENDING = ".safetensors"
_HASH = re.compile(r"[0-9a-fA-F]{12,64}")
ADAPTER_CONFIG = "adapter_config.json"


def adapter_config_of(path: Path) -> Path | None:
    """peft's file beside the weights, which alone says how strong they are; in a library `NAME.adapter_config.json`.

    One without the LoRA's name counts where it can mean no other file: beside `adapter_model.safetensors`, or beside
    a single `.safetensors` file.
    """
    named, plain = named_config(path), path.with_name(ADAPTER_CONFIG)
    if named.is_file():
        return named
    if not plain.is_file():
        return None
    if path.stem != "adapter_model" and any(
        other.suffix.lower() == path.suffix.lower() and other != path for other in path.parent.iterdir()
    ):
        return None
    return plain


def named_config(path: Path) -> Path:
    """Where a library keeps peft's file of a LoRA."""
    return path.with_name(f"{path.stem}.{ADAPTER_CONFIG}")


def file_state(path: Path) -> tuple[int, ...]:
    """Another one where the file, or peft's configuration beside it, is another.

    Raises:
        OSError: where the file is gone.
    """
    config = adapter_config_of(path)
    return tuple(number for file in (path, config) if file for number in file_stamp(file))


def weights_sha256(path: Path) -> str:
    """SHA-256 of what follows the header, in hexadecimal: A1111's hash of a LoRA, kohya's `sshs_model_hash`."""
    with open_file(path) as file:
        file.seek(8 + int.from_bytes(file.read(8), "little"))
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_hash(header: WeightsHeader) -> str:
    """What A1111 knows a LoRA by: `sshs_model_hash` where the file says it, else what that is of the file."""
    said = header.metadata.get("sshs_model_hash", "")
    return said.lower() if _HASH.fullmatch(said) else weights_sha256(header.path)


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_by_name(path: Path) -> None:
    if path.suffix.lower() in PICKLE_ENDINGS:
        raise WeightsFileError(
            _(
                "{name} is a pickle: opening one can run any program that is hidden in it, so the "
                "studio never does. Get the same file as .safetensors; nearly every page that offers "
                "one has both.",
                name=path.name,
            )
        )


def _regular_file_size(path: Path) -> int:
    """Looks before anything is opened: opening a pipe would wait forever."""
    try:
        found = path.stat()
    except (FileNotFoundError, ValueError) as error:  # ValueError: the path has a NUL
        raise WeightsFileError(_("There is no file {path}.", path=path)) from error
    if not stat.S_ISREG(found.st_mode):
        raise WeightsFileError(_("{path} is not a file. Choose a .safetensors file.", path=path))
    return found.st_size


def _header_length(path: Path, head: bytes) -> int:
    """How long the header is, from the file's first bytes; what only bears the name is said to be what it is.

    A length alone may look like the beginning of anything: what has a header after it is not judged by it.
    """
    if len(head) < 8:
        raise WeightsFileError(_("{name} is empty or cut short. Copy or download it again.", name=path.name))
    length: int = struct.unpack("<Q", head[:8])[0]
    if length > HEADER_LIMIT_BYTES or head[8:9] != b"{":
        _refuse_by_content(path, head)
    if length > HEADER_LIMIT_BYTES:
        raise WeightsFileError(
            _("{name} is not a .safetensors file: its header would be {length:,} bytes.", name=path.name, length=length)
        )
    return length


def _refuse_by_content(path: Path, head: bytes) -> None:
    """Name what a download that failed often leaves."""
    if head.startswith(b"version https://git-lfs"):
        raise WeightsFileError(
            _(
                "{name} is a Git LFS pointer, not the weights themselves: fetch them with `git lfs pull`.",
                name=path.name,
            )
        )
    if head.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"<":
        raise WeightsFileError(
            _("{name} is a web page saved under this name. Download the file itself again.", name=path.name)
        )
    if head.startswith(PICKLE_STARTS):
        raise WeightsFileError(
            _(
                "{name} is a pickle under another name, and could run any program that is hidden in "
                "it. Get a real .safetensors file.",
                name=path.name,
            )
        )


def _parse(path: Path, raw: bytes) -> tuple[dict[str, TensorInfo], dict[str, str], int]:
    """Tensors, metadata, and how many bytes of weights the header promises."""
    try:
        entries = json.loads(raw.decode())
        metadata = {_text(k): _text(v) for k, v in entries.pop("__metadata__", {}).items()}
        if len(entries) > TENSORS_LIMIT:
            raise WeightsFileError(
                _(
                    "{name} names {num_tensors:,} tensors; over {limit:,} are refused.",
                    name=path.name,
                    num_tensors=len(entries),
                    limit=TENSORS_LIMIT,
                )
            )
        tensors = {_text(name): TensorInfo(_text(e["dtype"]), _shape(e["shape"])) for name, e in entries.items()}
        places = {name: _offsets(e["data_offsets"]) for name, e in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsFileError(
            _("{name} is not a .safetensors file, or its header is damaged. Copy or download it again.", name=path.name)
        ) from error
    for name, info in tensors.items():
        size, (begin, end) = DTYPE_BYTES.get(info.dtype), places[name]
        if size is not None and end - begin != size * math.prod(info.shape):
            raise WeightsFileError(
                _(
                    "{name} is damaged: {tensor} has {num_bytes} bytes for shape {shape}.",
                    name=path.name,
                    tensor=name,
                    num_bytes=end - begin,
                    shape=info.shape,
                )
            )
    ordered = [(0, 0), *sorted(places.values())]
    if any(end != begin for (__, end), (begin, __) in itertools.pairwise(ordered)):
        raise WeightsFileError(
            _(
                "{name} is damaged: its tensors overlap or leave gaps between them. Copy or download it again.",
                name=path.name,
            )
        )
    return tensors, metadata, ordered[-1][1]


def _text(value: object) -> str:
    """A name or a word of the metadata; half a surrogate pair could neither be shown nor saved."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where text belongs")
    value.encode()
    return value


def _shape(value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > DIMENSIONS_LIMIT:
        raise ValueError("no shape")
    return tuple(map(_number, value))


def _offsets(value: object) -> tuple[int, int]:
    if not isinstance(value, list):
        raise ValueError("no begin and end")
    begin, end = map(_number, value)
    if end < begin:
        raise ValueError("an end before its begin")
    return begin, end


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < NUMBER_LIMIT:
        raise ValueError("no length and no offset")
    return value
