"""The smoke test's report: saved as JSON and Markdown, found again, and told in the seed report's tables."""

import logging
from datetime import datetime
from pathlib import Path
from statistics import mean

from pydantic import ValidationError

from studio.core.files import read_file, write_atomically
from studio.core.language import _
from studio.core.results import InvalidPicture, MemorySample, SavedReport, SmokeReport, ValidPicture
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
        _("# Smoke test: {verdict}", verdict=report.verdict),
        f"{report.started_at:%Y-%m-%d %H:%M} · {escape_markdown(facts.model)} · {escape_markdown(facts.device_name)} · "
        f"{facts.precision.precision}",
        _list("Notes", facts.notes),
        "## Settings\n\n" + markdown_table(("Setting", "Value"), settings_rows(report)),
        "## Images\n\n" + _pictures_table(report),
        "## Checks\n\n" + _checks_table(report),
        "## Time\n\n" + _time_table(report),
        "## Memory\n\n" + _memory_table(report),
        "## Versions\n\n" + markdown_table(("Package", "Version"), tuple(report.versions.items())),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def settings_rows(report: SmokeReport) -> tuple[tuple[str, str], ...]:
    """What the images were made with."""
    settings, facts = report.settings, report.engine
    return (
        (
            "Model",
            _(
                "{model} ({parameters:,.1f} million parameters)",
                model=facts.model,
                parameters=facts.parameters / 1000000.0,
            ),
        ),
        ("Device", f"{facts.device_name} ({facts.device})"),
        ("Precision", facts.precision.reason),
        *(((_("Device check"), facts.device_check.sentence),) if facts.device_check else ()),
        ("Size", f"{facts.width} × {facts.height}"),
        ("Steps", str(settings.num_inference_steps)),
        ("Guidance", f"{settings.guidance_scale:g}"),
        *(((_("Long prompts"), "on"),) if settings.long_prompt else ()),
        (_("Loaded in"), f"{facts.load_seconds:.2f} s"),
    )


def _pictures_table(report: SmokeReport) -> str:
    rows = [
        (p.prompt, *("–" for __ in range(5)), _("FAIL: {error}", error=p.error))
        if isinstance(p, InvalidPicture)
        else (p.prompt, *(value for __, value in picture_facts(p)), "PASS")
        for p in report.pictures
    ]
    return markdown_table(("Prompt", "Time", "Shape", "dtype", "Range", "Seed", "Result"), tuple(rows))


def picture_facts(picture: ValidPicture) -> tuple[tuple[str, str], ...]:
    """Time, shape, dtype, range and seed of one image, as the seed report lists them."""
    return (
        ("Time", f"{picture.timings.total_seconds:.2f} s" + (" (first)" if picture.timings.first_call else "")),
        ("Shape", " × ".join(map(str, picture.shape))),
        ("dtype", picture.dtype),
        ("Range", _("{low} to {high}", low=picture.low, high=picture.high)),
        ("Seed", str(picture.seed)),
    )


def _checks_table(report: SmokeReport) -> str:
    rows = [
        (picture.prompt, check.name, "pass" if check.passed else "FAIL", check.finding)
        for picture in report.pictures
        for check in picture.checks
    ]
    return markdown_table(("Prompt", "Check", "Result", "Finding"), tuple(rows))


def time_rows(report: SmokeReport) -> tuple[tuple[str, str], ...]:
    """Mean, least, greatest; the first image apart, because it warms up; then the parts of a steady one."""
    seconds = report.seconds
    if not seconds:
        return (("Images", _("none were valid")),)
    rows = [
        ("Mean", _("{mean:.2f} s per image", mean=mean(seconds))),
        ("Minimum", f"{min(seconds):.2f} s"),
        ("Maximum", f"{max(seconds):.2f} s"),
    ]
    first = [p.timings.total_seconds for p in report.valid_pictures if p.timings.first_call]
    steady = [p.timings for p in report.valid_pictures if not p.timings.first_call]
    if first:
        rows.append((_("First, with warm-up"), f"{first[0]:.2f} s"))
    if steady:
        rows += [
            (_("Steady, mean"), f"{mean(t.total_seconds for t in steady):.2f} s"),
            (_("of which text"), f"{mean(t.text_seconds for t in steady):.3f} s"),
            (_("of which each step"), f"{mean(s for t in steady for s in t.step_seconds):.3f} s"),
            (_("of which VAE"), f"{mean(t.vae_seconds for t in steady):.3f} s"),
        ]
    return tuple(rows)


def _time_table(report: SmokeReport) -> str:
    return markdown_table(("Phase", "Time"), time_rows(report))


MEMORY_HEAD = ("When", "Studio", "GPU", "Available")


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
        rows.append(("Peak", gigabytes(peak), gigabytes(peak_accelerator or None), gigabytes(least)))
    return tuple(rows)


def _memory_table(report: SmokeReport) -> str:
    return markdown_table(MEMORY_HEAD, memory_rows(report))


def _memory_words(sample: MemorySample) -> tuple[str, str, str]:
    return (
        gigabytes(sample.process_bytes),
        gigabytes(sample.accelerator_allocated_bytes),
        gigabytes(sample.system_available_bytes),
    )


def _list(title: str, lines: tuple[str, ...]) -> str:
    return f"## {title}\n\n" + "\n".join(f"- {escape_markdown(line)}" for line in lines) if lines else ""
