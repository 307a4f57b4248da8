"""What comes out of a batch: an imagefolder that loads, shards, a contact sheet, an X/Y grid, the report."""

import json
from collections.abc import Iterator, Mapping

from studio.batch_settings import BatchSettings
from studio.batches.folder import BatchFolder
from studio.batches.item import BatchItem
from studio.batches.ledger import ItemRow, read_items
from studio.batches.lineage import read_lineage
from studio.batches.plan import BatchPlan
from studio.batches.report import write_report
from studio.batches.shards import write_shards
from studio.batches.sheets import write_contact_sheet, write_grid
from studio.files import replacing, write_atomically

CARD = "README.md"


def write_outputs(folder: BatchFolder, settings: BatchSettings, plan: BatchPlan, *, finished: bool) -> None:
    """Write all that is made of the ledgers: each whole or not at all, and the same when written twice.

    Args:
        finished: of a batch that goes on later, pictures that no ledger has yet are left where they are, and there
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
    """Every item whose picture is made, in order.

    Raises:
        BatchError: where a ledger cannot be read.
    """
    return ((plan.item(row.item), row) for row in read_items(folder.ledgers) if row.state == "done")


def write_metadata(folder: BatchFolder, plan: BatchPlan) -> None:
    """A line for each picture, as `datasets` reads an imagefolder: file_name, text, every column, what drew it.

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
    lineage = read_lineage(folder.dataset)
    lines = [
        *("---", "tags:", "- synthetic", "task_categories:", "- text-to-image", "---"),
        f"# {folder.name}",
        "",
        lineage.sentence if lineage else "Synthetic: drawn by LoRA Studio.",
        "",
        f"{plan.num_items:,} pictures were planned; `metadata.jsonl` has a line for each that is made, with its "
        "caption (`text`), its columns and what drew it.",
    ]
    write_atomically(folder.dataset / CARD, "\n".join(lines).encode() + b"\n")


def tidy(folder: BatchFolder, num_items: int) -> None:
    """Half-written files of a kill are deleted; pictures of no item that is done (of a kill, or rejected later) go to
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
