"""constraints.txt: nothing that launch.py installs on Linux, macOS or Windows is left open."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, requires

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from studio.core.paths import CHECKOUT_FOLDER

LINES = (CHECKOUT_FOLDER / "constraints.txt").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LINES if not line.startswith("#")]
PYPROJECT = tomllib.loads((CHECKOUT_FOLDER / "pyproject.toml").read_text(encoding="utf-8"))
SYSTEMS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix", "platform_machine": "x86_64"},
    "mac": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix", "platform_machine": "arm64"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt", "platform_machine": "AMD64"},
}


def environment_of(system: str, python: str) -> dict[str, str]:
    """What markers are evaluated with there."""
    here = {name: str(value) for name, value in default_environment().items()}
    return {**here, **SYSTEMS[system], "python_version": python, "python_full_version": f"{python}.9"}


def is_needed(requirement: Requirement, environment: Mapping[str, str], extras: frozenset[str]) -> bool:
    """Whether a requirement holds there for who asked for these extras."""
    asked = extras or frozenset({""})
    return requirement.marker is None or any(requirement.marker.evaluate({**environment, "extra": e}) for e in asked)


@cache
def needs_of(name: str) -> list[Requirement]:
    """What the installed package says it needs; nothing for one that is not installed on this system."""
    try:
        return [Requirement(need) for need in requires(name) or ()]
    except PackageNotFoundError:
        return []


def project_needs() -> list[Requirement]:
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"].values()
    return [Requirement(need) for group in (project["dependencies"], *extras) for need in group]


def unpinned(needs: list[Requirement], environment: Mapping[str, str], all_pins: list[Requirement]) -> set[str]:
    """What is needed there, directly or not, and has no pin that its range allows."""
    pins = {canonicalize_name(pin.name): pin for pin in all_pins if is_needed(pin, environment, frozenset())}
    left_to_torch = PYPROJECT["tool"]["uv"]["exclude-dependencies"]
    found, seen, waiting = set(), set(), list(needs)
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        if str(need) in seen or name in left_to_torch:
            continue
        seen.add(str(need))
        version = str(pins[name].specifier).removeprefix("==") if name in pins else None
        if version is None or not need.specifier.contains(version, prereleases=True):
            found.add(str(need))
        waiting += [more for more in needs_of(name) if is_needed(more, environment, frozenset(need.extras))]
    return found


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", SYSTEMS)
def test_whatever_is_installed_there_has_a_pin_that_fits(system: str, python: str) -> None:
    assert unpinned(project_needs(), environment_of(system, python), PINS) == set()


def test_what_one_system_alone_needs_is_missed_there() -> None:
    needs = [Requirement("tqdm"), Requirement("torch>=99")]
    pins = [pin for pin in PINS if pin.name != "colorama"]
    (torch, colorama) = sorted(unpinned(needs, environment_of("windows", "3.11"), pins), reverse=True)
    assert (torch, colorama.partition(";")[0]) == ("torch>=99", "colorama")
    assert unpinned(needs, environment_of("mac", "3.11"), pins) == {"torch>=99"}


def test_pins_are_exact_and_fit_every_build_and_source_of_a_package() -> None:
    for pin in PINS:
        (specifier,) = pin.specifier
        assert specifier.operator == "=="
        assert "+" not in specifier.version, "torch 2.13.0+cpu fits torch==2.13.0, and not the other way round"
        assert "*" not in specifier.version
        assert not pin.extras, "pip takes none in constraints"
    assert "torch" in {pin.name for pin in PINS}
    assert not any("://" in line or line.startswith("-") for line in LINES), "no place is named"


def test_the_head_says_how_the_pins_are_made() -> None:
    command = "uv pip compile --universal --python-version 3.11 --extra test --no-annotate -o constraints.txt"
    assert LINES[1] == f"#    {command} pyproject.toml"
