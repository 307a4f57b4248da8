"""Numbers drawn for items by number: no state, so that an item is the same whoever asks for it, in any order.

splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014), started by SHA-256 of
the seed and of what is drawn. `random.Random` would take ten seconds for a million items to set itself up.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def uniform(seed: int, what: str, items: NDArray[np.int64]) -> NDArray[np.float64]:
    """One number from 0 to below 1 for each item. Another `what` gives numbers that have nothing to do with these."""
    key = np.uint64(int.from_bytes(_digest(seed, what)[:8], "big"))
    mixed = (items.astype(np.uint64) + np.uint64(1)) * _GOLDEN + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def item_seed(seed: int, item: int) -> int:
    """What `random.Random` is started with for one item."""
    return int.from_bytes(_digest(seed, f"item {item}"), "big")


def _digest(seed: int, what: str) -> bytes:
    return hashlib.sha256(f"{seed}:{what}".encode()).digest()
