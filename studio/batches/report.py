"""The morning report: what was made, what was rejected and why, how long it took, how good it is. In Markdown."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice

from studio.batches.folder import BatchFolder
from studio.batches.ledger import ItemFacts, ItemRow, read_items, read_rejections
from studio.batches.plan import BatchPlan
from studio.core.files import read_text, write_atomically
from studio.core.language import _, ngettext, number
from studio.core.records import label_or_none
from studio.core.text import counted, duration, escape_markdown, markdown_table
from studio.images.scores.image import PictureScores, summarise_scores
from studio.jobs.words import short_title

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
        [*_heading(_("Scores")), *_points(summarise_scores(found.scores).sentences)] if found.scores else [],
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


def _heading(words: str) -> list[str]:
    return [f"## {words}", ""]


def _points(lines: Iterable[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _head(folder: BatchFolder) -> list[str]:
    """What stands above the verdict, and holds no asterisk of its own."""
    label = label_or_none(folder.label)
    title = short_title(folder, label)
    note = [escape_markdown(line) for line in label.note.splitlines() if line.strip()]
    called = [_("Batch {name}.", name=escape_markdown(folder.name)), ""] if title != folder.name else []
    return [f"# {escape_markdown(title)}", "", *called, *(f"{line}\n" for line in note)]


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
    facts = [_("{num:,} of {total:,} images are made and valid", num=found.num_done, total=plan.num_items)]
    if num_failed := len(found.failed):
        facts.append(ngettext("{num:,} failed", "{num:,} failed", num_failed, num=num_failed))
    if aside := found.num_set_aside:
        facts.append(ngettext("{num:,} rejected by you", "{num:,} rejected by you", aside, num=aside))
    left = plan.num_items - found.num_done - num_failed - aside
    if left or not finished:
        facts.append(ngettext("{num:,} are still to be made", "{num:,} are still to be made", left, num=left))
    each = found.seconds / max(1, found.num_done + num_failed)
    lines = [
        _("Generation time: {time}, {each:.2f} s each.", time=duration(found.seconds), each=each),
        _("Made again with another seed: {items}.", items=counted(found.num_tried_again, "item", "items")),
        _("Disk space: {megabytes:,.1f} MB.", megabytes=found.num_bytes / 1e6),
        _("Plan: sha256 {digest}….", digest=plan.digest[:16]),
    ]
    return [f"**{'; '.join(facts)}.**", "", *_points(lines)]


def _values(found: _Found, plan: BatchPlan) -> list[str]:
    lines = ["## " + _("Images of each value")] if plan.columns else []
    value_counts = plan.value_counts()
    for column in plan.columns:
        counts = value_counts[column]
        if isinstance(counts, int):
            num = len(found.values[column])
            different = ngettext("{num:,} different value", "{num:,} different values", num, num=num)
            lines += ["", f"{escape_markdown(column)}: {different}."]
            continue
        rows = [(value, number(found.values[column][value]), number(planned)) for value, planned in counts.items()]
        lines += ["", markdown_table((column, _("made"), _("planned")), rows)]
    return lines


def _failed(found: _Found) -> list[str]:
    """The items of which there is no image: rejected until no try was left, or ended by an error."""
    if not found.failed:
        return []
    rows = [(number(row.item), str(row.attempts), row.reason) for row in found.failed[:MAX_ROWS]]
    lines = [*_heading(_("Failed")), markdown_table((_("item"), _("rejected"), _("why")), rows)]
    if (more := len(found.failed) - MAX_ROWS) > 0:
        lines += ["", ngettext("{num:,} more item failed.", "{num:,} more items failed.", more, num=more)]
    return lines


def _rejected(folder: BatchFolder, found: _Found) -> list[str]:
    rejections = list(islice(read_rejections(folder.ledgers), MAX_ROWS + 1))
    if not rejections:
        return [*_heading(_("Rejected")), _("No images were rejected.")]
    rows = [(number(r.item), str(r.attempt + 1), r.reason, r.file) for r in rejections[:MAX_ROWS]]
    lines = [*_heading(_("Rejected")), markdown_table((_("item"), _("try"), _("why"), _("copy")), rows)]
    if len(rejections) > MAX_ROWS:
        lines += ["", _("These are the first {num}; the others are in `rejected/`.", num=MAX_ROWS)]
    return lines
