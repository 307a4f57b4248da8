"""One batch from its folder: every item that is not made yet, then what comes out. `python -m studio batch` is this."""

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from studio.batch_settings import BatchSettings
from studio.batches.begin import read_batch_settings
from studio.batches.folder import BatchFolder
from studio.batches.known import KnownItems
from studio.batches.ledger import ItemRow, Ledger, RejectionRow, read_items
from studio.batches.lineage import write_lineage
from studio.batches.outputs import write_outputs
from studio.batches.plan import BatchPlan, open_plan
from studio.engine.device import pick_device
from studio.engine.pipeline import PipelineManager
from studio.engine.watching import RunWatcher
from studio.errors import CancelledError, StudioError, system_error_sentence
from studio.files import write_atomically
from studio.jobs.device_turn import device_turn
from studio.jobs.stop_signal import StopSignal
from studio.loras.library import LoraLibrary
from studio.paths import UserData
from studio.runs.folder import RunRequest, RunState, take_requests
from studio.scoring.training_pictures import nearest_index
from studio.settings import ModelSettings
from studio.synthesis.copies import remake_copies
from studio.synthesis.lineage import lineage_of
from studio.synthesis.picture import PictureMaker
from studio.synthesis.share import Share
from studio.synthesis.telling import BatchTeller
from studio.training.memory_watch import MemoryWatch

BatchEnding = Literal["finished", "stopped", "paused"]
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
LOOK_FOR_ROOM_SECONDS = 2.0


@dataclass
class Wishes:
    """What this process was asked: by a signal, through the batch's folder, or by another process of the launch."""

    share: Share
    signal: StopSignal
    asked: set[RunRequest] = field(default_factory=set)

    def to_end(self) -> bool:
        """Whether it is to end now."""
        if self.signal() and "stop" not in self.asked:
            self.asked.add("stop")
        if self.share.is_first:
            self.asked |= take_requests(self.share.folder.job)
        elif self.share.is_halted():
            self.asked.add("stop")
        return bool(self.asked & {"stop", "pause"})

    @property
    def ending(self) -> BatchEnding:
        return "paused" if "pause" in self.asked and "stop" not in self.asked else "stopped"


def run_batch(folder: BatchFolder, user_data: UserData) -> BatchEnding:
    """Make a batch from where it stands to its end, or to a stop. All processes of a launch call this.

    Raises:
        StudioError: what the user can act on; it is in the batch's status too.
        OSError, MemoryError, RuntimeError: likewise, of the system and of the device.
    """
    settings, plan = read_batch_settings(folder), open_plan(folder.plan)
    stop = StopSignal()
    with Share(folder) as share, stop.listening():
        teller = BatchTeller(folder, plan.num_items, share.count) if share.is_first else None
        wishes = Wishes(share, stop)
        if share.is_first:
            take_requests(folder.job)  # those of an earlier process were for that one
        batch = BatchRun(folder, settings, plan, user_data, share, wishes, teller)
        try:
            with batch.device():
                return batch.work()
        except CancelledError:
            return batch.end_early()
        except (StudioError, OSError, MemoryError, RuntimeError) as error:
            share.halt()
            if teller:
                teller.state("failed", str(error) if isinstance(error, StudioError) else system_error_sentence(error))
            raise


@dataclass
class BatchRun:
    """One process's work on a batch."""

    folder: BatchFolder
    settings: BatchSettings
    plan: BatchPlan
    user_data: UserData
    share: Share
    wishes: Wishes
    teller: BatchTeller | None
    known: KnownItems = field(init=False)

    def __post_init__(self) -> None:
        self.known = KnownItems(self.folder.ledgers, self.plan.num_items)

    @contextmanager
    def device(self) -> Iterator[None]:
        """The device of this machine: asked for by its first process, for those beside it too."""
        if not self.share.holds_device:
            yield
            return

        def waiting(owner: str) -> None:
            self._state("waiting", f"The device is in use by {owner}. The batch begins when it is free.")

        with device_turn(self.user_data, f"the batch {self.folder.name}", waiting=waiting, given_up=self.wishes.to_end):
            yield

    def work(self) -> BatchEnding:
        """Make what is this process's, and where that was the last, what comes out of the batch."""
        self._state("preparing", "Looking at what is made already.")
        ledger = Ledger(self.share.ledger)
        try:
            self._reconcile(ledger)
            manager = self._load()
            maker = self._maker(manager, ledger)
            watch = MemoryWatch(manager.device, self.teller.tell if self.teller else _say_nothing)
            with watch:
                self._state("running")
                for index in self.share.own(self.known.flags):
                    if self.wishes.to_end():
                        return self.end_early()
                    self._make(maker, ledger, index)
                    watch.read_accelerator()
                return self._finish(maker, ledger)
        finally:
            ledger.close()

    def end_early(self) -> BatchEnding:
        """Leave the folder as a dataset of what is made, and say how far it came."""
        self.share.halt()
        ending = self.wishes.ending
        if self.teller:
            write_outputs(self.folder, self.settings, self.plan, finished=False)
            self.teller.num_known = self.known.look()
            words = f"{self.teller.num_known:,} of {self.plan.num_items:,} pictures are made; resume to go on."
            self._state(ending, words)
        return ending

    def _load(self) -> PipelineManager:
        self._state("preparing", f"Loading {self.settings.model}.")
        device = pick_device(cpu_only=self.settings.cpu)
        if device.type == "cuda":
            device = torch.device("cuda", self.share.local_index % torch.cuda.device_count())
        library = LoraLibrary(self.user_data.loras)
        manager = PipelineManager(
            device,
            rejected_folder=self.folder.rejected,
            library=library,
            device_checks=self.user_data.device_checks,
        )
        facts = manager.load(
            ModelSettings(model=self.settings.model, precision=self.settings.precision),
            on_check=lambda part: self._state("preparing", f"Checking the device: {part}."),
        )
        if self.share.is_first:
            write_lineage(self.folder.lineage, lineage_of(self.plan, self.folder.name, facts, library, self.settings))
        return manager

    def _maker(self, manager: PipelineManager, ledger: Ledger) -> PictureMaker:
        nearest = None
        if self.settings.nearest_to:
            nearest = nearest_index(self.settings.nearest_to, self.user_data, tell=self._note)

        def write(path: Path, content: bytes) -> None:
            self._with_room(lambda: write_atomically(path, content))

        def reject(row: RejectionRow) -> None:
            self._with_room(lambda: ledger.reject(row))

        watcher = RunWatcher(cancelled=self.wishes.to_end)
        return PictureMaker(manager, self.settings, self.folder, nearest, write, reject, watcher)

    def _make(self, maker: PictureMaker, ledger: Ledger, index: int) -> None:
        row = maker.make(self.plan.item(index))
        self._add(ledger, row)
        if self.teller:
            self.teller.finished_item(self.known.look(), row.seconds)

    def _add(self, ledger: Ledger, row: ItemRow) -> None:
        self._with_room(lambda: ledger.add(row))

    def _reconcile(self, ledger: Ledger) -> None:
        """See what needs no making; rows whose picture is gone or was changed are taken back."""
        self.known.look()
        lost = [row.item for row in read_items(self.folder.ledgers) if row.state == "done" and self._is_lost(row)]
        if lost:
            ledger.forget(lost)
            self.known.forget(lost)
            self._note(f"{len(lost):,} pictures are gone or were changed since they were made; they are made again.")

    def _is_lost(self, row: ItemRow) -> bool:
        path = self.folder.root / row.file
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return True
        return size != row.num_bytes

    def _finish(self, maker: PictureMaker, ledger: Ledger) -> BatchEnding:
        """The first process waits until all have made theirs, and writes what comes out."""
        while self.share.is_first and self.known.look() < self.plan.num_items:
            self._state("running", "The other processes are still at work.")
            time.sleep(LOOK_FOR_ROOM_SECONDS)
            if self.wishes.to_end():
                return self.end_early()
        if not self.share.is_first:
            return "finished"
        self._state("preparing", "Looking for copies, and writing what comes out.")
        remake_copies(
            self.folder, self.settings, self.plan, maker, lambda row: self._with_room(lambda: ledger.add(row))
        )
        write_outputs(self.folder, self.settings, self.plan, finished=True)
        num_failed = sum(row.state == "failed" for row in read_items(self.folder.ledgers))
        words = f"{self.plan.num_items - num_failed:,} pictures are made"
        self._state(
            "finished", f"{words}; {num_failed:,} failed, and the report says why." if num_failed else f"{words}."
        )
        return "finished"

    def _with_room(self, act: Callable[[], None]) -> None:
        """Do it; where the disk is full, say so, and wait for room."""
        waiting = False
        while True:
            try:
                act()
            except OSError as error:
                if error.errno not in DISK_FULL:
                    raise
            else:
                if waiting:
                    self._state("running", "There is room again; the batch goes on.")
                return
            if not waiting:
                waiting = True
                self._state(
                    "waiting",
                    "The disk is full: the picture in work cannot be saved. Free some space; the batch waits and goes "
                    "on by itself. Nothing is lost while it waits.",
                )
            time.sleep(LOOK_FOR_ROOM_SECONDS)
            if self.wishes.to_end():
                raise CancelledError("Stopped while the disk was full.")

    def _state(self, state: RunState, message: str = "") -> None:
        if self.teller:
            self.teller.state(state, message)

    def _note(self, message: str) -> None:
        if self.teller:
            self.teller.note(message)


def _say_nothing(_: object) -> None:
    """Only the first process tells."""
