"""One prompt a line, with sd-scripts' options at its end: `a red shoe --w 512 --h 512 --d 7 --n blurry`."""

import re
from collections.abc import Iterable, Iterator

from studio.batches.rows import Row
from studio.dataset.tables import MAX_CELL_CHARACTERS
from studio.errors import BatchError

OPTIONS = {
    "w": "width",
    "h": "height",
    "d": "seed",
    "l": "guidance_scale",
    "s": "num_inference_steps",
    "n": "negative_prompt",
}
_OPTION_START = re.compile(r"(?:^|\s)--(?=[A-Za-z])")


def read_lines(lines: Iterable[str], source: int, name: str) -> Iterator[Row]:
    """The rows of a text; empty lines, and those with # at their start, are none.

    Args:
        source: the number of the text, kept in its rows.
        name: of the text, in errors.

    Raises:
        BatchError: naming the line, where one is wrong.
    """
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if len(text) > MAX_CELL_CHARACTERS or "\0" in text:
            raise BatchError(
                f"{name} line {number} is no prompt: it holds a zero byte, or over {MAX_CELL_CHARACTERS:,} characters."
            )
        if "--" not in text:
            yield Row(source, number, text, {}, ())
            continue
        prompt, options = _split_options(text, f"{name} line {number}")
        yield Row(source, number, prompt, options, ())


def _split_options(text: str, place: str) -> tuple[str, dict[str, str]]:
    prompt, *pieces = _OPTION_START.split(text)
    options: dict[str, str] = {}
    for piece in pieces:
        name, _, value = piece.partition(" ")
        if name not in OPTIONS:
            known = ", ".join(f"--{option} ({setting})" for option, setting in OPTIONS.items())
            raise BatchError(f"{place}: --{name} is no option here. There are: {known}. Change it, or leave it out.")
        setting = OPTIONS[name]
        if setting in options:
            raise BatchError(f"{place} has --{name} twice. Keep one of them.")
        if not value.strip():
            raise BatchError(f"{place}: --{name} ({setting}) needs a value behind it, got nothing.")
        options[setting] = value.strip()
    if not prompt.strip():
        raise BatchError(f"{place} has no prompt, only options. Write the prompt before --{pieces[0].split(' ')[0]}.")
    return prompt.strip(), options
