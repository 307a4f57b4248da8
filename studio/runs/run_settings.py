"""The settings that a run began with, from its folder. No torch: the page reads them too."""

import json

from studio.errors import RunError
from studio.runs.folder import RunFolder
from studio.settings import parse_settings
from studio.training_settings import TrainingSettings


def read_run_settings(run: RunFolder) -> TrainingSettings:
    """The settings of a run.

    Raises:
        RunError: where they cannot be read.
        SettingsError: where one breaks its rule.
    """
    try:
        values = json.loads(run.settings.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"{run.settings} cannot be read ({error}). Begin a new run.") from error
    return parse_settings(TrainingSettings, values)
