"""What is rejected, tried again and given up; the same items give the same images whatever else is made."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from studio.batches.folder import BatchFolder
from studio.batches.torch.image import derived_seed
from studio.batches.torch.run import run_batch
from studio.core.errors import BatchError, ModelError
from studio.core.paths import UserData
from studio.engine import pipeline
from studio.jobs.folder import read_status
from tests.batches.torch.made import begun, lines, made, rejections, rows


def poison(monkeypatch: pytest.MonkeyPatch, is_bad: Callable[[int], bool]) -> None:
    """NaN in the first channel of what the decoder gives, at calls (from 1) of the caller's choice."""
    decode, calls = pipeline.decode, [0]

    def poisoned(*args: object) -> torch.Tensor:
        decoded: torch.Tensor = decode(*args)  # type: ignore[arg-type]
        calls[0] += 1
        if is_bad(calls[0]):
            decoded[0, 0, 0] = torch.nan
        return decoded

    monkeypatch.setattr(pipeline, "decode", poisoned)


def pixels(folder: BatchFolder) -> dict[int, str]:
    return {row.item: row.content for row in rows(folder)}


def test_an_invalid_picture_is_tried_again_with_another_seed_and_a_copy_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda call: call == 3)
    folder = made(tmp_path)
    third = rows(folder)[2]
    assert (third.state, third.attempts, third.seed) == ("done", 2, derived_seed(9, 1))
    assert [row.attempts for row in rows(folder)] == [1, 1, 2, 1, 1, 1]
    (rejected,) = rejections(folder)
    assert (rejected.item, rejected.attempt, rejected.seed) == (2, 0, 9)
    assert (folder.root / rejected.file).is_file()
    assert lines(folder)[2]["seed"] == derived_seed(9, 1)


def test_an_item_whose_tries_are_used_up_is_failed_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda call: call in (2, 3, 4))
    folder = made(tmp_path, max_retries=2)
    assert [row.state for row in rows(folder)] == ["done", "failed", "done", "done", "done", "done"]
    assert len(lines(folder)) == 5
    assert not folder.picture(1, "png").exists()
    assert "5 images are made; 1 failed" in read_status(folder).message
    assert "| 1 | 3 | The decoded check failed" in folder.report.read_text(encoding="utf-8")


def test_a_low_score_is_rejected_and_its_picture_kept_aside(tmp_path: Path) -> None:
    folder = made(tmp_path, least_whiteness=1.0, max_retries=1, total=2)
    assert [row.state for row in rows(folder)] == ["failed", "failed"]
    assert [(r.item, r.attempt) for r in rejections(folder)] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert "at least 1 is required" in rejections(folder)[0].reason
    assert all((folder.root / rejected.file).is_file() for rejected in rejections(folder))
    assert lines(folder) == []
    assert "0 of 2 images are made and valid; 2 failed" in folder.report.read_text(encoding="utf-8")


SAME = {"prompts": "a red boot --d 5\na red boot --d 5\na brown boot --d 5", "attributes": ""}


def test_copies_are_kept_where_nothing_else_is_asked(tmp_path: Path) -> None:
    contents = [row.content for row in rows(made(tmp_path, **SAME))]
    assert contents[0] == contents[1] != contents[2]


def test_a_copy_is_made_again_with_another_seed(tmp_path: Path) -> None:
    folder = made(tmp_path, **SAME, reject_copies=True)
    contents = [row.content for row in rows(folder)]
    assert len(set(contents)) == 3
    assert [row.attempts for row in rows(folder)] == [1, 2, 1]
    (rejected,) = rejections(folder)
    assert "shows the same" in rejected.reason
    assert (folder.root / rejected.file).is_file()
    assert lines(folder)[1]["seed"] == derived_seed(5, 1)


def test_a_copy_whose_tries_are_used_up_fails_and_is_no_part_of_the_dataset(tmp_path: Path) -> None:
    folder = made(tmp_path, **SAME, reject_copies=True, max_retries=0)
    assert [row.state for row in rows(folder)] == ["done", "failed", "done"]
    assert len(lines(folder)) == 2
    assert not folder.picture(1, "png").exists()


def test_near_duplicates_are_told_by_their_perceptual_hash(tmp_path: Path) -> None:
    kept = [row.state for row in rows(made(tmp_path, near_duplicate_bits=32, max_retries=0))]
    assert kept[0] == "done"
    assert "failed" in kept


def test_the_same_item_gives_the_same_picture_whatever_is_made_before_it(tmp_path: Path) -> None:
    six, four = (
        made(tmp_path, name="six"),
        made(tmp_path, name="four", attributes="colour: red, brown\ntype: boots, sneakers"),
    )
    by_caption = {line["text"]: line["sha256"] for line in lines(six) if line["seed"] in (7, 8)}
    assert {line["text"]: line["sha256"] for line in lines(four) if line["seed"] in (7, 8)} == by_caption


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"model": "nowhere/"}, ModelError, "nowhere"),
        ({"nearest_to": "no-dataset"}, Exception, "no-dataset"),
    ],
)
def test_what_no_picture_can_be_made_with_ends_the_batch_with_its_reason(
    changes: dict[str, object], error: type[Exception], words: str, tmp_path: Path
) -> None:
    folder = begun(tmp_path, **changes)
    with pytest.raises(error, match=words):
        run_batch(folder, UserData(tmp_path))
    status = read_status(folder)
    assert status.state == "failed"
    assert words in status.message


def test_a_lora_that_is_not_there_is_said_before_anything_begins(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match="Item 1 cannot be made: There is no LoRA named no such"):
        begun(tmp_path, prompts="a boot\na boot <lora:no such:1>", attributes="")
    assert not (tmp_path / "batches").exists()


def test_a_ledger_that_is_no_database_is_said(tmp_path: Path) -> None:
    folder = begun(tmp_path)
    folder.ledgers.mkdir()
    (folder.ledgers / "process-0.db").write_bytes(b"not a database" * 100)
    with pytest.raises(BatchError, match="cannot be"):
        run_batch(folder, UserData(tmp_path))
