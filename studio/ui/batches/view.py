"""What the Batch tab shows of a batch: state, images of late, what came out, notes, log, past ones. Facts to HTML."""

from collections.abc import Sequence
from datetime import datetime

from studio.batches.folder import BatchFolder
from studio.batches.follower import MAX_LATEST, BatchProgress
from studio.batches.session import BatchView, LatestPicture, PastBatch
from studio.core.text import counted, duration, escape
from studio.jobs.events import JobHistory
from studio.jobs.folder import RunStatus
from studio.jobs.launcher import end_of_log
from studio.ui.shell.images import small_picture_url
from studio.ui.training.view import LOG_LINES, STATE_WORDS, memory_html

LARGE_PIXELS = 1600
MAX_NOTES = 8


def state_html(view: BatchView) -> str:
    """The head of a batch: its state in a word, how far it is, how fast, when it is ready, and what it says."""
    if view.problem:
        return f'<p class="problem" role="alert">{escape(view.problem)}</p>'
    if view.batch is None or view.status is None:
        return (
            '<div class="verdict" role="status"><b>No batch was made yet.</b> <span>Press “Fill in an example” on the '
            "left, look at what it would make, and press “Start”: sixty images of shoes in a few minutes, on this "
            "machine.</span></div>"
        )
    status = view.status
    sign, word = STATE_WORDS[status.state]
    if view.in_line and not view.busy:
        sign, word = STATE_WORDS["waiting"][0], "In the queue."
    kind = {"finished": "pass", "failed": "fail"}.get(status.state, "") if not view.in_line else ""
    return (
        f'<div class="verdict run-state {kind}" role="status"><span aria-hidden="true">{sign}</span> <b>{word}</b> '
        f"<span>{escape(progress_words(view))}</span><br><span>{escape(status.message or view.batch.name)}</span></div>"
        + _bar(status, view.progress)
    )


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
    return f"{duration(1 / pictures_per_second)} an image"


def _bar(status: RunStatus, progress: BatchProgress) -> str:
    total = max(1, status.num_steps)
    done, failed = 100 * progress.num_done / total, 100 * progress.num_failed / total
    return (
        '<div class="run-bar" role="progressbar" aria-label="Pictures" aria-valuemin="0" '
        f'aria-valuemax="{status.num_steps}" aria-valuenow="{progress.num_done}">'
        f'<span style="width:{done:.1f}%"></span><span class="failed" style="width:{failed:.1f}%"></span></div>'
    )


def latest_html(pictures: Sequence[LatestPicture], *, more_to_come: bool) -> str:
    """The last images, newest first; each tells its item and caption, and opens large. Places are kept for more."""
    places = '<figure aria-hidden="true"><div class="zoom"></div><figcaption>–</figcaption></figure>'
    shown = "".join(map(_picture, pictures)) + places * ((MAX_LATEST - len(pictures)) * more_to_come)
    return f'<div class="latest">{shown}</div>'


def _picture(picture: LatestPicture) -> str:
    words = f"#{picture.item:,}: {picture.caption}"
    again = f" · try {picture.attempts}" if picture.attempts > 1 else ""
    reported = f"{words} (seed {picture.seed}, {duration(picture.seconds)})"
    url = small_picture_url(picture.path)
    shown = f'<img src="{url}" alt="{escape(words)}">' if url else '<span class="quiet">gone</span>'
    return (
        f'<figure title="{escape(reported)}"><button class="zoom" type="button" aria-label="Enlarge {escape(words)}">'
        f"{shown}</button><figcaption>#{picture.item:,}{escape(again)}</figcaption></figure>"
    )


def memory_words_html(view: BatchView) -> str:
    """The gauge of a batch, as that of a training."""
    if view.batch is None:
        return ""
    if view.history is None or not view.history.memory:
        return '<p class="quiet">Memory is shown here while images are made.</p>'
    return memory_html(view.history)


def sheet_html(view: BatchView) -> str:
    """The X/Y grid, large, where one was made; else the contact sheet of a batch that has ended."""
    if view.batch is None or view.busy or view.in_line:
        return ""
    for path, words in ((view.batch.grid, "X/Y grid"), (view.batch.contact_sheet, "Contact sheet")):
        url = small_picture_url(path, pixels=LARGE_PIXELS)
        if url:
            return (
                f'<figure class="batch-sheet"><figcaption>{words} <code class="path">{escape(path)}</code></figcaption>'
                f'<button class="zoom" type="button" aria-label="Enlarge the {words}"><img src="{url}" alt="{words}">'
                "</button></figure>"
            )
    return ""


def report_markdown(view: BatchView) -> str:
    """The report of a batch that has ended; gradio shows it as Markdown, without what could run."""
    if view.batch is None or view.busy or view.in_line or not view.batch.report.is_file():
        return ""
    _, _, below_the_name = view.batch.report.read_text(encoding="utf-8").partition("\n")
    return below_the_name.strip()


def files_html(batch: BatchFolder | None, history: JobHistory | None) -> str:
    """Where everything of a batch lies, and what was said of it besides its state."""
    if batch is None:
        return ""
    notes = history.notes[-MAX_NOTES:] if history else []
    return (
        f'<p class="quiet run-files">Folder: <code class="path">{escape(batch.root)}</code> · its <code>dataset</code> '
        "is an imagefolder: <code>metadata.jsonl</code> has each image’s caption, columns and settings.</p>"
        + "".join(f'<p class="note">{escape(note.message)}</p>' for note in notes)
    )


def log_html(batch: BatchFolder | None) -> str:
    """The end of the batch's log."""
    if batch is None or not batch.log.is_file():
        return '<p class="quiet">There is no log yet.</p>'
    return f'<pre class="log" tabindex="0">{escape(end_of_log(batch.log, num_lines=LOG_LINES))}</pre>'


def past_html(view: BatchView) -> str:
    """Past batches as a table; a name is a button that shows that batch."""
    if not view.past:
        return '<p class="quiet">Batches that were made are listed here, with their state and their report.</p>'
    chosen = view.batch.name if view.batch else ""
    rows = "".join(_past_row(past, chosen=past.name == chosen) for past in view.past)
    older = len(view.names) - len(view.past)
    note = f'<p class="quiet">Older ones that are not listed: {older:,}.</p>' if older else ""
    return (
        '<div class="table-frame" tabindex="0" role="group" aria-label="Batches"><table><caption>Batches</caption>'
        '<thead><tr><th scope="col">Name</th><th scope="col">Begun</th><th scope="col">State</th>'
        '<th scope="col">Images</th><th scope="col">What it says</th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>{note}"
    )


def _past_row(past: PastBatch, *, chosen: bool) -> str:
    sign, word = STATE_WORDS[past.status.state]
    current = ' aria-current="true"' if chosen else ""
    begun = f"{past.begun_at:%d %B %Y, %H:%M}" if past.begun_at else "–"
    return (
        f'<tr><td><button type="button" class="link-button past-batch" data-name="{escape(past.name)}"{current}>'
        f'{escape(past.name)}</button></td><td>{begun}</td><td><span aria-hidden="true">{sign}</span> '
        f"{word.rstrip('.').lower()}</td><td>{past.status.step:,} of {past.status.num_steps:,}</td>"
        f"<td>{escape(past.status.message)}</td></tr>"
    )
