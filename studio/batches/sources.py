"""Where the rows of a plan come from: the box of prompts, a file, or both."""

import io
from collections.abc import Iterator
from dataclasses import dataclass

from studio.batch_settings import BatchSettings
from studio.batches.prompt_files import PromptFile, open_prompt_file
from studio.batches.prompt_lines import read_lines
from studio.batches.rows import Row
from studio.errors import BatchError
from studio.paths import typed_path

BOX = "prompts"


@dataclass(frozen=True)
class Sources:
    """What a plan is made of, before it is checked.

    Attributes:
        names: of the box and the file, by a row's `source`, for messages.
        columns: of the file's table.
        lines: rows with a prompt each; with the table's cells, where it has a column of prompts.
        records: rows with cells alone, which every line is filled from; None where there are none.
        notes: what was decided; reading the rows adds what was left out.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    lines: Iterator[Row]
    records: Iterator[Row] | None
    notes: list[str]


def find_sources(settings: BatchSettings) -> Sources:
    """Look into the box and the file.

    Raises:
        BatchError: where they do not go together, or one cannot be read.
    """
    box = list(read_lines(io.StringIO(settings.prompts, newline=None), 0, BOX))
    if not settings.prompt_file.strip():
        if not box:
            raise BatchError("prompts holds no prompt, only comments. Write one, or choose a file of prompts.")
        return Sources((BOX,), (), iter(box), None, [])
    file = open_prompt_file(typed_path(settings.prompt_file.strip()))
    names = (BOX, file.name)
    if not file.is_table:
        return Sources(names, (), _both(box, file), None, file.notes)
    if not file.prompt_column:
        if not box:
            raise BatchError(
                f"{file.name} has no column prompt, text or caption; it has: {', '.join(file.columns)}. Rename one, or "
                f"write a prompt with its columns in prompts: a {{{file.columns[0]}}} shoe."
            )
        return Sources(names, file.columns, iter(box), file.rows(1), file.notes)
    if box:
        raise BatchError(
            f"{file.name} has its own prompts, in the column {file.prompt_column}, and prompts has some too. Empty "
            "prompts, or rename the column to use its rows in them."
        )
    return Sources(names, file.columns, file.rows(1), None, file.notes)


def _both(box: list[Row], file: PromptFile) -> Iterator[Row]:
    yield from box
    yield from file.rows(1)
