"""What a `.safetensors` file says of itself: names, shapes and metadata, read without its weights and without torch."""

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from studio.errors import WeightsFileError

HEADER_LIMIT_BYTES = 10 * 2**20
TENSORS_LIMIT = 20_000
PICKLE_ENDINGS = (".ckpt", ".pt", ".pth", ".bin")
DTYPE_BYTES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2, "F8_E4M3": 1, "F8_E5M2": 1}


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
    _refuse_by_kind(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            _refuse_by_content(path, start, file.read(64))
            length = struct.unpack("<Q", start)[0]
            if length > HEADER_LIMIT_BYTES:
                raise WeightsFileError(f"{path.name} is not a .safetensors file: its header would be {length:,} bytes.")
            file.seek(8)
            raw = file.read(length)
    except OSError as error:
        raise WeightsFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    tensors, metadata, data_bytes = _parse(path, raw, length)
    if 8 + length + data_bytes != size:
        raise WeightsFileError(
            f"{path.name} is damaged: it has {size:,} bytes where {8 + length + data_bytes:,} belong. "
            "It was cut short or changed on the way; copy or download it again."
        )
    return WeightsHeader(path, tensors, metadata, size)


def sha256_of(path: Path) -> str:
    """The file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_by_kind(path: Path) -> None:
    if path.suffix.lower() in PICKLE_ENDINGS:
        raise WeightsFileError(
            f"{path.name} is a pickle: opening one can run any program that is hidden in it, so the studio never does. "
            "Get the same file as .safetensors; nearly every page that offers one has both."
        )
    if not path.exists():
        raise WeightsFileError(f"There is no file {path}.")
    if not path.is_file():
        raise WeightsFileError(f"{path} is not a file. Choose a .safetensors file.")


def _refuse_by_content(path: Path, start: bytes, rest: bytes) -> None:
    """Say of what only bears the name what it is; a download that failed often leaves one."""
    head = start + rest
    if len(start) < 8:
        raise WeightsFileError(f"{path.name} is empty or cut short. Copy or download it again.")
    if head.startswith(b"version https://git-lfs"):
        raise WeightsFileError(
            f"{path.name} is a Git LFS pointer, not the weights themselves: fetch them with `git lfs pull`."
        )
    if head.lstrip()[:1] == b"<":
        raise WeightsFileError(f"{path.name} is a web page saved under this name. Download the file itself again.")
    if head.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        raise WeightsFileError(
            f"{path.name} is a pickle under another name, and could run any program that is hidden in it. "
            "Get a real .safetensors file."
        )


def _parse(path: Path, raw: bytes, length: int) -> tuple[dict[str, TensorInfo], dict[str, str], int]:
    """Tensors, metadata, and how many bytes of weights the header promises."""
    broken = WeightsFileError(
        f"{path.name} is not a .safetensors file, or its header is damaged. Copy or download it again."
    )
    if len(raw) != length:
        raise broken
    try:
        entries = json.loads(raw)
        metadata = {str(k): str(v) for k, v in entries.pop("__metadata__", {}).items()}
        if len(entries) > TENSORS_LIMIT:
            raise WeightsFileError(f"{path.name} names {len(entries):,} tensors; over {TENSORS_LIMIT:,} are refused.")
        tensors = {name: TensorInfo(e["dtype"], tuple(map(int, e["shape"]))) for name, e in entries.items()}
        ends = [int(e["data_offsets"][1]) for e in entries.values()]
        begins = [int(e["data_offsets"][0]) for e in entries.values()]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise broken from error
    for (name, info), begin, end in zip(tensors.items(), begins, ends, strict=True):
        size = DTYPE_BYTES.get(info.dtype)
        if size is not None and end - begin != size * math.prod(info.shape):
            raise WeightsFileError(f"{path.name} is damaged: {name} has {end - begin} bytes for shape {info.shape}.")
    return tensors, metadata, max(ends, default=0)
