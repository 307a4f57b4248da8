"""Paths of this machine: a “Browse…” in every box that takes one, and what the page's chooser lists.

A browser tells a page no paths, so the chooser lists the folders of the machine that the studio runs on. It shows names
alone, to those who may type paths: it is asked like any press, behind the same guards. Text files that are dropped on a
box are kept in `user_data/`, and the box gets their path.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import gradio as gr
import psutil
from natsort import natsorted

from studio.core.errors import SettingsError, StudioError, error_message, system_error_message
from studio.core.files import read_text
from studio.core.language import _
from studio.core.paths import UserData, assets_folder, typed_path, unreserved
from studio.core.records import Record
from studio.ui.shell.parts import uploads_folder

FOLDER: Final = "folder"
"""What a box takes; the others are the endings of files, such as `.csv`."""
KEPT_ENDINGS: Final = (".txt", ".csv", ".tsv", ".jsonl")
"""Files that are kept when they are dropped: small ones. A model is not copied through the browser."""
MAX_NAMES = 2000
_MOUNTS = ("/Volumes/", "/media/", "/mnt/", "/run/media/")


class Place(Record):
    """A folder that the chooser offers at once."""

    title: str
    path: str


class FolderListing(Record):
    """What the chooser shows of a folder, or in `problem` why it cannot.

    Attributes:
        path: the whole path.
        parent: of the folder above; "" of the topmost.
        more: that names were left out, in a sentence.
    """

    path: str = ""
    parent: str = ""
    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    places: tuple[Place, ...] = ()
    more: str = ""
    problem: str = ""


class KeptFile(Record):
    """Where a dropped file lies now, or why it was not kept."""

    path: str = ""
    problem: str = ""


def path_box(value: str = "", *, takes: Sequence[str], **options: Any) -> gr.Textbox:  # noqa: ANN401 - gradio's
    """A box for a path, with “Browse…” beside it.

    Args:
        takes: `FOLDER`, and the endings of the files that fit.
    """
    # Gradio's button for stopping is the one beside the text that Enter does not press; Enter is left to each form.
    box = gr.Textbox(value, max_lines=1, stop_btn=_("Browse…"), elem_classes=_classes(takes), **options)
    _wire(box.stop, box, takes)
    return box


def path_list(choices: Sequence[tuple[str, str]], *, takes: Sequence[str], **options: Any) -> gr.Dropdown:  # noqa: ANN401
    """A list of names in which a path may be typed, with “Browse…” above it."""
    browse = gr.Button(_("Browse…"))
    box = gr.Dropdown(list(choices), allow_custom_value=True, buttons=[browse], elem_classes=_classes(takes), **options)
    _wire(browse.click, box, takes)
    return box


def _classes(takes: Sequence[str]) -> list[str]:
    """From which the page's script knows what may be dropped."""
    return ["path-field", *(f"takes-{kind.removeprefix('.')}" for kind in takes)]


def _wire(event: Any, box: gr.Textbox | gr.Dropdown, takes: Sequence[str]) -> None:  # noqa: ANN401 - gradio's event
    js = f"(now) => window.choosePath?.({box.elem_id!r}, {list(takes)}, now) ?? now"
    event(fn=None, inputs=box, outputs=box, js=js, queue=False, show_progress="hidden")


def build(user_data: UserData) -> None:
    """Put the chooser's script on the page, and answer it."""

    def list_folder(wanted: list[str], takes: list[str]) -> dict[str, object]:
        return listing_of(wanted, takes, user_data).model_dump()

    def keep_file(upload: str) -> dict[str, object]:
        return kept_file(upload, user_data).model_dump()

    script = read_text(assets_folder() / "chooser.js")
    gr.HTML(elem_id="path-chooser", visible="hidden", padding=False, js_on_load=script)
    for function in (list_folder, keep_file):
        gr.api(function, queue=False, api_visibility="private")


def listing_of(wanted: Sequence[str], takes: Sequence[str], user_data: UserData) -> FolderListing:
    """What the chooser shows of the first of these paths that is there: of its folder, where it is a file.

    Args:
        wanted: as typed; what is no whole path is passed over, and "" is the home folder.
        takes: as in `path_box`.
    """
    places = tuple(_places(user_data))
    problem = ""
    for typed in wanted:
        path = typed_path(typed) if typed.strip() else Path.home()
        try:
            folder = path if path.is_dir() else path.parent
            if path.is_absolute() and folder.is_dir() and (folder == path or path.is_file()):
                return _listing(folder.resolve(), takes).model_copy(update={"places": places})
        except (OSError, ValueError) as error:
            problem = problem or _message(error)
    return FolderListing(
        places=places, problem=problem or _("There is no folder {path}.", path=wanted[0] if wanted else "–")
    )


def _listing(folder: Path, takes: Sequence[str]) -> FolderListing:
    folders, files = list[str](), list[str]()
    endings = tuple(kind for kind in takes if kind != FOLDER)
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or not _can_be_shown(entry.name):
                continue
            kind = _kind_of(entry)
            if kind == FOLDER:
                folders.append(entry.name)
            elif kind == "file" and entry.name.lower().endswith(endings or ("\0",)):
                files.append(entry.name)
    is_cut = max(len(folders), len(files)) > MAX_NAMES
    more = _("Only the first {most:,} are shown. Type the path of the others.", most=MAX_NAMES) if is_cut else ""
    return FolderListing(
        path=str(folder),
        parent="" if folder.parent == folder else str(folder.parent),
        folders=tuple(natsorted(folders)[:MAX_NAMES]),
        files=tuple(natsorted(files)[:MAX_NAMES]),
        more=more,
    )


def _kind_of(entry: os.DirEntry[str]) -> str:
    """`FOLDER`, "file", or "" of what is neither, and of a link that leads nowhere."""
    try:
        return FOLDER if entry.is_dir() else "file" if entry.is_file() else ""
    except OSError:
        return ""


def _can_be_shown(name: str) -> bool:
    """Whether it is text: bytes that are not UTF-8 cannot be typed or sent either."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _places(user_data: UserData) -> Iterator[Place]:
    named = {
        _("Home"): Path.home(),
        _("Datasets"): user_data.datasets,
        _("Training runs"): user_data.runs,
        _("Batches"): user_data.batches,
        _("Wildcards"): user_data.wildcards,
        _("Prompt files"): user_data.prompt_files,
    }
    yield from (Place(title=title, path=str(path)) for title, path in named.items() if path.is_dir())
    for disk in psutil.disk_partitions():
        if os.name == "nt" or disk.mountpoint.startswith(_MOUNTS):
            yield Place(title=Path(disk.mountpoint).name or disk.mountpoint, path=disk.mountpoint)


def kept_file(upload: str, user_data: UserData) -> KeptFile:
    """Move a text file that was dropped out of the uploads, which the studio empties, to where it stays."""
    try:
        return KeptFile(path=str(_keep(Path(upload), user_data.prompt_files)))
    except (StudioError, OSError) as error:
        return KeptFile(problem=_message(error))


def _keep(file: Path, folder: Path) -> Path:
    if file.suffix.lower() not in KEPT_ENDINGS:
        endings = ", ".join(KEPT_ENDINGS)
        raise SettingsError(_("Drop a file that ends in {endings}, got {name}.", endings=endings, name=file.name))
    if not file.resolve().is_relative_to(uploads_folder().resolve()) or not file.is_file():
        raise SettingsError(_("{name} did not arrive. Drop it again.", name=file.name))
    folder.mkdir(parents=True, exist_ok=True)
    name, number = unreserved(file.name), 1
    while (folder / name).exists():
        number += 1
        name = unreserved(f"{file.stem} {number}{file.suffix}")
    return Path(shutil.move(file, folder / name))


def _message(error: Exception) -> str:
    return system_error_message(error) if isinstance(error, OSError) else error_message(error)
