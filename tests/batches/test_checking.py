"""Every row is looked at before a plan stands: what is refused, and what is not."""

from pathlib import Path

import pytest

from studio.core.errors import BatchError
from studio.core.settings import GenerationSettings
from tests.batches.plans import plan_of

TOO_MANY = "Steps [(]num_inference_steps[)] must be at most 50 with the scheduler LCM, got 60"
LCM = {"prompt": "", "scheduler": "LCM", "num_inference_steps": 8}
SIXTY = {"prompt": "", "num_inference_steps": 60}


def table(folder: Path, text: str) -> str:
    file = folder / "shoes.csv"
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"prompts": "red shoe\nblue shoe --s 60", "generation": LCM}, "prompts line 2"),
        ({"prompts": "red shoe", "attributes": "steps: 8, 60", "generation": LCM}, "prompts line 1"),
        ({"prompts": "red shoe", "attributes": "scheduler: DDIM, LCM", "generation": SIXTY}, "prompts line 1"),
        ({"prompts": "red shoe", "attributes": "scheduler: DDIM, LCM\nsteps: 8, 60"}, "prompts line 1"),
        ({"prompts": "red shoe\nblue shoe --s 60", "attributes": "scheduler: DDIM, LCM"}, "prompts line 2"),
    ],
)
def test_values_that_meet_and_do_not_fit_are_refused_before_the_plan_stands(
    values: dict[str, object], place: str
) -> None:
    with pytest.raises(BatchError, match=f"{place}: {TOO_MANY}"):
        plan_of(**values)


@pytest.mark.parametrize(
    ("rows", "values", "line"),
    [
        ("prompt,steps\nred shoe,8\nblue shoe,60\n", {"generation": LCM}, 3),
        ("colour,scheduler\nred,DDIM\nblue,LCM\n", {"prompts": "a {colour} shoe --s 60"}, 3),
        ("colour,scheduler\nred,DDIM\nblue,LCM\n", {"prompts": "a {colour} shoe", "generation": SIXTY}, 3),
        ("colour,scheduler\nred,DDIM\nblue,LCM\n", {"prompts": "a {colour} shoe", "attributes": "steps: 8, 60"}, 3),
    ],
)
def test_values_of_tables_that_meet_and_do_not_fit_are_refused(
    rows: str, values: dict[str, object], line: int, tmp_path: Path
) -> None:
    with pytest.raises(BatchError, match=rf"shoes\.csv line {line}: {TOO_MANY}"):
        plan_of(prompt_file=table(tmp_path, rows), **values)


@pytest.mark.parametrize(
    "values",
    [
        {"prompts": "red shoe --s 8", "attributes": "scheduler: LCM", "generation": SIXTY},
        {"prompts": "red shoe --s 60", "attributes": "scheduler: DDIM", "generation": LCM},
        {"prompts": "red shoe", "attributes": "scheduler: LCM\nsteps: 4, 8", "generation": SIXTY},
    ],
)
def test_values_that_never_meet_are_not_refused(values: dict[str, object]) -> None:
    plan = plan_of(**values)
    assert all(plan.item(index).generation for index in range(plan.num_items))


def test_lines_that_all_give_their_steps_let_a_table_choose_any_scheduler(tmp_path: Path) -> None:
    file = table(tmp_path, "colour,scheduler\nred,LCM\n")
    plan = plan_of(prompts="a {colour} shoe --s 8", prompt_file=file, generation=SIXTY)
    assert plan.item(0).generation.num_inference_steps == 8


@pytest.mark.parametrize(
    ("column", "words"), [("steps: 8, 0", "between 1 and 150"), ("scheduler: Eule", "Scheduler must be")]
)
def test_a_value_that_no_setting_takes_is_refused_by_its_column(column: str, words: str) -> None:
    with pytest.raises(BatchError, match=f"attributes, {column.split(':')[0]}: .*{words}"):
        plan_of(prompts="red shoe", attributes=column)


def test_what_acts_otherwise_than_in_a1111_is_a_note_of_the_plan_and_no_word_of_a_caption() -> None:
    long = "boots, " * 50
    shared = GenerationSettings(prompt="", negative_prompt="[a|b]")
    prompts = f"a [cat:dog:0.5]\nshoe\n{{boot|shoe}} AND [red:blue:2]\n{long}\n{long}x\na BREAK b <lyco:ink:0.5>"
    plan = plan_of(prompts=prompts, generation=shared)
    assert [note[:39] for note in plan.notes] == [
        "negative_prompt: [a|b] alternates betwe",
        "prompts line 1: [a:b:0.5] changes the p",
        "prompts line 3: AND combines several pr",
        "prompts line 4: Cut off after 75 tokens",
    ]
    assert plan.notes[1].endswith("Lines like it: 2.")
    captions = [plan.item(i).caption for i in range(plan.num_items)]
    assert captions[:2] == ["a cat dog", "shoe"]
    assert captions[2] == "boot and red blue"
    assert captions[-1] == "a b"
    shared = GenerationSettings(prompt="", long_prompt=True)
    assert not plan_of(prompts=long, generation=shared).notes
