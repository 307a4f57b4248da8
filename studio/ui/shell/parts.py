"""Parts that all tabs use: events, live HTML, tables, toasts, links to folders.

Parts of the page that change while something runs: its own script writes them, from one small request.
Of every component that an event of Gradio's is about, changed or not, Gradio makes a new one on the server and looks
for it in the whole page: at one look a second that costs a training a tenth of its pace.
Small pieces of HTML, from templates that escape every text; what went wrong with a press, as a toast.
Sending the page only what changed: each part of it carries a digest, and the page says which ones it has.
Opening a folder in the system's file manager: only where whoever asks sits at this very machine.
"""

import base64
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, TypeVar

import gradio as gr
from markupsafe import Markup
from starlette.datastructures import Headers

from studio.core.errors import StudioError, error_message, system_error_message
from studio.core.files import read_file, read_text
from studio.core.language import N_, _, language, speaking
from studio.core.paths import assets_folder
from studio.core.rules import shown
from studio.core.text import escape, template

logger = logging.getLogger(__name__)
T = TypeVar("T")

# No entry in the page's API, and no spinner over what it changes: for Gradio's event listeners, as `**QUIET`.
QUIET: Final[dict[str, Any]] = {"api_visibility": "private", "show_progress": "hidden"}

_template = template("ui/templates/shell.html")
_MOUNTED = 'document.dispatchEvent(new Event("studio:live-part"));'


def live_html(name: str, *, js_on_load: str = "", min_width: int | None = None) -> gr.HTML:
    """A place that the page's script keeps true, known by `name` to `Polling` and as an id to everything else."""
    place = _template("live_place", name=name)
    return gr.HTML(place, elem_id=name, padding=False, min_width=min_width, js_on_load=js_on_load + _MOUNTED)


def follower(elem_id: str) -> gr.HTML:
    """The script itself, in a hidden component: Gradio gives it what each refresh brought."""
    script = read_text(assets_folder() / "live.js")
    return gr.HTML(elem_id=elem_id, visible="hidden", padding=False, js_on_load=script)


CHOICE_WORDS = frozenset(
    (
        *(N_("auto"), N_("on"), N_("off"), N_("no"), N_("random"), N_("centre"), N_("every combination")),
        *(N_("constant"), N_("linear"), N_("cosine"), N_("cosine with restarts"), N_("exponential")),
        *(N_("attention"), N_("attention + feed-forward"), N_("attention + feed-forward + resnets")),
        *(N_("attention + feed-forward + convolutions"), N_("model's own"), N_("images"), N_("few steps")),
    )
)
"""Choices that are words. All others are names, the same in every language."""


def choice_label(choice: str) -> str:
    """What the page calls a choice."""
    return _(choice) if choice in CHOICE_WORDS else choice


def choice_options(choices: Iterable[str]) -> list[tuple[str, str]]:
    """(what the page calls it, itself) of each, as Gradio's lists take them."""
    return [(choice_label(choice), choice) for choice in choices]


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str) -> Markup:
    """A table with a caption for those who cannot see it."""
    return _template("table", head=head, rows=rows, caption=caption)


def paragraph(kind: str, text: object, *, role: str = "") -> Markup:
    """One paragraph: `quiet`, `note`, `good`, `bad` or `problem`; the role `alert` or `status` has it read aloud."""
    return _template("paragraph", kind=kind, text=text, role=role)


def problem(text: object) -> Markup:
    """What went wrong, read aloud at once; empty where nothing did."""
    return paragraph("problem", text, role="alert") if text else Markup()


def verdict(bold: str, text: str, *, kind: str = "") -> Markup:
    """A box with a word and a sentence; `pass` and `fail` have their colour."""
    return _template("verdict", kind=kind, bold=bold, text=text)


def data_url(content: bytes, media_type: str) -> str:
    """The bytes as a URL that needs no route of its own, so nothing on the disk is ever served."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def uploads_folder() -> Path:
    """Where Gradio puts what the page uploads."""
    return Path(os.environ.get("GRADIO_TEMP_DIR") or Path(tempfile.gettempdir(), "gradio"))


def download_link(path: Path, label: str, *, media_type: str) -> Markup:
    """A link that saves a file which we made; empty where it is no longer there."""
    if not path.is_file():
        return Markup()
    return save_link(path.name, data_url(read_file(path), media_type), label)


def save_link(name: str, url: str, label: str) -> Markup:
    """A link that saves what its URL holds under that name."""
    return _template("download", name=name, url=url, label=label)


def toast(text: str, *, duration: float = 10) -> None:
    """Say something in a corner of the page for some seconds; toasts render markup, so the text is escaped."""
    gr.Info(escape(text), duration=duration)


class Refusal(gr.Error):  # type: ignore[misc]  # gradio tells mypy nothing of its classes
    """An error that says in our own words what went wrong with a press; Gradio's own are another class."""

    def __init__(self, text: object) -> None:
        super().__init__(escape(text), duration=8, title=_("Not done"), print_exception=False)


@contextmanager
def toasts() -> Iterator[None]:
    """Turn an error of ours, or of the disk, into a toast; toasts render markup, so the text is escaped."""
    try:
        yield
    except StudioError as error:
        raise Refusal(error) from error
    except OSError as error:
        raise Refusal(system_error_message(error)) from error


# A part's new value or properties, as a gradio event listener returns them: never a component, whose `repr`
# does not show its properties.
Update = str | dict[str, Any]
Part = Update | Callable[[], str]
"""How a part is to be, or what makes its HTML: facts are read and put into words under the guard, each part alone."""
Group = Callable[[], Mapping[str, Part]]
"""What makes parts that belong together."""
PAGE_PROBLEMS = "page-problems"
Seen = dict[str, str]


@dataclass
class Caught:
    """What the guard caught, in a sentence; "" where it caught nothing."""

    text: str = ""


class Guard:
    """The page's one boundary: an exception ends the part of the page that raised it, or the press, and no more.

    What happened is said there in a sentence; the log has the traceback, once for as long as a part fails alike.
    """

    def __init__(self) -> None:
        self._failing: dict[str, str] = {}

    @contextmanager
    def over(self, name: str) -> Iterator[Caught]:
        """Whatever the block raises, but a refusal in our own words, is caught."""
        caught = Caught()
        try:
            yield caught
            self._failing.pop(name, None)
        except Refusal:
            raise
        except Exception as error:  # the one boundary of the page
            caught.text = error_message(error)
            if self._failing.get(name) != caught.text:
                logger.error("%s: %s", name, caught.text, exc_info=error)
            self._failing[name] = caught.text

    def attempt(self, name: str, make: Callable[[], T], otherwise: Callable[[str], T]) -> T:
        """What `make` makes; where it raises, what `otherwise` makes of the sentence that says why."""
        with self.over(name) as caught:
            return make()
        return otherwise(caught.text)

    def parts(self, groups: Mapping[str, Group]) -> dict[str, Update]:
        """Every part of every group, by its name; what cannot be shown is said, and the page keeps what it has of it.

        Args:
            groups: by what a person calls them, in English.
        """
        made: dict[str, Update] = {}
        problems: list[str] = []
        for title, render in groups.items():
            with self.over(title) as caught:
                for name, part in render().items():
                    made[name] = self._html(name, part) if callable(part) else part
            if caught.text:
                problems.append(_("{title} cannot be shown. {text}", title=_(title), text=caught.text))
        return made | {PAGE_PROBLEMS: Markup().join(map(problem, problems))}

    def _html(self, name: str, make: Callable[[], str]) -> str:
        return self.attempt(name, make, lambda text: problem(_("This part cannot be shown. {text}", text=text)))


class Page(gr.Blocks):  # type: ignore[misc]  # likewise
    """Gradio's page, with the guard over every press: none is answered with a bare “Error”, or in Gradio's words.

    Presses are answered in the language that was spoken when it was made.
    """

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - as gradio has them
        super().__init__(**options)
        self._language = language()

    async def process_api(self, block_fn: Any, inputs: list[Any], *more: Any, **options: Any) -> dict[str, Any]:  # noqa: ANN401 - as gradio has them
        with speaking(self._language), Guard().over("A press on the page") as caught:
            try:
                answer: dict[str, Any] = await super().process_api(block_fn, inputs, *more, **options)
                return answer
            except (gr.Error, ValueError) as error:
                if isinstance(error, Refusal):
                    raise
                function = self.fns[block_fn] if isinstance(block_fn, int) else block_fn
                for component, value in zip(function.inputs, inputs, strict=False):
                    # A list may hold more on this page than it began with: only Gradio's own error tells of it.
                    if hasattr(component, "choices") and not isinstance(error, gr.Error):
                        continue
                    if said := _value_problem(component, value):
                        errors = getattr(function.fn, "field_errors", None)
                        if errors and (at_field := errors.of_control(component, value, said)):
                            return await self._answer(function, errors.box, at_field, options.get("state"))
                        raise StudioError(said) from error
                raise
        raise Refusal(caught.text)

    async def _answer(self, function: Any, output: gr.HTML, value: str, state: Any) -> dict[str, Any]:  # noqa: ANN401 - as gradio has them
        """What a press is answered with that changes one of its outputs and nothing else."""
        values = [value if block is output else gr.skip() for block in function.outputs]
        data = await self.postprocess_data(function, values if len(values) > 1 else values[0], state)
        facts = {"is_generating": False, "iterator": None, "duration": 0.0, "average_duration": 0.0}
        return {"data": data, **facts, "render_config": None, "changed_state_ids": []}


def _value_problem(component: Any, value: object) -> str:  # noqa: ANN401 - any of gradio's
    """Why a component takes a value for none of its own, in our words; "" where it takes it."""
    try:
        component.preprocess(value)
    except (gr.Error, ValueError, TypeError, AttributeError):
        low, high = getattr(component, "minimum", None), getattr(component, "maximum", None)
        label = getattr(component, "label", None) or _("A value of the page")
        given = textwrap.shorten(shown(value), 80)
        if low is None or high is None:
            return _(
                "{label} cannot be used here, got {given}. Change it, or reload the page.", label=label, given=given
            )
        return _(
            "{label} must be a number between {low:g} and {high:g}, got {given}. Change it, or reload the page.",
            label=label,
            low=low,
            high=high,
            given=given,
        )
    return ""


def changed_parts(parts: Mapping[str, Update], seen: Seen | None) -> tuple[list[Update], Seen]:
    """Replace every part that the page already shows by `gr.skip()`; also return what it will have seen then."""
    now = digests_of(parts)
    before = seen or {}
    updates = [gr.skip() if before.get(name) == now[name] else update for name, update in parts.items()]
    return updates, now


def digests_of(parts: Mapping[str, Update]) -> Seen:
    """A digest of each part, by its name."""
    return {name: digest_of(update if isinstance(update, str) else repr(update)) for name, update in parts.items()}


def digest_of(words: str) -> str:
    """Sixteen hexadecimal digits."""
    return hashlib.blake2b(words.encode(errors="surrogatepass"), digest_size=8).hexdigest()


FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


def show_folder(folder: Path, request: gr.Request) -> None:
    """Open it where the asker can see that; else tell its path.

    Raises:
        FileNotFoundError: where the folder is gone.
    """
    client = request.client.host if request.client else None
    if not (is_same_machine(client, request.headers) and open_folder(folder)):
        toast(_("It cannot be opened from here. Its path is {folder}", folder=folder), duration=20)


def is_same_machine(client: str | None, headers: Headers | Mapping[str, str]) -> bool:
    """Whether a request comes from this machine itself, as far as can be told; not where something handed it on."""
    if client is None or any(name in headers for name in FORWARDED):
        return False
    try:
        return ip_address(client).is_loopback
    except ValueError:
        return client == "localhost"


def open_folder(folder: Path, *, platform: str = sys.platform, environment: Mapping[str, str] = os.environ) -> bool:
    """Open it in a window of the file manager; False where this machine has none, or no screen.

    Raises:
        FileNotFoundError: where the folder is gone.
    """
    if not folder.is_dir():
        raise FileNotFoundError(2, _("The folder is gone"), str(folder))
    command = opening_command(platform, environment)
    if command is None:
        return False
    process = subprocess.Popen(
        [*command, str(folder.resolve())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    threading.Thread(target=process.wait, daemon=True).start()  # so that no ended process is left over
    return True


def opening_command(platform: str, environment: Mapping[str, str]) -> list[str] | None:
    """The program that shows a folder; None where there is none."""
    if platform == "darwin":
        return ["open"]
    if platform == "win32":
        return ["explorer"]
    has_screen = bool(environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY"))
    program = shutil.which("xdg-open", path=environment.get("PATH"))
    return [program] if has_screen and program else None
