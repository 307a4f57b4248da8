"""How the CPU's threads wait for each other. Call it before torch is imported: OpenMP reads its settings once."""

import os


def prepare_threads() -> None:
    """Let waiting threads sleep instead of spin.

    torch splits each operation over all cores and waits for the slowest. With OpenMP's default the others spin
    meanwhile, and when any other program takes a core, each wait lasts a scheduler's slice: one busy program made
    generation on two cores 50 times slower (10.7 s against 0.3 s for five steps). A user's own setting wins.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
