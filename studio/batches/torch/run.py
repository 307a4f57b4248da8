"""One batch from its folder: every item that is not made yet, then what comes out. `python -m studio batch` is this."""

import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import torch

from studio.batches.folder import BatchFolder, read_batch_settings
from studio.batches.ledger import ItemRow, Ledger, RejectionRow, read_items, rows_of
from studio.batches.outputs import provenance_of, write_outputs, write_provenance
from studio.batches.plan import BatchItem, BatchPlan, open_plan
from studio.batches.settings import BatchSettings
from studio.batches.torch.image import PictureMaker, failed_row, remake_copies
from studio.batches.torch.shard import KnownItems, Share, compare_pictures, forget_rows, set_aside
from studio.core.errors import BatchError, CancelledError, StudioError, error_message, is_disk_full, is_out_of_memory
from studio.core.files import write_atomically
from studio.core.language import N_, _, ngettext
from studio.core.paths import UserData
from studio.core.settings import ModelSettings
from studio.core.text import counted
from studio.datasets.scores import nearest_index
from studio.engine.device import pick_device, release_memory
from studio.engine.memory import MemoryWatch
from studio.engine.pipeline import PipelineManager
from studio.engine.progress import RunWatcher
from studio.jobs.device_lock import device_turn
from studio.jobs.folder import StopRequests, StopSignal, forget_old_requests, take_requests
from studio.jobs.reporter import JobReporter, report_failure, retry_until_disk_space
from studio.jobs.words import short_title
from studio.loras.library import LoraLibrary

T = TypeVar("T")
BatchEnd = Literal["finished", "stopped", "paused"]
LOOK_FOR_OTHERS_SECONDS = 2.0
MAX_ERRORS_IN_A_ROW = 3
MAX_LOOKS_FOR_DAMAGE = 3


def run_batch(folder: BatchFolder, user_data: UserData) -> BatchEnd:
    """Make a batch from where it stands to its end, or to a stop. All processes of a launch call this.

    This is the boundary of a batch's process: whatever ends it, of any kind, is in the batch's status, and goes on up.

    Raises:
        StudioError: what the user can act on.
        OSError, MemoryError, RuntimeError: likewise, of the system and of the device.
    """
    stop = StopSignal()
    with Share(folder) as share, stop.listening():
        try:
            batch = _open(folder, user_data, share, stop)
            try:
                with batch.device():
                    end = batch.work()
            except CancelledError:
                end = batch.end_early()
            if share.is_first:
                take_requests(folder)  # answered
            return end
        except BaseException as error:
            share.halt(error_message(error))
            if share.is_first:
                report_failure(folder, error, error_message(error))
            raise


def _open(folder: BatchFolder, user_data: UserData, share: Share, stop: StopSignal) -> "BatchRun":
    settings, plan = read_batch_settings(folder), open_plan(folder.plan)
    reporter = JobReporter(folder, num_steps=plan.num_items, num_processes=share.count, silent=not share.is_first)
    if share.is_first:
        forget_old_requests(folder)
    requests = StopRequests(folder, stop, hears_folder=share.is_first, halted=share.is_halted)
    return BatchRun(folder, settings, plan, user_data, share, requests, reporter)


@dataclass
class BatchRun:
    """One process's work on a batch."""

    folder: BatchFolder
    settings: BatchSettings
    plan: BatchPlan
    user_data: UserData
    share: Share
    requests: StopRequests
    reporter: JobReporter
    known: KnownItems = field(init=False)
    _errors_in_a_row: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.known = KnownItems(self.folder.ledgers, self.plan.num_items)

    @contextmanager
    def device(self) -> Iterator[None]:
        """The device of this machine: asked for by its first process, for those beside it too."""
        if not self.share.holds_device:
            yield
            return
        purpose = _("the batch {name}", name=short_title(self.folder))
        waiting = self.reporter.waits_for_device
        with device_turn(self.user_data, purpose, waiting=waiting, given_up=self.requests.should_stop):
            yield

    def work(self) -> BatchEnd:
        """Make what is this process's, and where that was the last, what comes out of the batch."""
        self.reporter.state("preparing", _("Checking what is already made."))
        ledger = Ledger(self.share.ledger)
        try:
            self._reconcile()
            manager = self._load()
            maker = self._maker(manager, ledger)
            watch = MemoryWatch(manager.device, self.reporter.report)
            with watch:
                self.reporter.state("running", step=self.known.look())
                for index in self.share.own(self.known.flags):
                    if self.requests.should_stop():
                        return self.end_early()
                    self._make(maker, ledger, index)
                    if len(self._errors_in_a_row) >= MAX_ERRORS_IN_A_ROW:
                        raise self._errors_in_a_row[-1]
                    watch.read_accelerator()
                return self._finish(maker, ledger)
        finally:
            ledger.close()

    def end_early(self) -> BatchEnd:
        """Leave the folder as a dataset of what is made, and say how far it came.

        Raises:
            BatchError: where the error of another process ended this one.
        """
        if reason := self.share.halted_because():
            raise BatchError(reason)
        self.share.halt()
        outcome = self.requests.outcome
        if self.share.is_first:
            try:
                write_outputs(self.folder, self.settings, self.plan, finished=False)
            except OSError as error:
                if not is_disk_full(error):
                    raise
                self.reporter.problem(_("The disk is full: the dataset's table is still the one from before."))
            num, total = self.known.look(), self.plan.num_items
            message = _("{num:,} of {total:,} images are made; resume to continue.", num=num, total=total)
            self.reporter.state(outcome, message, step=num)
        return outcome

    def _load(self) -> PipelineManager:
        self.reporter.state("preparing", _("Loading {model}.", model=self.settings.model))
        device = pick_device(cpu_only=self.settings.cpu)
        if device.type == "cuda":
            device = torch.device("cuda", self.share.local_index % torch.cuda.device_count())
        library = LoraLibrary(self.user_data.loras)
        checks = self.user_data.device_checks
        manager = PipelineManager(device, rejected_folder=self.folder.rejected, library=library, device_checks=checks)
        facts = manager.load(
            ModelSettings(model=self.settings.model, precision=self.settings.precision),
            on_check=lambda part: self.reporter.state("preparing", _("Checking the device: {part}.", part=part)),
        )
        if self.share.is_first:
            found = provenance_of(self.plan, self.folder.name, facts, library, self.settings)
            self._save(lambda: write_provenance(self.folder.provenance, found), what=_("the record of their origin"))
        return manager

    def _maker(self, manager: PipelineManager, ledger: Ledger) -> PictureMaker:
        nearest = None
        if self.settings.nearest_to:
            nearest = nearest_index(self.settings.nearest_to, self.user_data, report=self.reporter.note)

        def write(path: Path, content: bytes) -> None:
            self._save(lambda: write_atomically(path, content))

        def reject(row: RejectionRow) -> None:
            self._save(lambda: ledger.reject(row))

        watcher = RunWatcher(cancelled=self.requests.should_stop)
        return PictureMaker(manager, self.settings, self.folder, nearest, write, reject, self._item_error, watcher)

    def _make(
        self, maker: PictureMaker, ledger: Ledger, index: int, *, first_attempt: int = 0, again: bool = False
    ) -> ItemRow:
        errors_before = len(self._errors_in_a_row)
        try:
            item = self.plan.item(index)
        except StudioError as error:  # what was too much to be looked at when the plan was made
            row = failed_row(index, 0, str(error), attempts=first_attempt)
        else:
            row = maker.make(item, first_attempt=first_attempt, again=again)
        self._add(ledger, row)
        if len(self._errors_in_a_row) == errors_before:
            self._errors_in_a_row.clear()
        if row.state == "failed" and row.attempts <= self.settings.max_retries:
            release_memory(maker.manager.device)  # what an error left there
            self.reporter.note(_("Item {item:,} failed: {reason}", item=index, reason=row.reason))
        num, total = self.known.look(), self.plan.num_items
        self.reporter.stepped(
            num,
            row.seconds,
            lambda mean: _("{num:,} of {total:,} images  {mean:.2f} s each", num=num, total=total, mean=mean),
        )
        return row

    def _item_error(self, item: BatchItem, error: Exception) -> None:
        """An error that is no answer to an item's settings may be the device's: several in a row end the batch."""
        if isinstance(error, StudioError | ValueError) or is_out_of_memory(error):
            return
        print("\r" + _("Item {item:,}:", item=item.index), file=sys.stderr)
        traceback.print_exception(error)
        self._errors_in_a_row.append(error.with_traceback(None))  # its frames would keep the tensors

    def _add(self, ledger: Ledger, row: ItemRow) -> None:
        self._save(lambda: ledger.add(row))

    def _reconcile(self, *, last: bool = False) -> Sequence[int]:
        """See what needs no making; items whose image is gone or is not what was written are taken back.

        Args:
            last: all processes have made theirs, so that this one may look after the others' items too.
        """
        self.known.look()
        found = compare_pictures(self.folder, progress=self._compared, cancelled=self.requests.should_stop)
        own = [item for item in found.lost if last or self.share.is_own(item)]
        aside = sum(set_aside(self.folder, self.folder.picture(i, self.settings.picture_format)) for i in own)
        mine = {path: items for path, items in found.stale.items() if last or self.share.owns_ledger(path)}
        self._save(lambda: forget_rows(mine), what=_("the record of what is made again"))
        self.known.forget(found.lost)
        if num := len(found.lost):
            images = counted(num, "image", "images")
            note = _("{images} missing or damaged on the disk: made again.", images=images)
            kept = _("Damaged files are kept in {folder}, as damaged-…", folder=self.folder.rejected.name)
            self.reporter.note(f"{note} {kept}" if aside else note)
        return found.lost

    def _compared(self, number: int) -> None:
        self.reporter.progress(_("Comparing what is made with its record: {num:,} images.", num=number))

    def _finish(self, maker: PictureMaker, ledger: Ledger) -> BatchEnd:
        """The first process waits until all have made theirs, and writes what comes out."""
        while self.share.is_first and self.known.look() < self.plan.num_items:
            self.reporter.state("running", _("The other processes are still at work."))
            time.sleep(LOOK_FOR_OTHERS_SECONDS)
            if self.requests.should_stop():
                return self.end_early()
        if not self.share.is_first:
            return "finished"
        self._retry(maker, ledger)
        self.reporter.state("preparing", _("Looking for copies and damage, and writing the results."))
        self._settle_pictures(maker, ledger)
        table = _("the dataset's table")
        self._save(lambda: write_outputs(self.folder, self.settings, self.plan, finished=True), what=table)
        self.reporter.state("finished", self._words_at_the_end(), step=self.known.look())
        return "finished"

    def _retry(self, maker: PictureMaker, ledger: Ledger) -> None:
        """Items that an error ended are tried once more in each run, when all others are made: they hold up none.

        So are those of which a person asked for another image.
        """
        failed = [row for row in read_items(self.folder.ledgers) if self._can_be_tried(row)]
        for row in failed:
            if self.requests.should_stop():
                raise CancelledError(_("Stopped while failed items were tried again."))
            if row.state == "again":
                self._make_another(maker, ledger, row)
            else:
                self._make(maker, ledger, row.item, first_attempt=row.attempts)

    def _can_be_tried(self, row: ItemRow) -> bool:
        return row.state == "again" or (row.state == "failed" and row.attempts <= self.settings.max_retries)

    def _make_another(self, maker: PictureMaker, ledger: Ledger, row: ItemRow) -> None:
        """The image of before is a try that was not taken; where no other one is taken, it can still be kept."""
        made = self._make(maker, ledger, row.item, first_attempt=row.attempts, again=True)
        others = [path for path, __ in rows_of(self.folder.ledgers, row.item) if path != self.share.ledger]
        self._save(lambda: forget_rows({path: [row.item] for path in others}))
        if row.file and made.state == "failed":
            reason = _("No other was taken: {reason}", reason=made.reason)
            facts = {"state": "rejected", "attempts": made.attempts, "reason": reason}
            self._add(ledger, row.model_copy(update=facts))
        elif row.file:
            replaced = RejectionRow(
                item=row.item,
                attempt=row.attempts - 1,
                seed=row.seed,
                reason=_("Another image was asked for."),
                file=row.file,
                made_at=row.made_at,
            )
            self._save(lambda: ledger.reject(replaced))

    def _settle_pictures(self, maker: PictureMaker, ledger: Ledger) -> None:
        """No copies, and every file what was written; what is made again for the one is looked at for the other.

        Raises:
            BatchError: where images are damaged again and again.
        """
        for __ in range(MAX_LOOKS_FOR_DAMAGE):
            remake_copies(self.folder, self.settings, self.plan, maker, lambda row: self._add(ledger, row))
            lost = self._reconcile(last=True)
            if not lost:
                return
            for index in lost:
                self._make(maker, ledger, index)
        words = N_(
            "Images of this batch do not stay as they are written (item {item:,} and others). Check the disk of "
            "{folder}, then resume."
        )
        raise BatchError(_(words, item=lost[0], folder=self.folder.root))

    def _words_at_the_end(self) -> str:
        rows = [row for row in read_items(self.folder.ledgers) if row.state != "done"]
        failed = [row for row in rows if row.state == "failed"]
        num = self.plan.num_items - len(rows)
        if not failed:
            return ngettext("{num:,} image is made.", "{num:,} images are made.", num, num=num)
        said = ngettext(
            "{num:,} image is made; {num_failed:,} failed, and the report says why.",
            "{num:,} images are made; {num_failed:,} failed, and the report says why.",
            num,
            num=num,
            num_failed=len(failed),
        )
        if not (again := sum(map(self._can_be_tried, failed))):
            return said
        resume = N_("`python -m studio batch {name}` tries {num:,} of them again.")
        return f"{said} {_(resume, name=self.folder.name, num=again)}"

    def _save(self, act: Callable[[], T], *, what: str = "") -> T:
        """Do what writes something, waiting for room where the disk is full."""
        return retry_until_disk_space(
            act,
            what=what or _("the image in work"),
            reporter=self.reporter,
            should_stop=self.requests.should_stop,
            stopped=CancelledError(_("Stopped while the disk was full.")),
        )
