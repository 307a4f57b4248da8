"""The command line, `python -m studio COMMAND`: one file each beside this one. Importing it loads nothing heavy."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from studio import __version__
from studio.cli.batch import batch
from studio.cli.compare import compare
from studio.cli.dataset import dataset_app
from studio.cli.doctor import doctor
from studio.cli.export import export
from studio.cli.generate import generate
from studio.cli.jobs import jobs_app
from studio.cli.options import CpuOption, ModelOption, UserDataOption, field_help, read_options
from studio.cli.score import score
from studio.cli.smoke import smoke
from studio.cli.train import train
from studio.core.errors import StudioError, system_error_message
from studio.core.language import _
from studio.core.paths import is_checkout, locate_user_data, typed_path
from studio.core.settings import SHIPPED_MODEL, ModelSettings, ServerSettings

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, help=_("LoRA Studio."))


@app.command(help=_("Open the studio in the browser."))
def ui(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(help=field_help(ServerSettings, "port"))] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help=_("Do not open the page in the browser."))] = False,
    window: Annotated[bool, typer.Option("--window", help=field_help(ServerSettings, "window"))] = False,
    listen: Annotated[bool, typer.Option("--listen", help=field_help(ServerSettings, "listen"))] = False,
    auth_file: Annotated[Path | None, typer.Option(help=field_help(ServerSettings, "auth_file"))] = None,
    root_path: Annotated[str, typer.Option(help=field_help(ServerSettings, "root_path"))] = "",
    model: ModelOption = SHIPPED_MODEL,
    cpu: CpuOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Serve the page until it is ended."""
    from studio.ui.shell.server import serve

    passwords = typed_path(auth_file).resolve() if auth_file else None
    settings = read_options(context, ServerSettings, open_browser=not no_browser, auth_file=passwords)
    # A relative folder is meant from here; the page's process works elsewhere.
    folder = typed_path(model)
    model_settings = read_options(context, ModelSettings, model=str(folder.resolve()) if folder.is_dir() else model)
    serve(settings, model=model_settings, user_data=locate_user_data(user_data))


_COMMANDS: tuple[tuple[Callable[..., None], str], ...] = (
    (smoke, _("Make the three test images and check them; exit code 0 only when all are valid.")),
    (generate, _("Make images, each checked and saved with its settings; exit code 0 only when all are valid.")),
    (compare, _("Make the same images with two sides' LoRAs and say how far they are apart.")),
    (train, _("Train a LoRA; Ctrl+C saves and ends, and `train RUN` goes on.")),
    (batch, _("Make many images from a plan, as a dataset; Ctrl+C ends it well, and `batch FOLDER` goes on.")),
    (export, _("Write a LoRA for another program, or a model with it merged; it is read back and compared first.")),
    (
        score,
        _("Score images: ground, place, colour, sharpness, nearness to training; exit code 1 where one is unreadable."),
    ),
    (doctor, _("Look for what would fail here, and say what to do; exit code 0 unless there is a problem.")),
)
for _command, _help in _COMMANDS:
    app.command(help=_help)(_command)
app.add_typer(dataset_app, name="dataset")
app.add_typer(jobs_app, name="jobs")

if is_checkout():
    from bench.command import bench

    app.command()(bench)
else:

    @app.command("bench", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def _no_bench() -> None:
        """Say what a wheel lacks."""
        raise StudioError(
            _(
                "bench is not part of an installed LoRA Studio: it measures a checkout of the source. Clone the"
                " repository and run `python -m studio bench` in its folder."
            )
        )


@app.command(help=_("Print the studio's version."))
def version() -> None:
    """Print it alone."""
    typer.echo(__version__)


def main() -> None:
    """Run a command; what the user can act on is printed as one sentence, without a traceback."""
    try:
        app()
    except StudioError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except (OSError, MemoryError) as error:
        print(system_error_message(error), file=sys.stderr)
        sys.exit(2)
