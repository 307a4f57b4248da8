"""Small pieces of HTML. Every text that a user or a file supplies goes through `escape()`."""

import base64
from collections.abc import Iterable, Sequence
from pathlib import Path

from studio.core.text import escape


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> str:
    """A table with a caption for those who cannot see it; `PASS` and `FAIL` cells get their colour."""
    head_cells = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="table-frame" tabindex="0" role="group" aria-label="{escape(caption)}"><table>'
        f"<caption>{escape(caption)}</caption><thead><tr>{head_cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: str) -> str:
    word = value.partition(":")[0].upper()
    kind = {"PASS": ' class="good"', "FAIL": ' class="bad"'}.get(word, "")
    return f"<td{kind}>{escape(value)}</td>"


def data_url(content: bytes, media_type: str) -> str:
    """The bytes as a URL that needs no route of its own, so nothing on the disk is ever served."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def download_link(path: Path, label: str, *, media_type: str) -> str:
    """A link that saves a file which we made; empty where it is no longer there."""
    if not path.is_file():
        return ""
    url = data_url(path.read_bytes(), media_type)
    return f'<a class="link-button" download="{escape(path.name)}" href="{url}">{escape(label)}</a>'
