"""The smoke test's report: saved as JSON and Markdown, found again, and told in the seed report's tables."""

import logging
from datetime import datetime
from pathlib import Path
from statistics import mean

from pydantic import ValidationError

from studio.core.files import read_file, write_atomically
from studio.core.language import N_, _, moment, number, said
from studio.core.results import InvalidPicture, SavedReport, SmokeReport, ValidPicture
from studio.core.system import MemorySample
from studio.core.text import escape_markdown, gigabytes, markdown_table

logger = logging.getLogger(__name__)

JSON_NAME = "report.json"
MARKDOWN_NAME = "report.md"


def new_report_folder(outputs: Path, *, now: datetime) -> Path:
    """Make and return an empty folder for one smoke test: `outputs/<date>/smoke-<time>`."""
    folder = outputs / f"{now:%Y-%m-%d}" / f"smoke-{now:%H%M%S-%f}"
    folder.mkdir(parents=True)
    return folder


def save_report(folder: Path, report: SmokeReport) -> SavedReport:
    """Write both forms into the folder that holds the images."""
    write_atomically(folder / MARKDOWN_NAME, to_markdown(report).encode())
    write_atomically(folder / JSON_NAME, report.model_dump_json(indent=2).encode())
    return SavedReport(folder=folder, report=report)


def latest_report(outputs: Path) -> SavedReport | None:
    """The newest report that can be read; one that cannot is passed over, and logged."""
    for path in sorted(outputs.glob(f"*/smoke-*/{JSON_NAME}"), reverse=True):
        try:
            report = SmokeReport.model_validate_json(read_file(path))
        except (OSError, ValidationError) as error:
            logger.warning("The report %s cannot be read: %s", path, error)
            continue
        return SavedReport(folder=path.parent, report=report)
    return None


def to_markdown(report: SmokeReport) -> str:
    """The whole report as a page that can be read, mailed or committed."""
    facts = report.engine
    sections = [
        "# " + _("Smoke test: {verdict}", verdict=report.verdict),
        f"{moment(report.started_at)} · {escape_markdown(facts.model)} · {escape_markdown(facts.device_name)} · "
        f"{facts.precision.precision}",
        _section(_("Notes"), "\n".join(f"- {escape_markdown(note)}" for note in facts.notes)),
        _section(_("Settings"), markdown_table((_("Setting"), _("Value")), settings_rows(report))),
        _section(_("Images"), _pictures_table(report)),
        _section(_("Checks"), _checks_table(report)),
        _section(_("Time"), markdown_table((_("Phase"), _("Time")), time_rows(report))),
        _section(_("Memory"), markdown_table(tuple(map(_, MEMORY_HEAD)), memory_rows(report))),
        _section(_("Versions"), markdown_table((_("Package"), _("Version")), tuple(report.versions.items()))),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n{text}" if text else ""


def settings_rows(report: SmokeReport) -> tuple[tuple[str, str], ...]:
    """What the images were made with."""
    settings, facts = report.settings, report.engine
    millions = facts.parameters / 1e6
    return (
        (_("Model"), _("{model} ({millions:,.1f} million parameters)", model=facts.model, millions=millions)),
        (_("Device"), f"{facts.device_name} ({facts.device})"),
        (_("Precision"), said(facts.precision.reason)),
        *(((_("Device check"), facts.device_check.sentence),) if facts.device_check else ()),
        (_("Size"), f"{facts.width} × {facts.height}"),
        (_("Steps"), str(settings.num_inference_steps)),
        (_("Guidance"), number(settings.guidance_scale, "g")),
        *(((_("Long prompts"), _("on")),) if settings.long_prompt else ()),
        (_("Loaded in"), _seconds(facts.load_seconds)),
    )


def _seconds(seconds: float, form: str = ".2f") -> str:
    return f"{number(seconds, form)} s"


def _pictures_table(report: SmokeReport) -> str:
    rows = [
        (p.prompt, *("–" for __ in range(5)), _("FAIL: {error}", error=p.error))
        if isinstance(p, InvalidPicture)
        else (p.prompt, *(value for __, value in picture_facts(p)), _("PASS"))
        for p in report.pictures
    ]
    head = (_("Prompt"), _("Time"), _("Shape"), "dtype", _("Range"), _("Seed"), _("Result"))
    return markdown_table(head, tuple(rows))


def picture_facts(picture: ValidPicture) -> tuple[tuple[str, str], ...]:
    """Time, shape, dtype, range and seed of one image, as the seed report lists them."""
    time = _seconds(picture.timings.total_seconds)
    return (
        (_("Time"), _("{time} (first)", time=time) if picture.timings.first_call else time),
        (_("Shape"), " × ".join(map(str, picture.shape))),
        ("dtype", picture.dtype),
        (_("Range"), _("{low} to {high}", low=picture.low, high=picture.high)),
        (_("Seed"), str(picture.seed)),
    )


def _checks_table(report: SmokeReport) -> str:
    rows = [
        (picture.prompt, _(check.name), _("pass") if check.passed else _("FAIL"), check.finding)
        for picture in report.pictures
        for check in picture.checks
    ]
    return markdown_table((_("Prompt"), _("Check"), _("Result"), _("Finding")), tuple(rows))


def time_rows(report: SmokeReport) -> tuple[tuple[str, str], ...]:
    """Mean, least, greatest; the first image apart, because it warms up; then the parts of a steady one."""
    seconds = report.seconds
    if not seconds:
        return ((_("Images"), _("none were valid")),)
    rows = [
        (_("Mean"), _("{time} per image", time=_seconds(mean(seconds)))),
        (_("Minimum"), _seconds(min(seconds))),
        (_("Maximum"), _seconds(max(seconds))),
    ]
    first = [p.timings.total_seconds for p in report.valid_pictures if p.timings.first_call]
    steady = [p.timings for p in report.valid_pictures if not p.timings.first_call]
    if first:
        rows.append((_("First, with warm-up"), _seconds(first[0])))
    if steady:
        rows += [
            (_("Steady, mean"), _seconds(mean(t.total_seconds for t in steady))),
            (_("of which text"), _seconds(mean(t.text_seconds for t in steady), ".3f")),
            (_("of which each step"), _seconds(mean(s for t in steady for s in t.step_seconds), ".3f")),
            (_("of which VAE"), _seconds(mean(t.vae_seconds for t in steady), ".3f")),
        ]
    return tuple(rows)


MEMORY_HEAD = (N_("When"), N_("Studio"), N_("GPU"), N_("Available"))


def memory_rows(report: SmokeReport) -> tuple[tuple[str, ...], ...]:
    """Around loading, around the images, and the peak: process, accelerator, and what the system had left."""
    load = report.engine.load_memory
    rows = [
        (_("Before loading"), *_memory_words(load.before)),
        (_("After loading"), *_memory_words(load.after)),
    ]
    uses = [picture.memory for picture in report.valid_pictures]
    if uses:
        rows.append((_("Before generating"), *_memory_words(uses[0].before)))
        rows.append((_("After generating"), *_memory_words(uses[-1].after)))
        peak = max(use.peak_process_bytes for use in uses)
        peak_accelerator = max((use.peak_accelerator_bytes or 0 for use in uses), default=0)
        least = min(use.least_available_bytes for use in uses)
        rows.append((_("Peak"), gigabytes(peak), gigabytes(peak_accelerator or None), gigabytes(least)))
    return tuple(rows)


def _memory_words(sample: MemorySample) -> tuple[str, str, str]:
    return (
        gigabytes(sample.process_bytes),
        gigabytes(sample.accelerator_allocated_bytes),
        gigabytes(sample.system_available_bytes),
    )
