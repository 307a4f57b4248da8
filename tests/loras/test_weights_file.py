"""A file of weights is read by its head, and what is none, or not whole, is said to be so."""

import hashlib
import json
import os
import random
import struct
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from studio.core.errors import WeightsFileError
from studio.core.paths import assets_folder
from studio.loras.weights_file import HEADER_LIMIT_BYTES, TENSORS_LIMIT, TensorInfo, read_header, sha256_of

LORA = assets_folder() / "loras" / "white-ground.safetensors"
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "a.safetensors"


def write_raw(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def write(path: Path, entries: object, data: bytes = b"") -> Path:
    return write_raw(path, json.dumps(entries).encode(), data)


def padded(entries: object, length: int) -> bytes:
    """A header of this very length: spaces behind it are allowed."""
    return json.dumps(entries).encode().ljust(length)


def test_a_good_file_tells_its_tensors_and_metadata(path: Path) -> None:
    tensors = {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.float16), "c": torch.zeros(0, 4)}
    save_file(tensors, path, metadata={"trigger": "weiß"})
    header = read_header(path)
    assert header.tensors == {
        "a": TensorInfo("F32", (2, 3)),
        "b": TensorInfo("F16", ()),
        "c": TensorInfo("F32", (0, 4)),
    }
    assert header.metadata == {"trigger": "weiß"}
    assert (header.path, header.size_bytes) == (path, path.stat().st_size)


@pytest.mark.parametrize(
    "dtype",
    [
        *("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64", "bool"),
        *("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8"),
    ],
)
def test_every_precision_that_torch_saves_is_read(path: Path, dtype: str) -> None:
    save_file({"a": torch.zeros(3, 2).to(getattr(torch, dtype))}, path)
    assert read_header(path).tensors["a"].shape == (3, 2)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "bool", "complex64"])
def test_a_shape_that_lies_about_its_bytes_is_refused_in_every_precision(path: Path, dtype: str) -> None:
    save_file({"a": torch.zeros(3, 2).to(getattr(torch, dtype))}, path)
    path.write_bytes(path.read_bytes().replace(b'"shape":[3,2]', b'"shape":[3,3]'))
    with pytest.raises(WeightsFileError, match=r"a\.safetensors is damaged: a has \d+ bytes for shape \(3, 3\)"):
        read_header(path)


def test_a_file_without_metadata_has_none(path: Path) -> None:
    save_file({"a": torch.zeros(2)}, path)
    assert read_header(path).metadata == {}


def test_a_file_without_tensors_is_read(path: Path) -> None:
    save_file({}, path, metadata={"a": "b"})
    assert read_header(path).tensors == {}


def test_the_shipped_lora_is_read_as_safetensors_reads_it() -> None:
    header = read_header(LORA)
    with safe_open(LORA, framework="pt") as file:
        assert header.metadata == file.metadata()
        assert {n: list(i.shape) for n, i in header.tensors.items()} == {
            n: file.get_slice(n).get_shape()
            for n in file.keys()  # noqa: SIM118
        }


def test_a_symbolic_link_to_a_good_file_is_read(path: Path) -> None:
    path.symlink_to(LORA)
    assert len(read_header(path).tensors) == len(read_header(LORA).tensors)


# These lengths begin, as bytes, like a web page, two pickles and a web page after a space.
@pytest.mark.parametrize("length", [0x3C, 0x280, 0x480, 0x3C20])
def test_a_header_whose_length_looks_like_something_else_is_read(path: Path, length: int) -> None:
    write_raw(path, padded({"a": F32}, length), bytes(8))
    assert read_header(path).tensors == {"a": TensorInfo("F32", (2,))}


@pytest.mark.parametrize("ending", [".ckpt", ".pt", ".pth", ".bin", ".CKPT"])
def test_a_pickle_is_refused_by_its_ending(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model{ending}"
    torch.save({}, path)
    with pytest.raises(WeightsFileError, match=r"is a pickle: .*never does\. Get the same file as \.safetensors"):
        read_header(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_under_another_name_is_refused_by_its_content(path: Path, zipped: bool) -> None:
    torch.save({"a": torch.zeros(100)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsFileError, match="is a pickle under another name"):
        read_header(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_known(path: Path, protocol: int) -> None:
    path.write_bytes(bytes([0x80, protocol]) + b"}q\x00X\x05\x00\x00\x00stateq\x01." * 9)
    with pytest.raises(WeightsFileError, match="is a pickle under another name"):
        read_header(path)


@pytest.mark.parametrize(
    "page", [b"<!doctype html><title>404</title>", b"\n\n  <html></html>", b"\xef\xbb\xbf<html></html>"]
)
def test_a_web_page_is_said_to_be_one(path: Path, page: bytes) -> None:
    path.write_bytes(page)
    with pytest.raises(WeightsFileError, match="is a web page saved under this name"):
        read_header(path)


def test_a_git_lfs_pointer_is_said_to_be_one(path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(WeightsFileError, match=r"is a Git LFS pointer.*`git lfs pull`"):
        read_header(path)


@pytest.mark.parametrize("content", [b"", b"\0", b"<html>", b"\0" * 7])
def test_an_empty_file_is_said_to_be_empty(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(WeightsFileError, match="is empty or cut short"):
        read_header(path)


@pytest.mark.parametrize("change", [-1, 1])
def test_one_byte_more_or_less_is_noticed(path: Path, change: int) -> None:
    whole = LORA.read_bytes()
    path.write_bytes(whole[:change] if change < 0 else whole + b"\0")
    sizes = f"it has {len(whole) + change:,} bytes where {len(whole):,} belong"
    with pytest.raises(WeightsFileError, match=f"is damaged: {sizes}"):
        read_header(path)


def test_a_header_that_is_cut_short_is_refused(path: Path) -> None:
    path.write_bytes(LORA.read_bytes()[:1000])
    with pytest.raises(WeightsFileError, match="or its header is damaged"):
        read_header(path)


def test_a_header_whose_last_spaces_are_cut_off_is_refused(path: Path) -> None:
    whole = write_raw(path, padded({}, 100)).read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(WeightsFileError, match="it has 107 bytes where 108 belong"):
        read_header(path)


def test_a_header_over_10_mb_is_refused(path: Path) -> None:
    write_raw(path, padded({}, HEADER_LIMIT_BYTES + 1))
    with pytest.raises(WeightsFileError, match=r"its header would be 10,485,761 bytes"):
        read_header(path)


def test_a_header_of_10_mb_is_read(path: Path) -> None:
    write_raw(path, padded({"a": F32}, HEADER_LIMIT_BYTES), bytes(8))
    assert list(read_header(path).tensors) == ["a"]


def test_over_20_000_tensors_are_refused(path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    write(path, {str(i): empty for i in range(TENSORS_LIMIT + 1)})
    with pytest.raises(WeightsFileError, match=r"names 20,001 tensors; over 20,000 are refused"):
        read_header(path)


def test_20_000_tensors_are_read(path: Path) -> None:
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    write(path, {str(i): empty for i in range(TENSORS_LIMIT)})
    assert len(read_header(path).tensors) == TENSORS_LIMIT


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"null",
        b'"text"',
        b"{} {}",
        b"\xff\xfe{\0}\0",
        b"{\xff}",
        b'{"a": 1}',
        b'{"a": null}',
        b'{"a": []}',
        b'{"__metadata__": null}',
        b'{"__metadata__": []}',
        b'{"__metadata__": {"a": 1}}',
        b'{"__metadata__": {"a": "\\ud800"}}',
        b'{"__metadata__": {"\\udc00": "a"}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"a": ' + b"9" * 5000 + b"}",
    ],
)
def test_a_header_that_is_no_table_of_tensors_is_refused(path: Path, header: bytes) -> None:
    write_raw(path, header)
    with pytest.raises(WeightsFileError, match=r"is not a \.safetensors file, or its header is damaged"):
        read_header(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("a", {"dtype": None}),
        ("a", {"dtype": ["F32"]}),
        ("a", {"dtype": {"F32": 1}}),
        ("a", {"shape": None}),
        ("a", {"shape": "2"}),
        ("a", {"shape": 2}),
        ("a", {"shape": ["2"]}),
        ("a", {"shape": {}, "data_offsets": [0, 4]}),
        ("a", {"shape": [2.0]}),
        ("a", {"shape": [float("inf")]}),
        ("a", {"shape": [float("nan")]}),
        ("a", {"shape": [True, 2]}),
        ("a", {"shape": [-1, -2]}),
        ("a", {"shape": [2**63]}),
        ("a", {"shape": [1] * 65}),
        ("a", {"data_offsets": None}),
        ("a", {"data_offsets": []}),
        ("a", {"data_offsets": [0]}),
        ("a", {"data_offsets": [0, 4, 8]}),
        ("a", {"data_offsets": "08"}),
        ("a", {"data_offsets": {"0": 8}}),
        ("a", {"data_offsets": [0, 8.0]}),
        ("a", {"data_offsets": [0, float("inf")]}),
        ("a", {"data_offsets": [-8, 0]}),
        ("a", {"data_offsets": [8, 0]}),
        ("a", {"data_offsets": [2**63, 2**63 + 8]}),
        ("a", {"dtype": "X9", "data_offsets": [8, 0]}),
        ("\ud800", {}),
    ],
)
def test_a_tensor_whose_facts_are_not_what_they_must_be_is_refused(
    path: Path, name: str, change: Mapping[str, object]
) -> None:
    write(path, {name: {**F32, **change}}, bytes(8))
    with pytest.raises(WeightsFileError, match="or its header is damaged"):
        read_header(path)


@pytest.mark.parametrize("missing", ["dtype", "shape", "data_offsets"])
def test_a_tensor_that_lacks_a_fact_is_refused(path: Path, missing: str) -> None:
    write(path, {"a": {key: value for key, value in F32.items() if key != missing}}, bytes(8))
    with pytest.raises(WeightsFileError, match="or its header is damaged"):
        read_header(path)


@pytest.mark.parametrize(
    "offsets",
    [((0, 8), (0, 8)), ((0, 8), (4, 12)), ((0, 8), (9, 17)), ((8, 16), (16, 24)), ((4, 12), (12, 20))],
)
def test_tensors_that_overlap_or_leave_gaps_are_refused(path: Path, offsets: tuple[tuple[int, int], ...]) -> None:
    entries = {name: {**F32, "data_offsets": place} for name, place in zip("ab", offsets, strict=True)}
    write(path, entries, bytes(max(end for _, end in offsets)))
    with pytest.raises(WeightsFileError, match="its tensors overlap or leave gaps between them"):
        read_header(path)


@pytest.mark.parametrize("size", [0, 4, 12, 16])
def test_bytes_that_lie_about_a_shape_are_refused(path: Path, size: int) -> None:
    write(path, {"a": {**F32, "data_offsets": [0, size]}}, bytes(size))
    with pytest.raises(WeightsFileError, match=rf"is damaged: a has {size} bytes for shape \(2,\)"):
        read_header(path)


def test_huge_shapes_do_not_take_long(path: Path) -> None:
    write(path, {"a": {**F32, "shape": [int("9" * 4000)] * 2000}}, bytes(8))
    started = time.monotonic()
    with pytest.raises(WeightsFileError):
        read_header(path)
    assert time.monotonic() - started < 5


def test_a_file_that_is_not_there_is_said_to_be_missing(path: Path) -> None:
    with pytest.raises(WeightsFileError, match=r"There is no file .*a\.safetensors"):
        read_header(path)


def test_a_dangling_link_is_said_to_be_missing(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))
    with pytest.raises(WeightsFileError, match="There is no file"):
        read_header(path)


def test_a_link_to_itself_is_refused(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(WeightsFileError, match="cannot be read"):
        read_header(path)


def test_a_folder_is_said_to_be_no_file(path: Path) -> None:
    path.mkdir()
    with pytest.raises(WeightsFileError, match="is not a file"):
        read_header(path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.timeout(10)
def test_a_pipe_is_refused_and_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(WeightsFileError, match="is not a file"):
        read_header(path)


@pytest.mark.parametrize("name", ["a\0b.safetensors", "a" * 300 + ".safetensors"])
def test_a_name_that_no_file_can_have_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsFileError, match=r"There is no file|cannot be read"):
        read_header(tmp_path / name)


def test_damage_anywhere_in_a_head_raises_nothing_else(path: Path) -> None:
    chooser = random.Random(7)
    save_file({"a.b": torch.zeros(2, 3), "c": torch.zeros(4)}, path, metadata={"k": "v"})
    whole = path.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    for _ in range(3000):
        damaged = bytearray(whole)
        for _ in range(chooser.randint(1, 3)):
            damaged[chooser.randrange(end)] = chooser.choice(b'0129-.eE"{}[],:nul\\ \xff\0')
        path.write_bytes(damaged[: chooser.choice([len(whole), chooser.randrange(len(whole))])])
        try:
            read_header(path)
        except WeightsFileError:
            continue


def test_what_is_let_through_is_read_by_safetensors_too(path: Path) -> None:
    chooser = random.Random(8)
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4)}, path)
    whole = path.read_bytes()
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    num_read = 0
    for _ in range(3000):
        damaged = bytearray(whole)
        damaged[chooser.randrange(8, end)] = chooser.choice(b"0123456789 abF-")
        path.write_bytes(damaged)
        try:
            header = read_header(path)
        except WeightsFileError:
            continue
        num_read += 1
        if all(info.dtype == "F32" for info in header.tensors.values()):
            try:
                with safe_open(path, framework="pt") as file:
                    assert set(file.keys()) == set(header.tensors)
            except SafetensorError as error:
                pytest.fail(f"{bytes(damaged[8:end])!r}: {error}")
    assert num_read > 100


def test_the_sum_of_a_file_is_its_sha256(path: Path) -> None:
    path.write_bytes(b"abc" * 1_000_000)
    assert sha256_of(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()
