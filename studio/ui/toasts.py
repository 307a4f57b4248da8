"""What went wrong with what a person just did, as a toast."""

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr

from studio.core.text import escape
from studio.errors import StudioError, system_error_sentence


@contextmanager
def toasts() -> Iterator[None]:
    """Turn an error of ours, or of the disk, into a toast; toasts render markup, so the text is escaped."""
    try:
        yield
    except StudioError as error:
        raise gr.Error(escape(error), duration=8, print_exception=False) from error
    except OSError as error:
        raise gr.Error(escape(system_error_sentence(error)), duration=8, print_exception=False) from error
