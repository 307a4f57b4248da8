"""Captions such as nobody writes and somebody has: all that a prompt's grammar reads as a command."""

import random
from collections.abc import Iterator

_PIECES = (
    *"()[]{}\\:<>|,.$_- \n\t1aé白",
    "red shoe",
    "<lora:",
    "<lora:someStyle:0.8>",
    "<lora::9:9>",
    "<hypernet:x:1>",
    ":1.3)",
    "(red:1.3)",
    "\\(",
    "__colour__",
    "{red|blue}",
    " BREAK ",
    " AND ",
    "\nNegative prompt: ",
    "\r\n  Negative prompt:",
    "\nSteps: 20, Sampler: Euler, Seed: 1",
    "--s 60",
)


def hostile_captions(number: int, *, seed: int = 0) -> Iterator[str]:
    """So many of them, the same for a seed."""
    rng = random.Random(seed)
    for _ in range(number):
        yield "".join(rng.choices(_PIECES, k=rng.randrange(24)))
