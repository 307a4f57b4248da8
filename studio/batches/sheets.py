"""Pictures of a batch on one sheet: a contact sheet of some, and the X/Y grid of two columns."""

import io
from pathlib import Path

from PIL import Image

from studio.batch_settings import BatchSettings
from studio.batches.folder import BatchFolder
from studio.batches.ledger import read_items
from studio.batches.plan import BatchPlan
from studio.files import write_atomically
from studio.picture_grid import Cell, GridRow, picture_grid

SHEET_PICTURES, SHEET_COLUMNS, SHEET_CELL = 120, 10, 144
MAX_GRID = 64  # values of a column; more would be a picture that no program opens


def write_contact_sheet(folder: BatchFolder, plan: BatchPlan) -> None:
    """A JPEG of up to 120 pictures, spread over the plan.

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
    """The X/Y grid: the first picture of every pair of values, with the values as labels.

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
