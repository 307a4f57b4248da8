"""WebDataset shards: tar files of pictures and captions that are read from one end to the other, and their manifest."""

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterable

from studio.batches.folder import BatchFolder
from studio.files import replacing, write_atomically

MANIFEST = "shards.json"


def write_shards(folder: BatchFolder, *, pictures_per_shard: int) -> None:
    """Write `00000.tar` and so on: of each picture `0000123.png` and `0000123.json`, its line of metadata.jsonl.

    The same pictures give the same bytes. The manifest comes last: without it the shards are not whole.

    Raises:
        OSError: where they cannot be written.
    """
    names = []
    with folder.metadata.open("rb") as lines:
        for number in itertools.count():
            chunk = list(itertools.islice(lines, pictures_per_shard))
            if not chunk:
                break
            names.append(_write_shard(folder, f"{number:05}.tar", chunk))
    for old in folder.shards.glob("*.tar"):
        if old.name not in {name["file"] for name in names}:
            old.unlink()
    write_atomically(folder.shards / MANIFEST, json.dumps({"shards": names}, indent=1).encode() + b"\n")


def _write_shard(folder: BatchFolder, name: str, lines: Iterable[bytes]) -> dict[str, object]:
    path, number = folder.shards / name, 0
    with replacing(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for line in lines:
            picture = folder.dataset / json.loads(line)["file_name"]
            _add(tar, picture.name, picture.read_bytes())
            _add(tar, picture.with_suffix(".json").name, line)
            number += 1
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    return {"file": name, "num_pictures": number, "num_bytes": path.stat().st_size, "sha256": digest}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """A member without time and owner."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
