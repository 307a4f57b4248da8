"""WebDataset shards: tar files of images and captions that are read from one end to the other, and their manifest.

Images of a batch on one sheet: a contact sheet of some, and the X/Y grid of two columns.
What comes out of a batch: an imagefolder that loads, shards, a contact sheet, an X/Y grid, the report.
"""

import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from PIL import Image

from studio.batches.folder import BatchFolder
from studio.batches.ledger import ItemRow, read_items
from studio.batches.plan import BatchItem, BatchPlan
from studio.batches.provenance import read_provenance
from studio.batches.report import write_report
from studio.batches.settings import BatchSettings
from studio.core.files import replacing, write_atomically
from studio.images.grids import Cell, GridRow, picture_grid

MANIFEST = "shards.json"


def write_shards(folder: BatchFolder, *, pictures_per_shard: int) -> None:
    """Write `00000.tar` and so on: of each image `0000123.png` and `0000123.json`, its line of metadata.jsonl.

    The same images give the same bytes. The manifest comes last: without it the shards are not whole.

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


SHEET_PICTURES, SHEET_COLUMNS, SHEET_CELL = 120, 10, 144
MAX_GRID = 64  # values of a column; more would be an image that no program opens


def write_contact_sheet(folder: BatchFolder, plan: BatchPlan) -> None:
    """A JPEG of up to 120 images, spread over the plan.

    Raises:
        BatchError: where a ledger cannot be read.
        OSError: where it cannot be written.
    """
    step = max(1, plan.num_items // SHEET_PICTURES)
    shown = [(row.item, row.file) for row in read_items(folder.ledgers) if row.state == "done" and row.item % step == 0]
    cells = [Cell(f"{item:,} {plan.item(item).caption}", folder.root / file) for item, file in shown[:SHEET_PICTURES]]
    rows = [GridRow("", cells[start : start + SHEET_COLUMNS]) for start in range(0, len(cells), SHEET_COLUMNS)]
    sheet, content = Image.open(io.BytesIO(picture_grid(rows, cell=SHEET_CELL))), io.BytesIO()
    sheet.convert("RGB").save(content, format="JPEG", quality=88)
    write_atomically(folder.contact_sheet, content.getvalue())


def write_grid(folder: BatchFolder, settings: BatchSettings, plan: BatchPlan) -> None:
    """The X/Y grid: the first image of every pair of values, with the values as labels.

    Raises:
        BatchError, OSError: as `write_contact_sheet`.
    """
    found: dict[tuple[str, str], Path] = {}
    for row in read_items(folder.ledgers):
        attributes = plan.item(row.item).attributes
        pair = attributes[settings.grid_x], attributes.get(settings.grid_y, "")
        if row.state == "done" and pair not in found:
            found[pair] = folder.root / row.file
    across, down = (list(dict.fromkeys(values))[:MAX_GRID] for values in ([x for x, _ in found], [y for _, y in found]))
    rows = [
        GridRow(
            f"{settings.grid_y}: {y}" if settings.grid_y else "",
            [Cell(f"{settings.grid_x}: {x}", found.get((x, y))) for x in across],
        )
        for y in down
    ]
    write_atomically(folder.grid, picture_grid(rows))


CARD = "README.md"


def write_outputs(folder: BatchFolder, settings: BatchSettings, plan: BatchPlan, *, finished: bool) -> None:
    """Write all that is made of the ledgers: each whole or not at all, and the same when written twice.

    Args:
        finished: of a batch that goes on later, images that no ledger has yet are left where they are, and there
            are no shards.

    Raises:
        BatchError: where a ledger cannot be read.
        OSError: where something cannot be written.
    """
    write_metadata(folder, plan)
    write_card(folder, plan)
    if finished:
        tidy(folder, plan.num_items)
        if settings.pictures_per_shard:
            write_shards(folder, pictures_per_shard=settings.pictures_per_shard)
    write_contact_sheet(folder, plan)
    if settings.grid_x:
        write_grid(folder, settings, plan)
    write_report(folder, plan, finished=finished)


def made_items(folder: BatchFolder, plan: BatchPlan) -> Iterator[tuple[BatchItem, ItemRow]]:
    """Every item whose image is made, in order.

    Raises:
        BatchError: where a ledger cannot be read.
    """
    return ((plan.item(row.item), row) for row in read_items(folder.ledgers) if row.state == "done")


def write_metadata(folder: BatchFolder, plan: BatchPlan) -> None:
    """A line for each image, as `datasets` reads an imagefolder: file_name, text, every column, what drew it.

    Raises:
        BatchError, OSError: as `write_outputs`.
    """
    with replacing(folder.metadata) as file:
        for item, row in made_items(folder, plan):
            file.write(json.dumps(metadata_of(folder, item, row), ensure_ascii=False).encode() + b"\n")


def metadata_of(folder: BatchFolder, item: BatchItem, row: ItemRow) -> Mapping[str, object]:
    """One line of metadata.jsonl; every line has the same names."""
    generation = item.generation
    return {
        "file_name": (folder.root / row.file).relative_to(folder.dataset).as_posix(),
        "text": item.caption,
        **item.attributes,
        "prompt": generation.prompt,
        "negative_prompt": generation.negative_prompt,
        "seed": row.seed,
        "num_inference_steps": generation.num_inference_steps,
        "guidance_scale": generation.guidance_scale,
        "scheduler": generation.scheduler,
        "loras": "; ".join(f"{lora.name}:{lora.strength:g}" for lora in generation.loras),
        "sha256": row.sha256,
    }


def write_card(folder: BatchFolder, plan: BatchPlan) -> None:
    """The dataset's card, as Hugging Face's hub shows it: that it is synthetic, and what drew it.

    Raises:
        OSError: where it cannot be written.
    """
    provenance = read_provenance(folder.dataset)
    lines = [
        *("---", "tags:", "- synthetic", "task_categories:", "- text-to-image", "---"),
        f"# {folder.name}",
        "",
        provenance.sentence if provenance else "Synthetic: generated by LoRA Studio.",
        "",
        f"{plan.num_items:,} images were planned; `metadata.jsonl` has a line for each that is made, with its "
        "caption (`text`), its columns and what drew it.",
    ]
    write_atomically(folder.dataset / CARD, "\n".join(lines).encode() + b"\n")


def tidy(folder: BatchFolder, num_items: int) -> None:
    """Half-written files of a kill are deleted; images of no item that is done (of a kill, or rejected later) go to
    `rejected`. For a batch that nobody works on.

    Raises:
        BatchError, OSError: as `write_outputs`.
    """
    for part in folder.root.rglob(".*.part"):
        part.unlink()
    done = bytearray(num_items)
    for row in read_items(folder.ledgers):
        done[row.item] = row.state == "done"
    for path in folder.dataset.glob("[0-9]*/[0-9]*"):
        if not done[int(path.stem)]:
            folder.rejected.mkdir(exist_ok=True)
            path.replace(folder.rejected / f"stray-{path.name}")
