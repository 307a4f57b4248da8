"""Which images a plan makes."""

import hashlib
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from studio.core.errors import BatchError
from studio.core.settings import SEED_MAX, GenerationSettings, LoraChoice
from tests.batches.plans import SHARED, counts_by_hand, plan_of, prompts_of, settings_of, store_plan, wildcard_folder

SHOES = {"prompts": "a {colour} {type}", "attributes": "colour: black, brown, white\ntype: boot, sandal"}


def spread(counts: "Counter[tuple[str, ...]]") -> int:
    return max(counts.values()) - min(counts.values())


def test_every_combination_comes_once_and_the_last_column_changes_first() -> None:
    assert prompts_of(plan_of(**SHOES)) == [
        "a black boot",
        "a black sandal",
        "a brown boot",
        "a brown sandal",
        "a white boot",
        "a white sandal",
    ]


def test_attributes_that_no_prompt_names_are_still_told() -> None:
    plan = plan_of(prompts="a shoe", attributes="type: boot, sandal")
    assert [plan.item(i).attributes for i in range(2)] == [{"type": "boot"}, {"type": "sandal"}]


def test_copies_of_a_prompt_stand_side_by_side() -> None:
    assert prompts_of(plan_of(prompts="a\nb", images_per_prompt=3)) == ["a", "a", "a", "b", "b", "b"]


def test_item_i_has_the_shared_seed_plus_i() -> None:
    plan = plan_of(prompts="a\nb", images_per_prompt=2, generation=SHARED)
    assert [plan.item(i).generation.seed for i in range(4)] == [100, 101, 102, 103]


def test_seeds_begin_again_at_zero_behind_the_greatest() -> None:
    plan = plan_of(prompts="a", images_per_prompt=2, generation=GenerationSettings(prompt="", seed=SEED_MAX))
    assert [plan.item(i).generation.seed for i in range(2)] == [SEED_MAX, 0]


def test_an_own_seed_goes_on_from_copy_to_copy() -> None:
    plan = plan_of(prompts="a --d 7\nb", images_per_prompt=2, generation=SHARED)
    assert [plan.item(i).generation.seed for i in range(4)] == [7, 8, 102, 103]


def test_an_own_seed_goes_on_through_every_round() -> None:
    plan = plan_of(prompts="a --d 7", images_per_prompt=2, total=5)
    assert [plan.item(i).generation.seed for i in range(5)] == [7, 8, 9, 10, 11]


def test_a_grid_is_a_plan_with_two_columns_that_are_settings() -> None:
    plan = plan_of(prompts="a", attributes="steps: 5, 10\nseed: 1, 2, 3", grid_x="steps", grid_y="seed")
    found = [(i.generation.num_inference_steps, i.generation.seed) for i in map(plan.item, range(6))]
    assert found == [(5, 1), (5, 2), (5, 3), (10, 1), (10, 2), (10, 3)]


def test_loras_of_a_column_join_the_shared_ones() -> None:
    shared = GenerationSettings(prompt="", loras=(LoraChoice(name="ink"),))
    plan = plan_of(prompts="a", attributes='lora: "", wash:0.5', generation=shared)
    assert [[choice.name for choice in plan.item(i).generation.loras] for i in range(2)] == [["ink"], ["ink", "wash"]]


def test_captions_are_the_words_alone() -> None:
    plan = plan_of(prompts="a (red:1.3) [shoe] <lora:ink:0.5>")
    assert plan.item(0).generation.prompt == "a (red:1.3) [shoe] <lora:ink:0.5>"
    assert plan.item(0).caption == "a red shoe"


def test_an_empty_value_leaves_no_gap() -> None:
    assert prompts_of(plan_of(prompts="a {age}, {colour} shoe", attributes='age: ""\ncolour: red')) == ["a, red shoe"]


def test_wildcards_count_as_variants(tmp_path: Path) -> None:
    plan = plan_of(wildcard_folder(tmp_path, c="red\nblue"), prompts="a __c__ {shoe|boot}")
    assert prompts_of(plan) == ["a blue shoe", "a blue boot", "a red shoe", "a red boot"]


def test_a_folder_of_wildcards_may_be_named(tmp_path: Path) -> None:
    folder = wildcard_folder(tmp_path / "w", c="red")
    assert prompts_of(plan_of(prompts="__c__", wildcards=str(folder))) == ["red"]


@pytest.mark.parametrize("total", [1, 5, 7, 12, 50, 59])
def test_a_total_below_the_number_of_prompts_is_spread_over_all_values(total: int) -> None:
    boxes = "colour: black, brown, white, red, blue\ntype: boot, sandal, clog\nage: new, worn"
    plan = plan_of(prompts="a {x|y}", attributes=boxes, total=total)
    assert plan.num_items == total
    for column, size in (("colour", 5), ("type", 3), ("age", 2)):
        counts = counts_by_hand(plan, column)
        assert max(counts.values()) - (min(counts.values()) if len(counts) == size else 0) <= 1


def test_a_total_below_the_number_of_prompts_repeats_none() -> None:
    boxes = "a: 1, 2, 3, 4, 5, 6, 7\nb: 1, 2, 3, 4, 5"
    plan = plan_of(prompts="x {a} {b}\ny {a} {b}", attributes=boxes, total=50)
    assert len(set(prompts_of(plan))) == 50


def test_two_columns_do_not_run_in_step_in_a_part_of_the_combinations() -> None:
    boxes = "a: 1, 2\nb: 1, 2, 3\nc: 1, 2\nd: 1, 2, 3, 4, 5"
    pairs = counts_by_hand(plan_of(prompts="x", attributes=boxes, total=24), "a", "c")
    assert len(pairs) == 4
    assert spread(pairs) <= 4


def test_a_total_above_the_number_of_prompts_goes_round_again_with_other_seeds() -> None:
    plan = plan_of(prompts="a\nb", total=5)
    assert prompts_of(plan)[:4] == ["a", "b", "a", "b"]
    assert len({plan.item(i).generation.seed for i in range(5)}) == 5


def test_a_total_is_shared_evenly_between_the_prompts() -> None:
    plan = plan_of(prompts="a\nb\nc", images_per_prompt=2, total=16)
    assert sorted(Counter(prompts_of(plan)).values()) == [5, 5, 6]
    assert plan.notes == ("3 prompts do not divide 16 images evenly: each is drawn 5 or 6 times.",)


QUOTAS = "colour: black = 300, brown = 200, white = 100\ntype: boot = 350, sandal = 250\nage: new, worn"


@pytest.mark.parametrize("combine", ["every combination", "random"])
def test_quotas_are_exact(combine: str) -> None:
    plan = plan_of(prompts="a {colour} {type}, {x|y}", attributes=QUOTAS, combine=combine)
    assert plan.num_items == 600
    assert counts_by_hand(plan, "colour") == {("black",): 300, ("brown",): 200, ("white",): 100}
    assert counts_by_hand(plan, "type") == {("boot",): 350, ("sandal",): 250}


def test_quotas_do_not_run_in_step_with_each_other_or_with_prompts() -> None:
    plan = plan_of(prompts="a {colour} {type}\nb", attributes=QUOTAS)
    pairs = counts_by_hand(plan, "colour", "type")
    for (colour, kind), number in pairs.items():
        expected = {"black": 300, "brown": 200, "white": 100}[colour] * {"boot": 350, "sandal": 250}[kind] / 600
        assert abs(number - expected) <= 2
    starts = Counter((plan.item(i).attributes["colour"], plan.item(i).generation.prompt[0]) for i in range(600))
    assert all(abs(starts[colour, "a"] - starts[colour, "b"]) <= 2 for colour in ("black", "brown", "white"))


def test_the_first_part_of_a_plan_with_quotas_looks_like_the_whole() -> None:
    plan = plan_of(prompts="a", attributes=QUOTAS)
    first = Counter(plan.item(i).attributes["colour"] for i in range(60))
    assert abs(first["black"] - 30) <= 3
    assert abs(first["white"] - 10) <= 3


def test_values_are_drawn_by_weight_in_a_random_plan() -> None:
    plan = plan_of(prompts="a {3::x|y}", attributes="colour: black, 3::brown", combine="random", total=4000)
    limit = 4 * (4000 * 0.75 * 0.25) ** 0.5
    assert abs(counts_by_hand(plan, "colour")["brown",] - 3000) < limit
    assert abs(Counter(prompts_of(plan))["a x"] - 3000) < limit


def test_what_is_drawn_of_two_columns_has_nothing_to_do_with_each_other() -> None:
    plan = plan_of(prompts="x\ny", attributes="a: 1, 2\nb: 1, 2", combine="random", total=4000)
    assert all(abs(number - 1000) < 110 for number in counts_by_hand(plan, "a", "b").values())


def test_a_random_plan_has_a_picture_for_each_prompt_unless_a_total_says_more() -> None:
    assert plan_of(prompts="{a|b}\nc", combine="random", images_per_prompt=3).num_items == 6


def test_another_seed_draws_other_pictures() -> None:
    one, other = (
        plan_of(prompts="{a|b|c|d}", combine="random", total=50, generation=GenerationSettings(prompt="", seed=seed))
        for seed in (1, 2)
    )
    assert prompts_of(one) != prompts_of(other)


def test_a_random_item_is_the_same_in_a_longer_plan() -> None:
    few, many = (plan_of(prompts="{a|b}\n{c|d}", combine="random", total=total) for total in (5, 500))
    assert [few.item(i) for i in range(5)] == [many.item(i) for i in range(5)]


@pytest.mark.process
def test_two_processes_make_the_same_items() -> None:
    code = (
        "import sys, hashlib; from tests.batches.plans import plan_of\n"
        "plan = plan_of(prompts='a {colour} {x|y|z}', attributes='colour: red, 2::blue', combine='random', total=50)\n"
        "print(plan.digest, hashlib.sha256(''.join(plan.item(i).model_dump_json() for i in range(50)).encode())"
        ".hexdigest())"
    )
    plan = plan_of(prompts="a {colour} {x|y|z}", attributes="colour: red, 2::blue", combine="random", total=50)
    items = "".join(plan.item(i).model_dump_json() for i in range(49, -1, -1))  # in another order
    assert len(items) > 50
    mine = hashlib.sha256("".join(plan.item(i).model_dump_json() for i in range(50)).encode()).hexdigest()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [plan.digest, mine]


@pytest.mark.parametrize(
    "settings",
    [
        SHOES,
        {**SHOES, "total": 10, "images_per_prompt": 2},
        {**SHOES, "total": 5},
        {"prompts": "a\nb {x|y}", "attributes": QUOTAS},
        {**SHOES, "combine": "random", "total": 77},
    ],
)
def test_values_are_counted_as_items_have_them(settings: dict[str, object]) -> None:
    plan = plan_of(**settings)
    for column in plan.columns:
        assert plan.value_counts()[column] == {value: n for (value,), n in counts_by_hand(plan, column).items()}


def test_cells_are_counted_as_items_have_them(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,colour\na,red\n{b|c},blue\nd,red\n", encoding="utf-8")
    plan = plan_of(prompt_file=str(tmp_path / "p.csv"), total=7)
    counts = {value: n for (value,), n in counts_by_hand(plan, "colour").items()}
    assert plan.value_counts() == {"colour": counts}


def test_of_many_values_only_their_number_is_told(tmp_path: Path) -> None:
    rows = "".join(f"a,{i % 300},{i % 200}\n" for i in range(1000))
    (tmp_path / "p.csv").write_text("prompt,many,few\n" + rows, encoding="utf-8")
    counts = plan_of(prompt_file=str(tmp_path / "p.csv")).value_counts()
    assert counts["many"] == 300
    assert counts["few"] == {str(i): 5 for i in range(200)}


def test_examples_are_spread_over_the_plan() -> None:
    plan = plan_of(prompts="a {c}", attributes="c: " + ", ".join(map(str, range(100))))
    places = [item.index for item in plan.examples(10)]
    assert [place // 10 for place in places] == list(range(10))


def test_a_short_plan_is_its_own_examples() -> None:
    assert [item.index for item in plan_of(prompts="a\nb\nc").examples(10)] == [0, 1, 2]


def test_an_item_that_is_not_there_is_an_index_error() -> None:
    with pytest.raises(IndexError, match="between 0 and 1, got 2"):
        plan_of(prompts="a\nb").item(2)


def test_the_digest_changes_with_what_decides_the_items_and_with_nothing_else(tmp_path: Path) -> None:
    digest = plan_of(**SHOES).digest
    assert plan_of(**SHOES, name="other", model="elsewhere", max_retries=0).digest == digest
    others = [
        plan_of(**SHOES, total=5),
        plan_of(**{**SHOES, "prompts": "a {colour} {type}."}),
        plan_of(**SHOES, generation=SHARED),
    ]
    assert len({digest, *(plan.digest for plan in others)}) == 4


def test_the_digest_changes_with_a_wildcard_file(tmp_path: Path) -> None:
    one = plan_of(wildcard_folder(tmp_path / "1", c="red"), prompts="__c__").digest
    assert plan_of(wildcard_folder(tmp_path / "2", c="blue"), prompts="__c__").digest != one


def test_ten_thousand_copies_of_each_are_possible() -> None:
    assert plan_of(prompts="\n".join("abcdefghijk"), images_per_prompt=10_000).num_items == 110_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prompts": "# only this"}, "prompts holds no prompt, only comments"),
        ({"prompts": "a\nb\n__c__"}, "prompts line 3: there is no wildcard 'c' in no wildcards, which has: none"),
        ({"prompts": "a --w 7"}, "prompts line 1: Width must be a multiple of 8 between 64 and 2048, got '7'"),
        ({"prompts": "a --w 64", "attributes": "width: 64, 128"}, "line 1: width is set at the line's end, and by a"),
        ({"prompts": "a", "attributes": "width: 64, 65"}, "attributes, width: Width .*got '65'"),
        ({"prompts": "a", "attributes": "strength: 0.5"}, "attributes, strength: strength has no LoRA to act on"),
        (
            {"prompts": "a", "attributes": "lora: x:0.5\nstrength: 1"},
            "attributes, lora, strength: lora sets a strength",
        ),
        ({"prompts": "a <lora:x:{k}>", "attributes": "k: 1, 9"}, "prompts line 1: The strength in <lora:x:9>"),
        ({"prompts": "a {k}", "attributes": "k: b, <lora:x:9>"}, "prompts line 1: The strength in <lora:x:9>"),
        ({"prompts": "a", "attributes": QUOTAS, "total": 5}, "total is 5, but the quotas of colour make 600"),
        ({"prompts": "a", "attributes": QUOTAS, "images_per_prompt": 2}, "images_per_prompt must be 1 where columns"),
        ({"prompts": "a", "grid_x": "colour"}, "grid_x must be a column of the plan, got 'colour'. Available: none"),
        ({"prompts": " ".join(["{a|b|c|d}"] * 12)}, "every combination would be 16,777,216 prompts, and at most 10,00"),
        ({"prompts": " ".join(["{a|b|c|d}"] * 90)}, "every combination would be over a quintillion prompts"),
        ({"prompts": "a", "wildcards": "/nowhere/at/all"}, "wildcards: there is no folder /nowhere/at/all"),
        (
            {"prompts": "a {c}\n" * 2, "attributes": "c: " + ",".join(map(str, range(600))), "images_per_prompt": 9999},
            "it would be 11,998,800 images, and at most 10,000,000",
        ),
    ],
)
def test_what_cannot_be_planned_is_said(settings: dict[str, object], message: str) -> None:
    with pytest.raises(BatchError, match=message):
        plan_of(**settings)


def test_weights_without_effect_are_noted() -> None:
    assert plan_of(prompts="a", attributes="c: 2::x, y").notes == (
        "The weights of c have no effect: every combination takes each value alike. They count in a random plan.",
    )


def test_a_mistyped_column_is_noted() -> None:
    (note,) = plan_of(prompts="a {color} shoe", attributes="colour: red").notes
    assert note == (
        "No column is called {color}: the words stand in the prompts without their braces. Columns: colour."
    )


def test_pictures_that_are_left_out_are_noted() -> None:
    (note,) = plan_of(**SHOES, total=4).notes
    assert note.startswith("There are 6 prompts and 4 images: the images are spread over the prompts, and 2 of")


def test_a_plan_in_memory_and_a_stored_one_are_the_same(tmp_path: Path) -> None:
    settings = settings_of(**SHOES, total=9)
    stored = store_plan(settings, wildcards=tmp_path, folder=tmp_path / "plan")
    plan = plan_of(**SHOES, total=9)
    assert stored.digest == plan.digest
    assert [stored.item(i) for i in range(9)] == [plan.item(i) for i in range(9)]


@pytest.mark.parametrize("total", [1, 9, 10, 11, 12, 19, 25])
def test_an_example_comes_once(total: int) -> None:
    examples = [item.index for item in plan_of(prompts="a", images_per_prompt=total).examples()]
    assert len(examples) == min(10, total)
    assert examples == sorted(set(examples))


def test_items_are_found_by_a_value_of_a_table_or_a_box(tmp_path: Path) -> None:
    """Also where the table's rows are records that the prompts name."""
    table = tmp_path / "p.csv"
    for heading, prompts in (("prompt", ""), ("words", "{words} {type}\n{who}")):
        table.write_text(f"{heading},who\na shoe,me\na boot,you\n", encoding="utf-8")
        plan = plan_of(prompts=prompts, prompt_file=str(table), attributes="type: a, b", images_per_prompt=2)
        items = list(range(1, plan.num_items))
        for column, counts in plan.value_counts().items():
            assert isinstance(counts, dict)
            for value in counts:
                having = [item for item in items if plan.item(item).attributes[column] == value]
                assert plan.with_value(items, column, value) == having
    assert plan.with_value(items, "no such", "a") == plan.with_value([], "type", "a") == []
    assert plan.with_value(items, "type", "no such") == []
