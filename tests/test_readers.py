"""Pipes, devices and files without an end are refused before they are opened, by whoever reads text or weights."""

import ast
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studio.batches.folder import read_settings_file as read_batch_settings
from studio.batches.prompt_files import open_prompt_file
from studio.batches.template import Wildcards
from studio.cli.doctor_checks import check_model_files
from studio.core.errors import StudioError, UnreadableFileError
from studio.core.files import open_file, read_file, read_text
from studio.core.settings import ServerSettings
from studio.datasets.captions import guess_caption, read_caption
from studio.datasets.library import DatasetLibrary
from studio.datasets.snapshot import read_snapshot
from studio.datasets.snapshot import sha256_of as sha256_of_image
from studio.datasets.tables import read_table
from studio.datasets.upload import extract_zip
from studio.engine.hub import unusable_certificates
from studio.engine.model_files import check_checkpoint
from studio.images.decoding import open_rgb
from studio.images.files import read_picture_text
from studio.images.tokens import TokenCounter
from studio.loras.library import LoraLibrary
from studio.loras.weights_file import adapter_config_of, read_header, sha256_of, weights_sha256
from studio.training.begin import read_settings_file as read_training_settings
from studio.ui.shell.server import read_logins

needs_pipes = pytest.mark.skipif("os.name == 'nt'", reason="Windows has no such files")
STUDIO = Path(__file__).resolve().parents[1] / "studio"
WHAT = "pipe|not a file|no (caption )?file|a link out of|cannot be read"


def pipe(path: Path) -> None:
    os.mkfifo(path)


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def say(problem: str) -> None:
    """Raise what a reader returns instead of raising it."""
    if problem:
        raise StudioError(problem)


def read_certificates(path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        say(unusable_certificates())


# What a person names or a stranger's folder holds, by the ending that its reader wants.
READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "a wildcard": ("colour.txt", lambda path: Wildcards(path.parent).values("colour")),
    "prompts as text": ("a.txt", open_prompt_file),
    "prompts as a table": ("a.csv", open_prompt_file),
    "prompts as JSON lines": ("a.jsonl", open_prompt_file),
    "a batch's settings": ("settings.json", read_batch_settings),
    "a training's settings": ("settings.json", read_training_settings),
    "a caption": ("a.txt", lambda path: say(" ".join(p.sentence for p in read_caption(path).problems))),
    "a caption in an unknown encoding": ("a.txt", guess_caption),
    "a dataset's table": ("metadata.csv", lambda path: read_table(path, path.name)),
    "a snapshot": ("dataset.jsonl", read_snapshot),
    "an image's hash": ("a.png", sha256_of_image),
    "an image": ("a.png", open_rgb),
    "an image's settings": ("a.png", read_picture_text),
    "a zip": ("a.zip", lambda path: extract_zip(path, path.with_suffix(""))),
    "a LoRA": ("a.safetensors", read_header),
    "a LoRA to add": ("a.safetensors", lambda path: LoraLibrary(path.parent / "library").add(path)),
    "a LoRA's hash": ("a.safetensors", weights_sha256),
    "weights' hash": ("a.safetensors", sha256_of),
    "a checkpoint": ("a.safetensors", check_checkpoint),
    "a tokenizer": ("tokenizer.json", lambda path: TokenCounter(path).count_plain("a")),
    "passwords": ("logins.txt", lambda path: read_logins(ServerSettings(auth_file=path))),
    "certificates": ("ca.pem", read_certificates),
    "any file": ("a", open_file),
    "any bytes": ("a", read_file),
    "any text": ("a", read_text),
}


@needs_pipes
@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", [pipe, endless])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_file_is_refused_before_it_is_opened(
    tmp_path: Path, reader: str, make: Callable[[Path], None]
) -> None:
    name, read = READERS[reader]
    make(tmp_path / name)
    started = time.monotonic()
    with pytest.raises((StudioError, UnreadableFileError), match=WHAT):
        read(tmp_path / name)
    assert time.monotonic() - started < 5


@needs_pipes
@pytest.mark.timeout(20)
def test_a_model_folder_with_a_pipe_in_it_is_a_finding_of_the_doctor(model_copy: Path) -> None:
    weights = model_copy / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    os.mkfifo(weights)
    assert "pipe" in check_model_files("Model", model_copy).seen


@needs_pipes
def test_a_pipe_is_passed_by_where_a_file_is_optional(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/recipe.json", "lora.adapter_config.json", "adapter_config.json"):
        os.mkfifo(tmp_path / name)
    assert DatasetLibrary(tmp_path).names() == []
    assert adapter_config_of(tmp_path / "lora.safetensors") is None


def test_no_more_is_read_than_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"1234")
    assert read_file(path, max_bytes=4) == b"1234"
    with pytest.raises(UnreadableFileError, match="over 0 MB"):
        read_file(path, max_bytes=3)


@pytest.mark.skipif("not os.path.exists('/proc/self/status')", reason="a file that says it is empty and is not")
def test_a_file_that_says_it_is_empty_is_bounded_too() -> None:
    assert Path("/proc/self/status").stat().st_size == 0
    assert read_file(Path("/proc/self/status")).startswith(b"Name:")
    with pytest.raises(UnreadableFileError):
        read_file(Path("/proc/self/status"), max_bytes=10)


def test_text_is_read_as_python_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffé\r\nb\rc\n".encode())
    for encoding in ("utf-8", "utf-8-sig"):
        assert read_text(path, encoding=encoding) == path.read_text(encoding=encoding)


def openings(source: str) -> Iterator[str]:
    """Each place where a path is opened to be read past the door, as the method and its line."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        mode = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else None
        takes_encoding = any(keyword.arg == "encoding" for keyword in node.keywords) and not node.args
        if name in ("read_bytes", "read_text") and isinstance(node.func, ast.Attribute):
            yield f"{name} in line {node.lineno}"
        if name == "open" and (takes_encoding or (isinstance(mode, str) and mode.startswith("r"))):
            yield f"open in line {node.lineno}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("path.read_bytes()", 1),
        ("(a / b).read_text(encoding='utf-8')", 1),
        ("path.open('rb')", 1),
        ("path.open(encoding='utf-8')", 1),
        ("path.open('ab')\nread_bytes(path)\nread_text(path)\nlibrary.open(name)", 0),
    ],
)
def test_an_opening_is_seen(source: str, expected: int) -> None:
    assert len(list(openings(source))) == expected


def test_every_file_is_read_through_the_one_door() -> None:
    """`open_file`, `read_file` and `read_text` of core/files; what Linux says of itself apart."""
    exempt = {STUDIO / "engine" / "device.py", STUDIO / "datasets" / "checker.py"}  # /proc/cpuinfo, /proc/self/statm
    found = {
        str(path.relative_to(STUDIO)): names
        for path in STUDIO.rglob("*.py")
        if path not in exempt and (names := list(openings(path.read_text("utf-8"))))
    }
    assert found == {}
