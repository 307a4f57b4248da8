"""The morning report: what was made, what was rejected and why, how long it took, how good it is. In Markdown."""

from collections import Counter
from dataclasses import dataclass, field
from itertools import islice

from studio.batches.folder import BatchFolder
from studio.batches.ledger import ItemFacts, ItemRow, read_items, read_rejections
from studio.batches.plan import BatchPlan
from studio.core.files import read_text, write_atomically
from studio.core.language import _
from studio.core.records import label_or_none
from studio.core.text import counted, duration, escape_markdown, markdown_table
from studio.images.scores.image import PictureScores, summarise_scores

MAX_ROWS = 40
VERDICT = "\n**"
"""What the verdict begins with: all above it is the batch's name and note."""
MAX_SCORED = 20_000  # a mean of more says nothing new


@dataclass
class _Found:
    """What the ledgers tell, counted."""

    num_done: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    num_tried_again: int = 0
    num_set_aside: int = 0
    failed: list[ItemRow] = field(default_factory=list)
    scores: list[PictureScores] = field(default_factory=list)
    values: dict[str, Counter[str]] = field(default_factory=dict)


def write_report(folder: BatchFolder, plan: BatchPlan, *, finished: bool) -> None:
    """Write `report.md`.

    Raises:
        BatchError: where a ledger cannot be read.
        OSError: where it cannot be written.
    """
    found = _count(folder, plan)
    parts = [
        [*_head(folder), *_verdict(found, plan, finished=finished)],
        _values(found, plan),
        _failed(found),
        _rejected(folder, found),
        ["## Scores", "", *(f"- {words}" for words in summarise_scores(found.scores).sentences)]
        if found.scores
        else [],
    ]
    write_atomically(folder.report, "\n".join("\n".join([*part, ""]) for part in parts if part).encode())


def rename_report(folder: BatchFolder) -> None:
    """Give a report that was written the batch's name and note of now.

    Raises:
        OSError: where it cannot be read or written.
    """
    if folder.report.is_file():
        __, verdict, rest = read_text(folder.report, errors="replace").partition(VERDICT)
        if verdict:
            write_atomically(folder.report, ("\n".join([*_head(folder), ""]) + verdict[1:] + rest).encode())


def _head(folder: BatchFolder) -> list[str]:
    """What stands above the verdict, and holds no asterisk of its own."""
    label = label_or_none(folder.label)
    note = [escape_markdown(line) for line in label.note.splitlines() if line.strip()]
    called = [_("Batch {escape_markdown}.", escape_markdown=escape_markdown(folder.name)), ""] if label.name else []
    return [f"# {escape_markdown(label.name or folder.name)}", "", *called, *(f"{line}\n" for line in note)]


def _count(folder: BatchFolder, plan: BatchPlan) -> _Found:
    found = _Found(values={column: Counter() for column in plan.columns})
    for row in read_items(folder.ledgers):
        found.seconds += row.seconds
        found.num_tried_again += row.attempts > 1
        if row.state != "done":
            found.failed += [row] if row.state == "failed" else []
            found.num_set_aside += row.state == "rejected"
            continue
        found.num_done += 1
        found.num_bytes += row.num_bytes
        for column, value in plan.item(row.item).attributes.items():
            found.values[column][value] += 1
        if len(found.scores) < MAX_SCORED:
            scores = ItemFacts.model_validate_json(row.facts).scores
            found.scores += [scores] if scores else []
    return found


def _verdict(found: _Found, plan: BatchPlan, *, finished: bool) -> list[str]:
    provenance = _(
        "{num_done:,} of {num_items:,} images are made and valid", num_done=found.num_done, num_items=plan.num_items
    )
    failed = _("; {num_failed:,} failed", num_failed=len(found.failed)) if found.failed else ""
    aside = _("; {num_set_aside:,} rejected by you", num_set_aside=found.num_set_aside) if found.num_set_aside else ""
    left = plan.num_items - found.num_done - len(found.failed) - found.num_set_aside
    not_yet = "" if finished and not left else _("; {left:,} are still to be made", left=left)
    each = found.seconds / max(1, found.num_done + len(found.failed))
    return [
        f"**{provenance}{failed}{aside}{not_yet}.**",
        "",
        _("- Generation time: {time}, {each:.2f} s each.", time=duration(found.seconds), each=each),
        _("- Made again with another seed: {items}.", items=counted(found.num_tried_again, "item", "items")),
        _("- Disk space: {num_bytes:,.1f} MB.", num_bytes=found.num_bytes / 1000000.0),
        _("- Plan: sha256 {digest}….", digest=plan.digest[:16]),
    ]


def _values(found: _Found, plan: BatchPlan) -> list[str]:
    lines = [_("## Images of each value")] if plan.columns else []
    planned = plan.value_counts()
    for column in plan.columns:
        counts = planned[column]
        if isinstance(counts, int):
            lines += [
                "",
                _(
                    "{escape_markdown}: {num_values:,} different values.",
                    escape_markdown=escape_markdown(column),
                    num_values=len(found.values[column]),
                ),
            ]
            continue
        rows = [(value, f"{found.values[column][value]:,}", f"{number:,}") for value, number in counts.items()]
        lines += ["", markdown_table((column, "made", "planned"), rows)]
    return lines


def _failed(found: _Found) -> list[str]:
    """The items of which there is no image: rejected until no try was left, or ended by an error."""
    if not found.failed:
        return []
    rows = [(f"{row.item:,}", str(row.attempts), row.reason) for row in found.failed[:MAX_ROWS]]
    lines = ["## Failed", "", markdown_table(("item", "rejected", "why"), rows)]
    more = len(found.failed) - MAX_ROWS
    return (
        [*lines, "", _("{more_items} failed.", more_items=counted(more, "more item", "more items"))]
        if more > 0
        else lines
    )


def _rejected(folder: BatchFolder, found: _Found) -> list[str]:
    rejections = list(islice(read_rejections(folder.ledgers), MAX_ROWS + 1))
    if not rejections:
        return ["## Rejected", "", _("No images were rejected.")]
    lines = ["## Rejected", ""]
    rows = [(f"{r.item:,}", str(r.attempt + 1), r.reason, r.file) for r in rejections[:MAX_ROWS]]
    lines.append(markdown_table(("item", "try", "why", "copy"), rows))
    if len(rejections) > MAX_ROWS:
        lines += ["", _("These are the first {max_rows}; the others are in `rejected/`.", max_rows=MAX_ROWS)]
    return lines
