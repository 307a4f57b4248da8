"""The command line, `python -m studio COMMAND`: one file each beside this one. Importing it loads nothing heavy."""

import sys
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


@app.command()
def ui(
    context: typer.Context,
    port: Annotated[int | None, typer.Option(help=field_help(ServerSettings, _("port")))] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help=_("Do not open the page in the browser."))] = False,
    window: Annotated[bool, typer.Option("--window", help=field_help(ServerSettings, _("window")))] = False,
    listen: Annotated[bool, typer.Option("--listen", help=field_help(ServerSettings, _("listen")))] = False,
    auth_file: Annotated[Path | None, typer.Option(help=field_help(ServerSettings, "auth_file"))] = None,
    root_path: Annotated[str, typer.Option(help=field_help(ServerSettings, "root_path"))] = "",
    model: ModelOption = SHIPPED_MODEL,
    cpu: CpuOption = False,
    user_data: UserDataOption = None,
) -> None:
    """Open the studio in the browser."""
    from studio.ui.shell.server import serve

    passwords = typed_path(auth_file).resolve() if auth_file else None
    settings = read_options(context, ServerSettings, open_browser=not no_browser, auth_file=passwords)
    # A relative folder is meant from here; the page's process works elsewhere.
    folder = typed_path(model)
    model_settings = read_options(context, ModelSettings, model=str(folder.resolve()) if folder.is_dir() else model)
    serve(settings, model=model_settings, user_data=locate_user_data(user_data))


app.command()(smoke)
app.command()(generate)
app.command()(compare)
app.add_typer(dataset_app, name="dataset")
app.command()(train)
app.command()(batch)
app.command()(export)
app.command()(score)
app.add_typer(jobs_app, name="jobs")
app.command()(doctor)

if is_checkout():
    from bench.command import bench

    app.command()(bench)
else:

    @app.command("bench", hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def _no_bench() -> None:
        """Say what a wheel lacks."""
        raise StudioError(
            _(
                "bench is not part of an installed LoRA Studio: it measures a checkout of the "
                "source. Clone the repository and run `python -m studio bench` in its folder."
            )
        )


@app.command()
def version() -> None:
    """Print the studio's version."""
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
