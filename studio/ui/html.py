"""Small pieces of HTML. Every text that a user or a file supplies goes through `text()`."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path


def text(value: object) -> str:
    """A value as text that no browser takes for markup."""
    return html.escape(str(value), quote=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> str:
    """A table with a caption for those who cannot see it; `PASS` and `FAIL` cells get their colour."""
    head_cells = "".join(f'<th scope="col">{text(cell)}</th>' for cell in head)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return (
        f'<div class="table-frame" tabindex="0" role="group" aria-label="{text(caption)}"><table>'
        f"<caption>{text(caption)}</caption><thead><tr>{head_cells}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: str) -> str:
    word = value.partition(":")[0].upper()
    kind = {"PASS": ' class="good"', "FAIL": ' class="bad"'}.get(word, "")
    return f"<td{kind}>{text(value)}</td>"


def data_url(content: bytes, media_type: str) -> str:
    """The bytes as a URL that needs no route of its own, so nothing on the disk is ever served."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def download_link(path: Path, label: str, *, media_type: str) -> str:
    """A link that saves a file which we made; empty where it is no longer there."""
    if not path.is_file():
        return ""
    url = data_url(path.read_bytes(), media_type)
    return f'<a class="link-button" download="{text(path.name)}" href="{url}">{text(label)}</a>'
