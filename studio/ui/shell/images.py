"""Images in HTML: frames, cards, small copies.

Images that we made ourselves, small enough to be sent with the page: nothing on the disk is served for them.

Small copies of a run's images in a folder that the page may serve: what is sent is their addresses alone.
Images as HTML: finished, in the making, not valid, still to come. Their frames never change size.
"""

import hashlib
import io
import shutil
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr
from gradio.components import Component
from markupsafe import Markup
from PIL import Image

from studio.core.errors import ModelError
from studio.core.files import FileStamp, file_stamp, open_file, read_file
from studio.core.language import N_, _, moment, number
from studio.core.results import Check, ImageRecord
from studio.core.settings import GenerationSettings, bounds
from studio.core.text import duration, template
from studio.datasets.inspection import save_thumbnail, thumbnail_path
from studio.engine.process.client import EngineClient
from studio.engine.process.view import EngineView, size_note
from studio.images.a1111 import scheduler_name
from studio.ui.forms import SIZE, SettingsForm
from studio.ui.shell.parts import QUIET, data_url, download_link, paragraph, uploads_folder

THUMBNAIL_PIXELS = 192
_template = template("ui/templates/shell.html")


def small_picture_url(path: Path, *, pixels: int = THUMBNAIL_PIXELS) -> str:
    """An image with its longer side made that small, as a URL; "" where it is gone, or too large to be opened."""
    try:
        return _small(path, file_stamp(path), pixels)
    except (OSError, Image.DecompressionBombError):
        return ""


@lru_cache(maxsize=128)
def _small(path: Path, _stamp: FileStamp, pixels: int) -> str:
    with open_file(path) as file, Image.open(file, formats=["PNG", "JPEG", "WEBP"]) as image:
        image.draft("RGB", (pixels, pixels))
        small = image.convert("RGB")
    small.thumbnail((pixels, pixels))
    content = io.BytesIO()
    small.save(content, format="JPEG", quality=88)
    return data_url(content.getvalue(), "image/jpeg")


TRAINING_THUMBNAIL_PIXELS = 256


def run_thumbnail_url(picture: Path, folder: Path, *, pixels: int = TRAINING_THUMBNAIL_PIXELS) -> str:
    """Where the page finds a small copy of an image that we made; it is made when it is first asked for.

    Raises:
        OSError: where the image cannot be read, or there is no room for the copy.
    """
    # A resumed run makes an image again under its old name.
    known_by = f"{picture} {file_stamp(picture)} {pixels}"
    name = hashlib.blake2b(known_by.encode(errors="surrogateescape"), digest_size=16).hexdigest()
    small = folder / name[:2] / f"{name}.jpg"
    if not small.is_file():
        with open_file(picture) as file, Image.open(file, formats=["PNG", "JPEG", "WEBP"]) as image:
            copy = image.convert("RGB")
        copy.thumbnail((pixels, pixels))
        save_thumbnail(copy, small)
    return _address(small)


def training_thumbnail_url(sha256: str, background: str, folder: Path) -> str:
    """Where the page finds the small copy of a training image that its check left; "" where it is gone.

    A stranger's image is never decoded here.
    """
    small = thumbnail_path(folder, sha256, background)
    return _address(small) if small.is_file() else ""


def _address(path: Path) -> str:
    return f"gradio_api/file={quote(str(path))}"


def new_served_folder() -> Path:
    """A folder of its own in the page's cache: from nowhere else may Gradio serve what we made."""
    cache = uploads_folder()
    cache.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=cache))


def served_copy(file: Path, name: str = "") -> Path:
    """The file where the page can save it from, under its own name or another; it is linked where that can be."""
    copy = new_served_folder() / (name or file.name)
    try:
        copy.hardlink_to(file)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(file, copy)
    return copy


def served_url(file: Path, name: str) -> str:
    """The address of such a copy.

    Raises:
        OSError: where there is no room for it.
    """
    return _address(served_copy(file, name))


def picture_frame(path: Path, *, name: str, alt: str) -> Markup:
    """A finished image that opens large."""
    if not path.is_file():
        return empty_frame("?", _("{name} is no longer in its folder", name=path.name))
    return _template("picture_frame", name=name, url=data_url(read_file(path), "image/png"), alt=alt)


def running_frame(view: EngineView) -> Markup:
    """The image in the making: its last preview, and a bar."""
    if view.step is None:
        return empty_frame("…", _("about to start"))
    return _template("running_frame", step=view.step, preview_png=view.preview_png)


def empty_frame(sign: str, words: str) -> Markup:
    """A place for an image; without a sign it shows the outline of a picture."""
    return _template("empty_frame", sign=sign, words=words)


def card(frame: Markup, words: str | Markup) -> Markup:
    """A frame with what is said of its image."""
    return _template("card", frame=frame, words=words)


CHECK_NAMES = {"latents": N_("latents"), "decoded": N_("decoded"), "image": N_("image")}


def check_marks(checks: tuple[Check, ...]) -> Markup:
    """`✓ latents ✓ decoded ✓ image`, each with what was seen."""
    return _template("check_marks", checks=[(check, _(CHECK_NAMES.get(check.name, check.name))) for check in checks])


def record_line(record: ImageRecord, path: Path) -> Markup:
    """Under an image: its checks, its time, its seed, and a link that saves it."""
    checks = check_marks(record.checks)
    return _template(
        "record_line", record=record, checks=checks, save=download_link(path, _("Save"), media_type="image/png")
    )


def record_rows(record: ImageRecord) -> list[tuple[str, str]]:
    """All that an image was made with, as rows of a table."""
    settings = record.settings
    loras = ", ".join(f"{lora.name} {number(lora.strength, 'g')}" for lora in record.loras) or _("none")
    guidance = number(settings.guidance_scale, "g")
    if (settings.guidance_start, settings.guidance_end) != (0, 1):
        start, end = settings.guidance_start, settings.guidance_end
        guidance = ", ".join((guidance, _("from {start:.0%} to {end:.0%} of the steps", start=start, end=end)))
    took = duration(record.timings.total_seconds)
    return [
        (_("Negative prompt"), settings.negative_prompt or _("none")),
        (_("Seed"), str(settings.seed)),
        (_("Size"), f"{record.width} × {record.height}"),
        (_("Steps"), str(settings.num_inference_steps)),
        (_("Guidance"), guidance),
        (_("Scheduler"), scheduler_name(record)),
        (_("LoRAs"), loras),
        (_("Model"), record.model + (f" @ {record.model_revision[:8]}" if record.model_revision else "")),
        (
            _("Time"),
            _("{time} on {device}, {precision}", time=took, device=record.device, precision=record.precision),
        ),
        (_("Made"), moment(record.made_at)),
    ]


def wire_size_note(
    form: SettingsForm,
    engine: EngineClient,
    controls: Mapping[str, Component],
) -> None:
    """Keep what a large size takes true below its boxes: `size`, or `width` and `height`, with the steps.

    A training has a `resolution`.

    Args:
        controls: of a form that names no `model`, the loaded one is meant.
    """
    assert form.size_note is not None
    asked = ("size", "width", "height", "num_inference_steps", "resolution", "model")
    read = {name: controls[name] for name in asked if name in controls}

    def show(**values: Any) -> Markup:  # noqa: ANN401 - the form's values
        typed = SIZE.fullmatch(str(values.get("size", "")).strip())
        side = values.get("resolution")
        sides = (typed[1], typed[2]) if typed else (values.get("width", side), values.get("height", side))
        width, height = (int(given or 0) for given in sides)
        __, largest = bounds(GenerationSettings, "width")
        if largest is None or min(width, height) <= 0 or max(width, height) > largest:
            return Markup()
        view = engine.view
        loaded = view.facts.model_folder if view.facts else view.model
        name = str(values.get("model", loaded) or "").strip()
        num_steps = int(values.get("num_inference_steps") or 0)
        try:
            return _note(size_note(view, name, width=width, height=height, num_steps=num_steps))
        except ModelError:  # whoever presses a button is told of it
            return Markup()

    follows = {"trigger_mode": "always_last", "queue": False, **QUIET}
    gr.on([c.change for c in read.values()], show, inputs_kwargs=read, outputs=form.size_note, **follows)


def _note(text: str) -> Markup:
    return paragraph("note", text, role="status") if text else Markup()
