"""Which operations have a kernel on MPS, by torch's own list: torchgen's copy of `native_functions.yaml`.

It is the list of the torch that is installed, so raising the pinned version checks the new one. A kernel that exists
may still be wrong; that is for the device check on a real Mac.
"""

from functools import cache
from pathlib import Path

import torchgen
import yaml

NATIVE_FUNCTIONS = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
EXPLICIT = frozenset(("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional"))
IMPLICIT = "CompositeImplicitAutograd"


class MpsKernels:
    """Answers for operations by their name in the list, such as `add.Tensor` or `relu`."""

    def __init__(self) -> None:
        entries = yaml.load(NATIVE_FUNCTIONS.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
        self._keys: dict[str, frozenset[str]] = {}
        self._delegates: dict[str, str] = {}
        generated: list[str] = []
        for entry in entries:
            name = entry["func"].partition("(")[0]
            keys = frozenset(key.strip() for keys in entry.get("dispatch", {}) for key in keys.split(","))
            delegate = entry.get("structured_delegate")
            # An entry that says nothing of kernels is made of other operations.
            self._keys[name] = keys if keys or delegate else frozenset((IMPLICIT,))
            if delegate:
                self._delegates[name] = delegate
            generated += [other.strip() for other in entry.get("autogen", "").split(",") if other.strip()]
        for name in generated:  # torchgen writes these around the operation that they belong to
            self._keys.setdefault(name, EXPLICIT)

    def has(self, name: str) -> bool:
        """Whether MPS can compute it: by a kernel of its own, a structured one, or one made of other operations."""
        return self.has_own(name) or bool(self._keys.get(name, frozenset()) & {*EXPLICIT, IMPLICIT})

    def has_own(self, name: str) -> bool:
        """Whether MPS computes it as a whole."""
        return "MPS" in self._keys.get(name, ()) or "MPS" in self._keys.get(self._delegates.get(name, ""), ())

    def is_made_of_others(self, name: str) -> bool:
        """Whether MPS computes it by other operations, each of which needs a kernel itself."""
        return IMPLICIT in self._keys.get(name, ()) and not self.has_own(name)


@cache
def mps_kernels() -> MpsKernels:
    """The list, read once."""
    return MpsKernels()
