"""Which items of a batch need nothing more, kept up to date from what all its processes note."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from studio.batches.ledger import ledger_files, states_since


@dataclass
class KnownItems:
    """The items that are done or failed. Each look reads only what was noted since the one before.

    Attributes:
        flags: (num_items,) 1 for each of them.
    """

    folder: Path
    num_items: int
    flags: bytearray = field(init=False)
    _seqs: dict[Path, int] = field(default_factory=dict)
    _count: int = 0

    def __post_init__(self) -> None:
        self.flags = bytearray(self.num_items)

    def look(self) -> int:
        """How many there are now.

        Raises:
            BatchError: where a ledger cannot be read.
        """
        for path in ledger_files(self.folder):
            for seq, item, _ in states_since(path, self._seqs.get(path, 0)):
                self._count += not self.flags[item]
                self.flags[item] = 1
                self._seqs[path] = seq
        return self._count

    def forget(self, items: Sequence[int]) -> None:
        """These are to be made again; a row that is written later makes them known again."""
        for item in items:
            self._count -= self.flags[item]
            self.flags[item] = 0
