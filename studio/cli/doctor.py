"""`python -m studio doctor`: what this machine has, what would fail on it, and what to do about it."""

import re
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import typer

from studio.cli.options import CpuOption, JsonOption, ModelOption, UserDataOption, prepare_engine, read_options
from studio.core.language import N_, _, ngettext
from studio.core.paths import UserData, locate_user_data
from studio.core.records import Record
from studio.core.settings import SHIPPED_MODEL, ModelSettings
from studio.core.system import operating_system

State = Literal["ok", "note", "problem"]

SIGNS: dict[State, str] = {"ok": "✓", "note": "!", "problem": "✗"}
OLDEST_PYTHON = (3, 11)
# As in pyproject.toml; a test compares them.
FLOORS = {
    "torch": "2.13",
    "diffusers": "0.40",
    "transformers": "5.0",
    "peft": "0.18",
    "accelerate": "1.10",
    "safetensors": "0.8",
    "gradio": "6.31",
    "numpy": "2.0",
    "pillow": "11.3",
    "huggingface-hub": "1.0",
    "psutil": "7.0",
    "filelock": "3.20",
}


class Finding(Record):
    """One thing that was looked at: what was seen there and, unless it is well, what to do. The name is English."""

    name: str
    state: State
    seen: str
    advice: str = ""


def ok(name: str, seen: str) -> Finding:
    """It is well."""
    return Finding(name=name, state="ok", seen=seen)


def note(name: str, seen: str, advice: str) -> Finding:
    """It works, but not in every way."""
    return Finding(name=name, state="note", seen=seen, advice=advice)


def problem(name: str, seen: str, advice: str) -> Finding:
    """Something fails."""
    return Finding(name=name, state="problem", seen=seen, advice=advice)


class Diagnosis(Record):
    """All findings, in the order in which they are shown."""

    findings: tuple[Finding, ...]

    @property
    def healthy(self) -> bool:
        """True where nothing would fail; notes do not count."""
        return all(finding.state != "problem" for finding in self.findings)

    @property
    def sentence(self) -> str:
        """The result in words."""
        problems = sum(finding.state == "problem" for finding in self.findings)
        notes = sum(finding.state == "note" for finding in self.findings)
        if problems:
            return ngettext(
                "{n} problem: see the items marked {sign}.",
                "{n} problems: see the items marked {sign}.",
                problems,
                n=problems,
                sign=SIGNS["problem"],
            )
        if notes:
            return ngettext(
                "Nothing fails; {n} note is marked {sign}.",
                "Nothing fails; {n} notes are marked {sign}.",
                notes,
                n=notes,
                sign=SIGNS["note"],
            )
        return _("Nothing fails.")


def doctor(
    context: typer.Context,
    model: ModelOption = SHIPPED_MODEL,
    cpu: CpuOption = False,
    json: JsonOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Look for what would fail here, and say what to do."""
    prepare_engine()
    settings = read_options(context, ModelSettings)
    diagnosis = examine(settings, user_data=locate_user_data(user_data), cpu_only=cpu)
    typer.echo(diagnosis.model_dump_json(indent=2) if json else to_text(diagnosis))
    raise typer.Exit(0 if diagnosis.healthy else 1)


def examine(model: ModelSettings, *, user_data: UserData, cpu_only: bool) -> Diagnosis:
    """Look at everything; where a package is missing, at Python and the packages only: the rest needs them."""
    packages = {package: installed_version(package) for package in FLOORS}
    findings = [
        ok(N_("System"), operating_system()),
        judge_python(sys.version_info[:3]),
        *(judge_package(package, packages[package], floor=floor) for package, floor in FLOORS.items()),
    ]
    if all(packages.values()):
        from studio.cli.doctor_checks import check_all

        findings += check_all(model, user_data=user_data, cpu_only=cpu_only)
    return Diagnosis(findings=tuple(findings))


def to_text(diagnosis: Diagnosis) -> str:
    """Aligned lines, each with its sign and with the advice below it, then a sentence."""
    width = max(len(_(finding.name)) for finding in diagnosis.findings)
    lines = []
    for finding in diagnosis.findings:
        lines.append(f"{SIGNS[finding.state]} {_(finding.name):<{width}}  {finding.seen}")
        if finding.advice:
            lines.append(f"  {'':<{width}}  {finding.advice}")
    return "\n".join([*lines, "", diagnosis.sentence])


def judge_python(found: tuple[int, int, int]) -> Finding:
    """Python itself: 3.11 or newer."""
    seen = ".".join(map(str, found))
    if found[:2] >= OLDEST_PYTHON:
        return ok("Python", seen)
    advice = _(
        "The studio needs Python {oldest} or newer: install one and run launch.py.",
        oldest=".".join(map(str, OLDEST_PYTHON)),
    )
    return problem("Python", seen, advice)


def installed_version(package: str) -> str | None:
    """A package's version, without importing it; None where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def judge_package(package: str, installed: str | None, *, floor: str) -> Finding:
    """A package must be there, and not be older than its floor."""
    if installed is not None and release(installed) >= release(floor):
        return ok(package, installed)
    advice = _(
        'Run launch.py, or install it into this environment: python -m pip install "{package}>={floor}".',
        package=package,
        floor=floor,
    )
    if installed is None:
        return problem(package, _("not installed; {floor} or newer is needed", floor=floor), advice)
    return problem(package, _("{found}; {floor} or newer is needed", found=installed, floor=floor), advice)


def release(text: str) -> tuple[int, ...]:
    """The numbers of a version, to compare: `2.13.0+cpu` -> (2, 13, 0)."""
    numbers = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in numbers[0].split(".")) if numbers else ()
