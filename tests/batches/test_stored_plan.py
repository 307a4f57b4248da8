"""A plan in its folder."""

import json
from pathlib import Path

import pytest

from studio.batches.plan import BatchPlan, make_plan, open_plan
from studio.batches.plan_files import LINES, PLAN, RECORDS, VARIANTS, WILDCARDS
from studio.batches.settings import BatchSettings
from studio.core.errors import BatchError
from tests.batches.plans import prompts_of, settings_of, store_plan, wildcard_folder


@pytest.fixture
def wild(tmp_path: Path) -> Path:
    return wildcard_folder(tmp_path / "wild", c="red\nblue", unused="x", d="__c__ sole")


@pytest.fixture
def settings(tmp_path: Path) -> BatchSettings:
    (tmp_path / "p.csv").write_text("kind,width\nboot,64\nshoe,128\n", encoding="utf-8")
    return settings_of(prompts="a {kind}, __d__ {x|y}", prompt_file=str(tmp_path / "p.csv"), total=11)


@pytest.fixture
def folder(tmp_path: Path, wild: Path, settings: BatchSettings) -> Path:
    store_plan(settings, wildcards=wild, folder=tmp_path / "plan")
    return tmp_path / "plan"


def items_of(plan: BatchPlan) -> list[str]:
    return [plan.item(index).model_dump_json() for index in range(plan.num_items)]


def test_a_plan_is_opened_as_it_was_stored(folder: Path, wild: Path, settings: BatchSettings) -> None:
    opened, made = open_plan(folder), make_plan(settings, wildcards=wild)
    assert items_of(opened) == items_of(made)
    assert (opened.digest, opened.notes, opened.columns) == (made.digest, made.notes, made.columns)
    assert opened.value_counts() == made.value_counts()


def test_edits_of_the_sources_change_nothing(folder: Path, wild: Path, tmp_path: Path) -> None:
    before = items_of(open_plan(folder))
    (tmp_path / "p.csv").write_text("kind,width\nclog,64\n", encoding="utf-8")
    (wild / "c.txt").write_text("green", encoding="utf-8")
    (wild / "d.txt").unlink()
    assert items_of(open_plan(folder)) == before


def test_only_the_wildcards_that_are_used_are_kept(folder: Path) -> None:
    assert set(json.loads((folder / WILDCARDS).read_text(encoding="utf-8"))) == {"c", "d"}


@pytest.mark.parametrize("name", [LINES, RECORDS, VARIANTS, WILDCARDS])
def test_a_file_that_was_changed_is_noticed(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    at = content.rfind(b"red") if name == WILDCARDS else content.rfind(b"o") if name != VARIANTS else 0
    content[at] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(BatchError, match=r"The plan in .*plan was changed after it was made"):
        open_plan(folder)


def test_settings_that_were_changed_are_noticed(folder: Path) -> None:
    text = (folder / PLAN).read_text(encoding="utf-8")
    assert '"total": 11' in text
    (folder / PLAN).write_text(text.replace('"total": 11', '"total": 12'), encoding="utf-8")
    with pytest.raises(BatchError, match="was changed after it was made"):
        open_plan(folder)


@pytest.mark.parametrize("name", [PLAN, LINES, VARIANTS, WILDCARDS])
def test_a_file_that_is_gone_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BatchError, match=f"There is no whole plan in .*plan: {name} is not there"):
        open_plan(folder)


def test_rows_that_are_gone_are_noticed(folder: Path) -> None:
    (folder / RECORDS).unlink()
    with pytest.raises(BatchError, match="was changed after it was made"):
        open_plan(folder)


def test_half_a_plan_is_damaged(folder: Path) -> None:
    (folder / PLAN).write_bytes((folder / PLAN).read_bytes()[:100])
    with pytest.raises(BatchError, match=r"is damaged, or of another version. Plan the batch again"):
        open_plan(folder)


def test_a_folder_with_a_plan_takes_no_other(folder: Path, settings: BatchSettings, wild: Path) -> None:
    before = (folder / PLAN).read_bytes()
    with pytest.raises(BatchError, match="has a plan already"):
        store_plan(settings, wildcards=wild, folder=folder)
    assert (folder / PLAN).read_bytes() == before


def test_what_cannot_be_planned_leaves_no_plan_and_no_half_files(tmp_path: Path, wild: Path) -> None:
    with pytest.raises(BatchError, match="line 2"):
        store_plan(settings_of(prompts="a\n{b"), wildcards=wild, folder=tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_records_of_an_attempt_that_ended_early_are_not_taken_over(tmp_path: Path, wild: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / RECORDS).write_text('[1,2,"",{},["x"]]\n', encoding="utf-8")
    assert prompts_of(store_plan(settings_of(prompts="a"), wildcards=wild, folder=other)) == ["a"]
