"""Any file of user_data may be cut off, zeroed, of another version or changed by hand: every tab answers all the same.

A sample runs each time; `STUDIO_MUTATED_USER_DATA=5000` runs as many as it says.
"""

import contextlib
import json
import os
import random
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save as save_safetensors

from studio.batches.folder import BatchFolder, read_batch_settings
from studio.batches.outputs import write_outputs
from studio.batches.plan import open_plan
from studio.batches.session import BatchSession
from studio.core.errors import StudioError
from studio.core.paths import UserData
from studio.core.records import Label, label_beside, write_label
from studio.core.settings import CompareSettings, GenerationSettings, LoraChoice, ModelSettings
from studio.datasets.checker import OnChecked, PictureChecker
from studio.datasets.inspection import inspect
from studio.datasets.library import HeldDataset, HeldDatasets
from studio.datasets.report import make_report, summarise
from studio.datasets.rows import CountTokens
from studio.datasets.session import DatasetSession
from studio.datasets.source import SkippedFile
from studio.datasets.upload import NOT_TAKEN, keep_not_taken
from studio.engine.process.client import EngineClient
from studio.images.comparison import (
    ComparedPair,
    ComparedPicture,
    CompareReport,
    Difference,
    SavedComparison,
    new_comparison_folder,
    save_comparison,
)
from studio.images.files import save_picture
from studio.images.gallery import History, new_picture_path, thumbnail
from studio.images.records import Problem
from studio.jobs.queue import JobQueue
from studio.loras.library import LoraLibrary
from studio.loras.votes import Vote, add_vote, read_votes
from studio.training.begin import read_run_settings
from studio.training.events import AnyEvent, ProposalEvent
from studio.training.folder import RunFolder
from studio.training.report import standalone_html, write_report
from studio.training.session import TrainingSession
from studio.ui.batches.tab import BatchPage
from studio.ui.datasets.browser import read_query, render_page
from studio.ui.datasets.captioning import caption_jobs
from studio.ui.datasets.detail import Subject, render_row
from studio.ui.datasets.statistics import doctor_html, statistics_html
from studio.ui.inference.generate import past_image
from studio.ui.inference.history import PastImages
from studio.ui.shell.app import Sessions
from studio.ui.shell.commands import BATCH, CommandRunner, PreflightRunner
from studio.ui.shell.device_busy_box import BlockingJobs
from studio.ui.shell.selection import SelectedImage, Selection
from studio.ui.training.queue import TrainingPage
from tests.batches.test_session import make_batch, note
from tests.datasets.test_mutated_files import mutated
from tests.images.test_a1111 import make_record
from tests.training.told_runs import long_run_events, make_run
from tests.ui.told_scores import near, reference_event, score_event

NUM_TRIES = int(os.environ.get("STUDIO_MUTATED_USER_DATA", "40"))
OLD, NEW = "20261124-220000-old", "20261125-220000-new"
ODD = (
    float("nan"),
    float("inf"),
    -1,
    0,
    1e308,
    10**30,
    2**63,
    "",
    "x" * 500,
    None,
    [],
    {},
    True,
    "0001-01-01T00:00:00",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> UserData:
    """One of each kind of file that the studio keeps and its page reads."""
    user_data = UserData(tmp_path_factory.mktemp("lived-in") / "user_data")
    for name, num_steps in ((OLD, 40), (NEW, 60)):
        root = user_data.runs / name
        make_run(root, [*long_run_events(root, num_steps, accelerator=name == NEW), *scores_of(num_steps)])
        write_report(RunFolder(root))
        (root / "run.log").write_text("step 1\n", encoding="utf-8")
    batches = BatchSession(user_data)
    for name in ("a", "b"):
        batch = make_batch(batches, name, "stopped")
        for item in range(3):
            note(batch, item)
        write_outputs(batch, read_batch_settings(batch), open_plan(batch.plan), finished=True)
    queue = JobQueue(user_data)
    for name in (OLD, NEW):
        queue.add("train", user_data.runs / name, name)
    write_dataset(user_data)
    write_images(user_data)
    user_data.loras.mkdir()
    (user_data.loras / "mine.safetensors").write_bytes(whole_lora())
    vote = Vote(left="base", right="mine", winner="right", prompt="boots", seed=1, voted_at=datetime.now(UTC))
    add_vote(user_data.loras, "mine", vote)
    label_everything(user_data)
    return user_data


def label_everything(user_data: UserData) -> None:
    """A name and a note for one of each kind."""
    folders = (user_data.runs / NEW, next(user_data.batches.iterdir()))
    image = next(user_data.outputs.rglob("*-seed1.png"))
    for file in (*(folder / "label.json" for folder in folders), *map(label_beside, (image, user_data.loras / "mine"))):
        write_label(file, Label(name="A name", note="A note.", starred=True))


def scores_of(step: int) -> list[AnyEvent]:
    proposal = ProposalEvent(step=step, sentence=f"Step {step}: it is the only checkpoint.", sure=False, lora="")
    return [reference_event(0.9), score_event(step, 0.7, near("0.png", 0.8), None), proposal]


def whole_lora() -> bytes:
    """A LoRA of one layer, with metadata as trainers write it."""
    layer = "lora_unet_down_blocks_0_attentions_0_proj_in"
    tensors = {f"{layer}.lora_down.weight": np.ones((4, 320), np.float32), f"{layer}.alpha": np.array(4.0, np.float32)}
    tensors[f"{layer}.lora_up.weight"] = np.ones((320, 4), np.float32)
    about = {"modelspec.title": "Mine", "ss_network_dim": "4", "ss_steps": "40", "ss_tag_frequency": '{"a": {"b": 3}}'}
    return save_safetensors(tensors, metadata=about)


def write_dataset(user_data: UserData) -> None:
    folder = user_data.root.parent / "shoes"
    folder.mkdir()
    left_out = SkippedFile(name="x.zip", problem=Problem(code="not taken", severity="reject", sentence="It is no zip."))
    for number in range(3):
        Image.new("RGB", (64 + number, 64), (60 * number, 90, 120)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a shoe, {number}", encoding="utf-8")
    with opened_session(user_data) as session:
        dataset = session.open_folder(str(folder))
        dataset.set_caption(dataset.rows[0].key, "another shoe")
        dataset.set_excluded([dataset.rows[1].key], True)
        keep_not_taken(session.library.place(dataset.name) / NOT_TAKEN, [left_out])


def write_images(user_data: UserData) -> None:
    """A history of two images, and a comparison."""
    now, settings = datetime.now(UTC), GenerationSettings(prompt="boots")
    for seed in (1, 2):
        path = new_picture_path(user_data.outputs, now=now, seed=seed)
        save_picture(path, np.full((64, 64, 3), 40 * seed, np.uint8), make_record(settings))
    folder = new_comparison_folder(user_data.outputs, now=now)
    for side in ("left", "right"):
        Image.new("RGB", (64, 64), "red").save(folder / f"{side}.png")
    pair = ComparedPair(
        left=ComparedPicture(settings=settings, file="left.png"),
        right=ComparedPicture(settings=settings, file="right.png"),
        difference=Difference(pixels=12, changed_share=0.5, latents=1),
    )
    compared = CompareSettings(prompts=("boots",), generation=settings, right=(LoraChoice(name="mine"),))
    report = CompareReport(started_at=now, settings=compared, model="m", pairs=(pair,), finished=True)
    save_comparison(SavedComparison(folder=folder, report=report))


class InPlace(PictureChecker):
    """Checks in this process what is not in the cache: no worker is started for each damaged recipe."""

    def _look(self, paths: Sequence[Path], *_: object, background: str, on_checked: OnChecked, **__: object) -> None:
        for path in paths:
            on_checked(path, inspect(path, background=background, thumbnails=self._thumbnails))


class HeldAtOnce(HeldDatasets):
    """No thread that goes on behind a test."""

    def begin_check(self, held: HeldDataset, *, after: threading.Thread | None) -> None:
        held.dataset.check(self._checker)


class CheckedAtOnce(DatasetSession):
    def __init__(self, user_data: UserData, *, count_tokens: CountTokens) -> None:
        super().__init__(user_data, count_tokens=count_tokens)
        self._held = HeldAtOnce(InPlace(user_data.cache / "picture-checks.db", self.thumbnails))


@contextlib.contextmanager
def opened_session(user_data: UserData) -> Iterator[DatasetSession]:
    session = CheckedAtOnce(user_data, count_tokens=len)
    try:
        yield session
    finally:
        session.close()


def look_at_everything(user_data: UserData) -> Iterator[str]:
    """What a person would do in all tabs; yields what the page says. Errors in our own words are answers too."""
    with opened_session(user_data) as datasets:
        datasets.restore()
        library = LoraLibrary(user_data.loras)
        trainings, batches = TrainingSession(user_data), BatchSession(user_data)
        sessions = Sessions(
            engine=EngineClient(user_data, model=ModelSettings(), cpu_only=True),
            datasets=datasets,
            training=TrainingPage(trainings, datasets, PreflightRunner(user_data), CommandRunner(user_data)),
            batches=BatchPage(batches, datasets, library, PreflightRunner(user_data, BATCH)),
            library=library,
            blocking_jobs=BlockingJobs(user_data),
            past=PastImages(History(user_data.outputs), user_data.cache / "run-thumbnails"),
            captions=caption_jobs(user_data),
        )
        shown = zip((OLD, NEW), batches.folders(), strict=False)
        for run, batch in shown:
            image = SelectedImage(step=40 if run == OLD else 60, picture=0)
            other = NEW if run == OLD else OLD
            chosen = Selection(run=run, batch=batch.name, compared=(other,), image=image, log=True)
            yield from map(str, sessions.now(chosen).parts.values())
        yield from map(str, sessions.now(Selection()).parts.values())
        for act in presses(user_data, datasets):
            with contextlib.suppress(StudioError, OSError):  # a toast says it
                yield str(act())


def presses(user_data: UserData, datasets: DatasetSession) -> Iterator[Callable[[], object]]:
    """What is read when something is pressed, opened or scrolled to."""
    for run in RunFolder.all_in(user_data.runs):
        yield partial(read_run_settings, run)
        yield partial(standalone_html, run)
    for batch in BatchFolder.all_in(user_data.batches):
        yield partial(read_batch_settings, batch)
        yield partial(open_plan, batch.plan)
    yield lambda: History(user_data.outputs).page(1)
    yield lambda: History(user_data.outputs).page(1, search="note ★")
    yield lambda: LoraLibrary(user_data.loras).notes()
    for path in user_data.outputs.rglob("*.png"):
        yield partial(past_image, path)
        yield partial(thumbnail, path, cache=user_data.cache / "thumbnails")
    yield lambda: read_votes(user_data.loras, "mine")
    yield lambda: LoraLibrary(user_data.loras).cards()
    for query in ({"page": 1}, {"search": "shoe", "sort": "largest"}):
        yield lambda query=query: render_page(datasets, read_query(query))
    if datasets.is_open:
        dataset = datasets.opened
        for row in dataset.rows:
            yield partial(render_row, datasets, Subject(dataset.name, row.key), shown_file="")
        yield lambda: statistics_html(summarise(dataset.rows, bucket_of=dataset.bucket_words))
        yield lambda: doctor_html(datasets, make_report(dataset))


def kinds(user_data: UserData) -> dict[str, list[Path]]:
    """Every file by its kind, so that each kind has its turn, however many there are of it."""
    found: dict[str, list[Path]] = {}
    for path in sorted(user_data.root.rglob("*")):
        if path.is_file():
            numbered = re.sub(r"\d+", "0", path.name)
            found.setdefault(f"{path.relative_to(user_data.root).parts[0]}/{numbered}", []).append(path)
    return found


def change(path: Path, rng: random.Random) -> None:
    """Damage one file, by bytes or, of what is made of names and values, by one value."""
    content = path.read_bytes()
    kind = rng.choice(("bytes", "value", "value", "value", "empty", "zeros", "folder"))
    if kind == "value" and content.startswith(b"SQLite"):
        change_cell(path, rng)
    elif kind == "value" and path.suffix in (".json", ".jsonl"):
        lines = [content] if path.suffix == ".json" else content.splitlines()
        number = rng.randrange(len(lines))
        lines[number] = json.dumps(with_odd_value(json.loads(lines[number]), rng)).encode()
        path.write_bytes(b"\n".join(lines) + b"\n")
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_bytes({"empty": b"", "zeros": bytes(len(content))}.get(kind) or mutated(content or b"x", rng))


def with_odd_value(value: object, rng: random.Random) -> object:
    """The same with another value somewhere in it."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        return {**value, key: with_odd_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.9:
        number = rng.randrange(len(value))
        return [*value[:number], with_odd_value(value[number], rng), *value[number + 1 :]]
    return rng.choice(ODD)


def change_cell(path: Path, rng: random.Random) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        tables = [name for (name,) in connection.execute("select name from sqlite_master where type = 'table'")]
        table = rng.choice([name for name in tables if not name.startswith("sqlite")])
        columns = [row[1] for row in connection.execute(f"pragma table_info({table})")]
        value = rng.choice(["", "x", -1, 0, 1e308, 2**62, "0001-01-01"])
        with contextlib.suppress(sqlite3.Error):  # the table's own rules
            connection.execute(f"update {table} set {rng.choice(columns)} = ?", (value,))


@contextlib.contextmanager
def restored(path: Path) -> Iterator[None]:
    """Put the file back afterwards, with its times."""
    content, stat = path.read_bytes(), path.stat()
    try:
        yield
    finally:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_the_page_of_a_whole_folder_has_nothing_to_complain_of(place: UserData) -> None:
    said = " ".join(look_at_everything(place))
    assert "cannot be" not in said
    assert "No runs yet" not in said
    assert "No batches yet" not in said


def test_whatever_happened_to_a_file_every_tab_answers(place: UserData) -> None:
    rng = random.Random(19)
    by_kind = kinds(place)
    assert len(by_kind) > 25, sorted(by_kind)
    for number in range(NUM_TRIES):
        kind = sorted(by_kind)[number % len(by_kind)]
        path = rng.choice(by_kind[kind])
        with restored(path):
            change(path, rng)
            damaged = path.read_bytes()[:400] if path.is_file() else "a folder"
            for said in look_at_everything(place):
                assert "should not have happened" not in said, (number, path, damaged)
