"""What a person decides of a batch's images: the dataset follows at once, and all of it can be taken back."""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from studio.batches.folder import BatchFolder, begin_batch, read_batch_settings
from studio.batches.ledger import ItemFacts, ItemRow, Ledger, RejectionRow, item_keys, read_items
from studio.batches.outputs import tidy, write_metadata, write_sheets
from studio.batches.plan import BatchPlan, open_plan
from studio.batches.report import write_report
from studio.batches.review import PER_PAGE, SCORES, ReviewQuery, decide, review, scores_by_key
from studio.batches.session import BatchSession
from studio.batches.settings import BatchSettings
from studio.core.errors import BatchError
from studio.core.paths import UserData
from studio.images.scores.image import score_picture
from studio.jobs.folder import RunState, RunStatus, write_status


@pytest.fixture
def folder(tmp_path: Path) -> BatchFolder:
    """A finished batch: items 0 to 2 are made, each with a whiter border; 3 failed after one try."""
    settings = BatchSettings(prompts="{colour} boots", attributes="colour: black, red", images_per_prompt=2)
    batch = begin_batch(settings.model_copy(update={"text_sidecars": True}), UserData(tmp_path))
    write_status(batch, RunStatus(state="finished", step=4, num_steps=4))
    batch.ledgers.mkdir()
    noted = Ledger(batch.ledgers / "process-0.db")
    for item in range(3):
        noted.add(made(batch, item))
    noted.add(ItemRow(item=3, state="failed", seed=1, attempts=1, seconds=1, made_at="2026-3", reason="too grey"))
    noted.reject(RejectionRow(item=3, attempt=0, seed=1, reason="too grey", file="rejected/3.png", made_at="2026"))
    noted.close()
    write_metadata(batch, plan_of(batch))
    write_report(batch, plan_of(batch), finished=True)
    return batch


def made(batch: BatchFolder, item: int) -> ItemRow:
    path = batch.picture(item, "png")
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (64, 64), "white")
    image.paste((0, 0, 0), (0, 0, 64, 60 - 20 * item))
    image.save(path)
    path.with_suffix(".txt").write_text("boots\n", encoding="utf-8")
    facts = ItemFacts(scores=score_picture(np.asarray(image))).model_dump_json()
    file = path.relative_to(batch.root).as_posix()
    return ItemRow(
        item=item, state="done", file=file, seed=item, attempts=1, seconds=1, made_at=f"2026-{item}", facts=facts
    )


def plan_of(batch: BatchFolder) -> BatchPlan:
    return open_plan(batch.plan)


def names(batch: BatchFolder) -> list[str]:
    """What the dataset's table names."""
    return [json.loads(line)["file_name"] for line in batch.metadata.read_text(encoding="utf-8").splitlines()]


def states(batch: BatchFolder) -> list[str]:
    return [row.state for row in read_items(batch.ledgers)]


def shown(batch: BatchFolder, state: str = "all", sort: str = "number") -> list[int]:
    return [image.item for image in review(batch, lambda: plan_of(batch), ReviewQuery(state, sort)).images]


def test_a_rejected_image_leaves_the_dataset_with_its_caption_and_comes_back_as_it_was(folder: BatchFolder) -> None:
    path, before = folder.picture(1, "png"), list(read_items(folder.ledgers))
    content = path.read_bytes()
    decide(folder, plan_of(folder), 1, "reject")
    assert names(folder) == ["0000/0000000.png", "0000/0000002.png"]
    assert not path.exists()
    assert not path.with_suffix(".txt").exists()
    assert (folder.root / "rejected" / "0000001-try1.png").read_bytes() == content
    assert "2 of 4 images are made and valid; 1 failed; 1 rejected by you" in folder.report.read_text("utf-8")
    tidy(folder, 4)
    decide(folder, plan_of(folder), 1, "keep")
    assert path.read_bytes() == content
    assert path.with_suffix(".txt").is_file()
    assert names(folder) == [f"0000/000000{item}.png" for item in range(3)]
    assert list(read_items(folder.ledgers)) == before


def test_an_image_to_be_made_again_waits_outside_the_dataset_and_can_still_be_kept(folder: BatchFolder) -> None:
    for item in (0, 3):
        decide(folder, plan_of(folder), item, "again")
    assert states(folder) == ["again", "done", "done", "again"]
    assert names(folder) == ["0000/0000001.png", "0000/0000002.png"]
    assert "2 are still to be made" in folder.report.read_text("utf-8")
    decide(folder, plan_of(folder), 0, "reject")
    decide(folder, plan_of(folder), 0, "keep")
    assert states(folder) == ["done", "done", "done", "again"]
    with pytest.raises(BatchError, match="There is no image #3 to keep"):
        decide(folder, plan_of(folder), 3, "keep")


def test_while_a_batch_is_made_its_table_is_left_to_it(folder: BatchFolder) -> None:
    write_status(folder, RunStatus(state="running", step=3, num_steps=4))
    decide(folder, plan_of(folder), 0, "reject")
    assert states(folder)[0] == "rejected"
    assert len(names(folder)) == 3
    write_status(folder, RunStatus(state="preparing", step=3, num_steps=4))
    with pytest.raises(BatchError, match="Try again when it runs"):
        decide(folder, plan_of(folder), 0, "keep")


@pytest.mark.parametrize(("item", "decision"), [(4, "reject"), (0, "delete"), (3, "reject")])
def test_what_cannot_be_decided_is_refused(folder: BatchFolder, item: int, decision: str) -> None:
    with pytest.raises(BatchError):
        decide(folder, plan_of(folder), item, decision)
    assert states(folder) == ["done", "done", "done", "failed"]


def test_images_are_found_by_state_and_sorted_by_score_with_those_without_one_last(folder: BatchFolder) -> None:
    assert shown(folder, sort="newest") == [3, 2, 1, 0]
    assert shown(folder, sort="whiteness best") == [2, 1, 0, 3]
    assert shown(folder, sort="whiteness worst") == [0, 1, 2, 3]
    decide(folder, plan_of(folder), 2, "reject")
    assert (shown(folder, "rejected"), shown(folder, "done"), shown(folder, "failed")) == ([2], [0, 1], [3])
    page = review(folder, lambda: plan_of(folder), ReviewQuery("takes"))
    assert [(image.item, image.reason, image.is_take) for image in page.images] == [(3, "too grey", True)]
    assert page.counts == {"all": 4, "done": 2, "rejected": 1, "failed": 1, "takes": 1}


def of_value(batch: BatchFolder, column: str, value: str, state: str = "all") -> list[int]:
    query = ReviewQuery(state, "number", value=(column, value))
    return [image.item for image in review(batch, lambda: plan_of(batch), query).images]


def test_images_are_found_by_a_value_of_a_column(folder: BatchFolder) -> None:
    assert (of_value(folder, "colour", "black"), of_value(folder, "colour", "red")) == ([0, 1], [2, 3])
    assert (of_value(folder, "colour", "red", "failed"), of_value(folder, "colour", "black", "takes")) == ([3], [])
    decide(folder, plan_of(folder), 0, "again")
    page = review(folder, lambda: plan_of(folder), ReviewQuery(value=("colour", "red")))
    assert page.values == {"colour": ("black", "red")}
    assert (page.counts["all"], page.counts["takes"], page.num_again) == (2, 1, 1)


@pytest.mark.parametrize("value", [("colour", "blue"), ("no such", "red"), ("", "")])
def test_a_value_that_there_is_not_hides_nothing(folder: BatchFolder, value: tuple[str, str]) -> None:
    page = review(folder, lambda: plan_of(folder), ReviewQuery(value=value))
    assert (len(page.images), page.query.value) == (4, None)


def test_every_score_is_where_it_is_looked_for_and_a_damaged_one_is_none(folder: BatchFolder) -> None:
    facts = ItemFacts.model_validate_json(next(iter(read_items(folder.ledgers))).facts)
    assert facts.scores is not None
    found = {name: item_keys(folder.ledgers, score=path)[0].score for name, (path, _) in SCORES.items()}
    assert found == {
        "whiteness": facts.scores.border.whiteness,
        "sharpness": facts.scores.sharpness,
        "colour": None,
        "centring": facts.scores.centring.offset if facts.scores.centring else None,
        "distance": None,
    }
    noted = Ledger(folder.ledgers / "process-0.db")
    noted.add(made(folder, 0).model_copy(update={"facts": "{"}))
    noted.close()
    assert shown(folder, sort="whiteness best") == [2, 1, 0, 3]


def test_a_page_past_the_end_is_the_last_one(folder: BatchFolder) -> None:
    noted = Ledger(folder.ledgers / "process-0.db")
    noted.close()
    page = review(folder, lambda: plan_of(folder), ReviewQuery(page=9))
    assert (page.query.page, page.num_pages, len(page.images)) == (1, 1, 4)
    assert PER_PAGE >= 4


@pytest.mark.parametrize("state", ["stopped", "paused", "finished"])
def test_a_caption_that_is_not_there_moves_with_nothing(folder: BatchFolder, state: RunState) -> None:
    write_status(folder, RunStatus(state=state, step=3, num_steps=4))
    folder.picture(0, "png").with_suffix(".txt").unlink()
    decide(folder, plan_of(folder), 0, "reject")
    assert len(names(folder)) == 2


def test_an_image_that_is_gone_is_not_rejected_and_can_be_made_again(folder: BatchFolder) -> None:
    folder.picture(0, "png").unlink()
    with pytest.raises(BatchError, match="is gone"):
        decide(folder, plan_of(folder), 0, "reject")
    assert states(folder)[0] == "done"
    decide(folder, plan_of(folder), 0, "again")
    assert states(folder)[0] == "again"


def wait_for(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "it was not done in time"
        time.sleep(0.02)


def sheet_of(batch: BatchFolder) -> bytes:
    return batch.contact_sheet.read_bytes() if batch.contact_sheet.is_file() else b""


def test_the_sheets_follow_what_was_decided_once_and_apart(folder: BatchFolder) -> None:
    session = BatchSession(UserData(folder.root.parent.parent))
    write_sheets(folder, read_batch_settings(folder), plan_of(folder))
    before = sheet_of(folder)
    assert not session.view(folder.name).active
    for item in (1, 2):
        session.decide(folder, item, "reject")
    assert sheet_of(folder) == before, "no press waits for it"
    assert session.view(folder.name).active, "the page looks again, so that it shows the new one"
    wait_for(lambda: not session.sheets.is_making(folder))
    with Image.open(folder.contact_sheet) as one_image:
        assert one_image.width < Image.open(io.BytesIO(before)).width
    session.decide(folder, 1, "keep")
    session.decide(folder, 2, "keep")
    wait_for(lambda: not session.sheets.is_making(folder))
    assert sheet_of(folder) == before


def test_the_sheets_of_a_batch_that_runs_are_left_to_its_run(folder: BatchFolder) -> None:
    session = BatchSession(UserData(folder.root.parent.parent))
    write_status(folder, RunStatus(state="running", num_steps=4))
    session.decide(folder, 1, "reject")
    wait_for(lambda: not session.sheets.is_making(folder))
    assert sheet_of(folder) == b""


def test_scores_are_found_by_the_keys_of_the_dataset(folder: BatchFolder) -> None:
    found = scores_by_key(folder)
    assert len(found) == 3
    assert all((folder.dataset / key).is_file() for key in found)
    whitest = max(found, key=lambda key: found[key].border.whiteness)
    assert whitest == folder.picture(2, "png").relative_to(folder.dataset).as_posix()
    decide(folder, plan_of(folder), 2, "reject")
    assert len(scores_by_key(folder)) == 2
