"""What the smoke test shows: a verdict, three picture cards, tables. From facts to HTML, no gradio."""

from pathlib import Path

from studio.engine_process.client import EngineView
from studio.engine_process.messages import Picture
from studio.reports import JSON_NAME, MARKDOWN_NAME, memory_rows, picture_row, time_rows
from studio.results import InvalidPicture, SavedReport, SmokeReport
from studio.settings import SEED_REPORT_PROMPTS
from studio.ui.html import data_url, download_link, duration, table, text
from studio.ui.status_line import smoke_progress

CHECK_SIGNS = {True: "✓", False: "✗"}


def verdict(view: EngineView) -> str:
    """One sentence on top: what is going on, or PASS or FAIL and why."""
    kind, title, words = _verdict_words(view)
    problem = f'<p class="problem" role="alert">{text(view.problem)}</p>' if view.problem else ""
    return f'{problem}<div class="verdict {kind}" role="status"><b>{text(title)}</b> <span>{text(words)}</span></div>'


def _verdict_words(view: EngineView) -> tuple[str, str, str]:
    """(css class, bold word, sentence)."""
    if view.phase == "smoke test":
        return "busy", "Running.", smoke_progress(view).removeprefix("smoke test: ").capitalize() + "."
    if view.report is not None:
        word, _, words = view.report.report.verdict.partition(": ")
        passed = view.report.report.passed
        when = f"{view.report.report.started_at:%d %B %Y, %H:%M}"
        return ("pass" if passed else "fail"), word, f"{words} ({view.report.report.engine.model}, {when})"
    waiting = {
        "off": ("Not running.", "The engine is off. Press “Start the engine”."),
        "starting": ("Starting.", "The engine loads PyTorch in the background; this takes about ten seconds."),
        "waiting": ("Waiting.", f"{view.owner} has the device. This page goes on as soon as it is free."),
        "loading": ("Loading.", f"{view.model} is being loaded and its precision checked."),
        "no model": ("No model.", "Choose a model under “Model” and press “Load”."),
        "gone": ("Stopped.", "Press “Start the engine”."),
        "device check": ("Checking.", "The device is being compared with the CPU."),
    }
    if view.phase in waiting:
        title, words = waiting[view.phase]
        return "idle", title, words
    return "idle", "Ready.", "Press “Run the smoke test”: three pictures, each checked, in a few seconds."


def card(view: EngineView, index: int) -> str:
    """Picture `index`: finished, in the making with its preview, or still to come. Its frame never changes size."""
    picture, folder = _picture(view, index)
    prompt = picture.prompt if picture else _prompt(view, index)
    if isinstance(picture, InvalidPicture):
        frame, under = _empty_frame("✗", "not valid"), _failed_words(picture)
    elif picture and folder:
        frame, under = _picture_frame(folder / picture.file, index, prompt), _finished_words(picture)
    elif view.phase == "smoke test" and view.step and view.step.picture == index:
        frame, under = _running_frame(view), f"<p>step {view.step.step} of {view.step.num_steps}</p>"
    else:
        frame, under = _empty_frame(str(index + 1), "not made yet"), "<p>&nbsp;</p>"
    return f'<figure class="card">{frame}<figcaption><p class="prompt">{text(prompt)}</p>{under}</figcaption></figure>'


def _picture(view: EngineView, index: int) -> tuple[Picture | None, Path | None]:
    """The finished picture and its folder: of the running test, else of the last report."""
    if view.report is not None:
        pictures = view.report.report.pictures
        return (pictures[index], view.report.folder) if index < len(pictures) else (None, None)
    done = next((event for event in view.pictures if event.picture == index), None)
    return (done.record, done.folder) if done else (None, None)


def _prompt(view: EngineView, index: int) -> str:
    if view.report is not None:
        return view.report.report.settings.prompts[index]
    return view.smoke_settings.prompts[index] if view.smoke_settings else SEED_REPORT_PROMPTS[index]


def _picture_frame(path: Path, index: int, prompt: str) -> str:
    if not path.is_file():
        return _empty_frame("?", f"{path.name} is no longer in its folder")
    url = data_url(path.read_bytes(), "image/png")
    return (
        f'<button class="frame zoom" type="button" aria-label="Enlarge picture {index + 1}">'
        f'<img src="{url}" alt="{text(prompt)}"></button>'
    )


def _running_frame(view: EngineView) -> str:
    step = view.step
    assert step is not None
    share = 100 * step.step / step.num_steps
    preview = (
        f'<img class="preview" src="data:image/png;base64,{view.preview_png}" alt="Preview">'
        if view.preview_png
        else '<span class="sign">…</span>'
    )
    return (
        f'<div class="frame">{preview}<div class="bar" role="progressbar" aria-label="Steps" aria-valuemin="0" '
        f'aria-valuemax="{step.num_steps}" aria-valuenow="{step.step}"><span style="width:{share:.0f}%"></span>'
        "</div></div>"
    )


def _empty_frame(sign: str, words: str) -> str:
    return (
        f'<div class="frame empty"><span class="sign" aria-hidden="true">{text(sign)}</span>'
        f"<span>{text(words)}</span></div>"
    )


def _finished_words(picture: Picture) -> str:
    assert not isinstance(picture, InvalidPicture)
    checks = " ".join(f"{CHECK_SIGNS[check.passed]} {text(check.name)}" for check in picture.checks)
    first = " (first)" if picture.timings.first_call else ""
    seconds = duration(picture.timings.total_seconds)
    return f'<p class="good">{checks}</p><p>{seconds}{first} · seed {picture.seed}</p>'


def _failed_words(picture: InvalidPicture) -> str:
    checks = " ".join(f"{CHECK_SIGNS[check.passed]} {text(check.name)}" for check in picture.checks)
    return f'<p class="bad">{checks}</p><p>{text(picture.error)}</p>'


def details(saved: SavedReport | None) -> str:
    """All tables of the report; empty before the first one."""
    if saved is None:
        return '<p class="quiet">Times, checks, memory and versions appear here after the first smoke test.</p>'
    report = saved.report
    return "".join(
        (
            table(
                ("Prompt", "Seed", "Time", "Shape", "dtype", "Range", "Result"),
                [picture_row(picture) for picture in report.pictures],
                caption="Pictures",
            ),
            table(("Prompt", "Check", "Result", "What was seen"), _check_rows(report), caption="Checks"),
            '<div class="table-pair">',
            table(("What", "Time"), time_rows(report), caption="Time"),
            table(("When", "Used by the studio", "Available"), memory_rows(report), caption="Memory"),
            "</div>",
            table(("What", "Version"), list(report.versions.items()), caption="Versions"),
            "".join(f'<p class="note">{text(note)}</p>' for note in report.engine.notes),
        )
    )


def _check_rows(report: SmokeReport) -> list[tuple[str, str, str, str]]:
    return [
        (picture.prompt, check.name, "PASS" if check.passed else "FAIL", check.finding)
        for picture in report.pictures
        for check in picture.checks
    ]


def downloads(saved: SavedReport | None) -> str:
    """Links that save the report; empty before the first one."""
    if saved is None:
        return ""
    return (
        '<div class="downloads">'
        + download_link(saved.folder / MARKDOWN_NAME, "Report (Markdown)", media_type="text/markdown")
        + download_link(saved.folder / JSON_NAME, "Report (JSON)", media_type="application/json")
        + f'<span class="quiet">saved in {text(saved.folder)}</span></div>'
    )
