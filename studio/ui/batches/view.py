"""What the Batch tab shows of a batch: state, images of late, what came out, notes, log, past ones. Facts to HTML."""

from collections.abc import Sequence
from datetime import datetime

from markupsafe import Markup

from studio.batches.folder import BatchFolder
from studio.batches.follower import MAX_LATEST, BatchProgress
from studio.batches.session import BatchView, LatestPicture
from studio.core.html import template
from studio.core.text import counted, duration
from studio.jobs.events import JobHistory
from studio.jobs.folder import RunStatus
from studio.ui.shell.images import small_picture_url
from studio.ui.shell.parts import paragraph, problem
from studio.ui.training.view import STATE_KINDS, STATE_WORDS, memory_html, nothing_yet, run_bar, state_box

_template = template("ui/templates/batches.html")

LARGE_PIXELS = 1600
MAX_NOTES = 8
NOTHING_YET = (
    "Press “Fill in an example” on the left, look at what it would make, and press “Start”: sixty images of shoes in a "
    "few minutes, on this machine."
)


def state_html(view: BatchView) -> Markup:
    """The head of a batch: its state in a word, how far it is, how fast, when it is ready, and what it says."""
    if view.problem:
        return problem(view.problem)
    if view.batch is None or view.status is None:
        return nothing_yet("No batches yet.", NOTHING_YET)
    status = view.status
    sign, word = STATE_WORDS[status.state]
    if view.in_line and not view.busy:
        sign, word = STATE_WORDS["waiting"][0], "In the queue."
    kind = STATE_KINDS.get(status.state, "") if not view.in_line else ""
    message = status.message or view.batch.name
    return state_box(kind, sign, word, progress_words(view), message, _bar(status, view.progress))


def progress_words(view: BatchView) -> str:
    """`42 of 60 images · 1 failed · 3 rejected and made again · 3.1 a second · 8 s left · ready at 07:12`."""
    status, progress = view.status, view.progress
    if status is None or not status.num_steps:
        return ""
    words = [f"{progress.num_done:,} of {counted(status.num_steps, 'image')}"]
    if progress.num_failed:
        words.append(f"{progress.num_failed:,} failed")
    if progress.num_rejected:
        words.append(f"{progress.num_rejected:,} rejected")
    if view.busy and progress.pictures_per_second:
        words.append(_pace(progress.pictures_per_second))
    if view.busy and status.remaining_seconds is not None:
        words.append(f"{duration(status.remaining_seconds)} left")
    if view.ready_at is not None:
        words.append(f"ready at {clock_words(view.ready_at)}")
    return " · ".join(words)


def clock_words(moment: datetime) -> str:
    """`07:12`; with the day where it is not today."""
    return f"{moment:%H:%M}" if moment.date() == datetime.now().date() else f"{moment:%A %H:%M}"


def _pace(pictures_per_second: float) -> str:
    if pictures_per_second >= 1:
        return f"{pictures_per_second:.1f} a second"
    return f"{duration(1 / pictures_per_second)} per image"


def _bar(status: RunStatus, progress: BatchProgress) -> Markup:
    total = max(1, status.num_steps)
    done, failed = 100 * progress.num_done / total, 100 * progress.num_failed / total
    parts = [("", f"{done:.1f}"), ("failed", f"{failed:.1f}")]
    return run_bar("Pictures", progress.num_done, status.num_steps, parts)


def latest_html(pictures: Sequence[LatestPicture], *, more_to_come: bool) -> Markup:
    """The last images, newest first; each tells its item and caption, and opens large. Places are kept for more."""
    shown = [
        (picture, small_picture_url(picture.path), f"#{picture.item:,}: {picture.caption}") for picture in pictures
    ]
    return _template("latest", pictures=shown, places=(MAX_LATEST - len(pictures)) * more_to_come)


def memory_words_html(view: BatchView) -> Markup:
    """The gauge of a batch, as that of a training."""
    if view.batch is None:
        return Markup()
    if view.history is None or not view.history.memory:
        return paragraph("quiet", "Memory use appears here while images are made.")
    return memory_html(view.history)


def sheet_html(view: BatchView) -> Markup:
    """The X/Y grid, large, where one was made; else the contact sheet of a batch that has ended."""
    if view.batch is None or view.busy or view.in_line:
        return Markup()
    for path, words in ((view.batch.grid, "X/Y grid"), (view.batch.contact_sheet, "Contact sheet")):
        url = small_picture_url(path, pixels=LARGE_PIXELS)
        if url:
            return _template("sheet", words=words, path=path, url=url)
    return Markup()


def report_markdown(view: BatchView) -> str:
    """The report of a batch that has ended; gradio shows it as Markdown, without what could run."""
    if view.batch is None or view.busy or view.in_line or not view.batch.report.is_file():
        return ""
    _, _, below_the_name = view.batch.report.read_text(encoding="utf-8").partition("\n")
    return below_the_name.strip()


def files_html(batch: BatchFolder | None, history: JobHistory | None) -> Markup:
    """Where everything of a batch lies, and what was said of it besides its state."""
    if batch is None:
        return Markup()
    return _template("files", folder=batch.root, notes=history.notes[-MAX_NOTES:] if history else ())


def past_html(view: BatchView) -> Markup:
    """Past batches as a table; a name is a button that shows that batch."""
    if not view.past:
        words = "Your batches appear here, with their state and report."
        return paragraph("quiet", words)
    rows = []
    for past in view.past:
        sign, word = STATE_WORDS[past.status.state]
        rows.append((past, sign, word.rstrip(".").lower()))
    chosen = view.batch.name if view.batch else ""
    return _template("past", batches=rows, chosen=chosen, num_older=len(view.names) - len(view.past))
