"""Where things lie: the only module that knows `user_data/`, the assets and platformdirs."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import platformdirs

from studio.core.language import ENGLISH

PACKAGE_FOLDER = Path(__file__).resolve().parents[1]
CHECKOUT_FOLDER = PACKAGE_FOLDER.parent
_RESERVED = re.compile(r"^(con|prn|aux|nul|com\d|lpt\d)(?= *(\.|$))", re.IGNORECASE)
USER_DATA_VARIABLE = "STUDIO_USER_DATA"


def is_checkout() -> bool:
    """True where the package runs from its source tree, False where it was installed from a wheel."""
    return (CHECKOUT_FOLDER / "pyproject.toml").is_file() and (CHECKOUT_FOLDER / "assets").is_dir()


def assets_folder() -> Path:
    """What ships with the studio: beside the package in a checkout, inside it in a wheel."""
    return CHECKOUT_FOLDER / "assets" if is_checkout() else PACKAGE_FOLDER / "assets"


def black_pictures_page(tag: str) -> Path:
    """The page of our docs that tells why float32, in a language: Markdown."""
    name = "black-pictures.md" if tag == ENGLISH else f"black-pictures.{tag}.md"
    return CHECKOUT_FOLDER / "docs" / name if is_checkout() else assets_folder() / name


def typed_path(typed: str | Path) -> Path:
    """A path as typed or pasted: in quotes, as `file://…`, with a terminal's backslashes, `~` as the home.

    `~nobody` of a user that does not exist is left as it is. What exists exactly as it was typed is meant so.
    """
    text = str(typed).strip()
    if _exists(Path(typed)):
        return Path(typed)
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1]
    elif "\\" in text and os.sep == "/" and not _exists(_at_home(Path(text))):
        text = re.sub(r"\\(.)", r"\1", text)
    if text.lower().startswith("file:"):
        parts = urlsplit(text.replace("?", "%3F").replace("#", "%23"))
        text = url2pathname(parts.path if parts.netloc in ("", "localhost") else f"//{parts.netloc}{parts.path}")
    return _at_home(Path(text))


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long, or a zero byte: whoever opens it says so
        return False


def unreserved(name: str) -> str:
    """A name with `_` behind what Windows takes for a device, whatever its ending: `con_`, `nul_.txt`."""
    return _RESERVED.sub(r"\1_", name)


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a path below a folder leads out of it through a link. What does is never read."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


@dataclass(frozen=True)
class UserData:
    """The folder of everything that users make. Naming a place here does not make it."""

    root: Path

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def rejected(self) -> Path:
        return self.root / "rejected"

    @property
    def loras(self) -> Path:
        return self.root / "loras"

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def batches(self) -> Path:
        return self.root / "batches"

    @property
    def captions(self) -> Path:
        """One folder for each job that writes captions."""
        return self.root / "captions"

    @property
    def wildcards(self) -> Path:
        return self.root / "wildcards"

    @property
    def prompt_files(self) -> Path:
        """Those that were dropped on the page."""
        return self.root / "prompt-files"

    @property
    def database(self) -> Path:
        return self.root / "studio.db"

    @property
    def trash(self) -> Path:
        """Where what was deleted goes on a system without a trash."""
        return self.root / "trash"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def run_thumbnails(self) -> Path:
        """Small copies of images that runs and batches made, which the page may serve."""
        return self.cache / "run-thumbnails"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def device_checks(self) -> Path:
        return self.root / "device-checks.json"

    @property
    def speeds(self) -> Path:
        """What each speed costs, as it was measured of each model."""
        return self.root / "speeds.json"

    @property
    def recent_models(self) -> Path:
        return self.root / "recent-models.json"

    @property
    def device_lock(self) -> Path:
        return self.root / "device.lock"


def locate_user_data(option: Path | None = None, *, environment: Mapping[str, str] = os.environ) -> UserData:
    """The option, else the environment's STUDIO_USER_DATA, else the checkout's, else the platform's folder."""
    if option is not None:
        return UserData(typed_path(option).resolve())
    if chosen := environment.get(USER_DATA_VARIABLE):
        return UserData(typed_path(chosen).resolve())
    if is_checkout():
        return UserData(CHECKOUT_FOLDER / "user_data")
    return UserData(Path(platformdirs.user_data_dir("LoRA Studio", appauthor=False)))
