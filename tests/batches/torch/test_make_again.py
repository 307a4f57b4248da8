"""Images that a person wants other ones for are made when the batch goes on; those that they rejected are not."""

from pathlib import Path

from studio.batches.plan import open_plan
from studio.batches.review import decide
from studio.batches.torch.image import derived_seed
from studio.batches.torch.run import run_batch
from studio.core.paths import UserData
from studio.jobs.folder import read_status
from tests.batches.torch.made import lines, made, rejections, rows


def test_another_image_has_another_seed_and_a_rejected_one_stays_away(tmp_path: Path) -> None:
    folder = made(tmp_path, total=3, max_retries=0)
    before = rows(folder)
    plan = open_plan(folder.plan)
    decide(folder, plan, 0, "again")
    decide(folder, plan, 1, "reject")
    assert run_batch(folder, UserData(tmp_path)) == "finished"
    after = rows(folder)
    assert [row.state for row in after] == ["done", "rejected", "done"]
    assert (after[0].attempts, after[0].seed) == (2, derived_seed(before[0].seed, 1))
    assert after[0].content != before[0].content
    assert after[2] == before[2]
    assert [line["seed"] for line in lines(folder)] == [after[0].seed, after[2].seed]
    assert read_status(folder).message == "2 images are made."
    (replaced,) = rejections(folder)
    assert (replaced.item, replaced.attempt, replaced.reason) == (0, 0, "Another image was asked for.")
    assert (folder.root / replaced.file).is_file()


def test_where_no_other_is_taken_the_one_of_before_can_still_be_kept(tmp_path: Path) -> None:
    folder = made(tmp_path, total=1)
    settings = folder.settings.read_text(encoding="utf-8")
    plan = open_plan(folder.plan)
    decide(folder, plan, 0, "again")
    strict = settings.replace('"least_whiteness": null', '"least_whiteness": 1.0')
    folder.settings.write_text(strict.replace('"max_retries": 3', '"max_retries": 1'), encoding="utf-8")
    run_batch(folder, UserData(tmp_path))
    (row,) = rows(folder)
    assert (row.state, row.attempts) == ("rejected", 2)
    assert row.reason.startswith("No other was taken: Its border whiteness is")
    decide(folder, plan, 0, "keep")
    assert folder.picture(0, "png").is_file()
    assert len(lines(folder)) == 1
