"""Files of prompts."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from studio.batches.plan import BatchPlan, open_plan
from studio.batches.template import TemplateReader, Wildcards, fill
from studio.core.errors import BatchError
from studio.images.prompts import WeightedText, parse_weights, plain_prompt, take_lora_tags
from tests.batches.plans import plan_of, prompts_of, wildcard_folder

GRAMMAR = [r"\(", "16:9", "(new:1.4)", "<lora:ink:1>", "BREAK", "a AND b"]


def plan_of_file(folder: Path, name: str, content: str | bytes, **changes: object) -> BatchPlan:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return plan_of(prompt_file=str(path), **changes)


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    plan = plan_of_file(tmp_path, "p.txt", "# shoes\r\na red shoe --d 7\r\n\r\na boot")
    assert prompts_of(plan) == ["a red shoe", "a boot"]
    assert [plan.item(i).generation.seed for i in range(2)] == [7, 43]


def test_the_box_comes_before_a_text_file(tmp_path: Path) -> None:
    assert prompts_of(plan_of_file(tmp_path, "p.txt", "b", prompts="a")) == ["a", "b"]


def test_a_table_has_prompts_columns_and_settings(tmp_path: Path) -> None:
    table = 'prompt,colour,steps,negative_prompt\n"a shoe, red",red,5,blurry\na boot,,,\n'
    plan = plan_of_file(tmp_path, "p.csv", table)
    first, second = plan.item(0), plan.item(1)
    assert plan.columns == ("colour", "steps", "negative_prompt")
    assert first.generation.prompt == "a shoe, red"
    assert first.generation.num_inference_steps == 5
    assert first.generation.negative_prompt == "blurry"
    assert first.attributes == {"colour": "red", "steps": "5", "negative_prompt": "blurry"}
    assert second.generation.num_inference_steps == 25
    assert plan.notes == ("Columns that are settings of each image: steps, negative_prompt.",)


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_other_delimiters_are_seen_in_the_head(tmp_path: Path, delimiter: str) -> None:
    table = f"prompt{delimiter}colour\na shoe, worn{delimiter}red\n"
    assert prompts_of(plan_of_file(tmp_path, "p.csv", table)) == ["a shoe, worn"]


def test_a_cell_may_have_several_lines_and_the_next_row_keeps_its_number(tmp_path: Path) -> None:
    table = 'prompt,width\n"a\nshoe",64\nboot,65\n'
    with pytest.raises(BatchError, match=r"p.csv line 4: Width .*got '65'"):
        plan_of_file(tmp_path, "p.csv", table)


def test_json_lines_may_leave_columns_out(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "n": 5}, {"prompt": "b", "tags": ["x", "y"], "none": None}]
    plan = plan_of_file(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows)))
    assert plan.columns == ("n", "tags", "none")
    assert plan.item(0).attributes == {"n": "5", "tags": "", "none": ""}
    assert plan.item(1).attributes == {"n": "", "tags": "x, y", "none": ""}


def test_a_column_of_captions_is_taken_for_prompts_and_said(tmp_path: Path) -> None:
    plan = plan_of_file(tmp_path, "p.csv", "id,Text\n1,a shoe\n")
    assert prompts_of(plan) == ["a shoe"]
    assert plan.notes == ("p.csv has no column prompt: its column Text is taken for it.",)


@given(
    caption=st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12).map(str.strip)
    | st.sampled_from(GRAMMAR)
)
@example(caption="Men's (Black) [New] <lora:ink:9> {red|blue} __colour__, --w 64")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dataset_tables_captions_are_text(tmp_path: Path, caption: str) -> None:
    """Every sign has its plain weight, no LoRA is loaded, no chunk begun, no variant made."""
    rows = [{"file_name": "a.png", "text": text} for text in (caption, "a boot")]
    plan = plan_of_file(tmp_path, "metadata.jsonl", "\n".join(map(json.dumps, rows)))
    assert plan.num_items == (2 if caption else 1)
    if caption:
        item = plan.item(0)
        prompt, loras = take_lora_tags(item.generation.prompt)
        assert (loras, parse_weights(prompt)) == ((), (WeightedText(caption, 1.0),))
        assert item.caption == caption
    assert plan.notes[0].startswith("metadata.jsonl is a dataset's table: its column text is taken for the prompts, as")


def test_a_column_called_prompt_has_prompts_in_a_dataset_table_too(tmp_path: Path) -> None:
    plan = plan_of_file(tmp_path, "metadata.csv", "file_name,prompt,caption\na.png,a ({shoe|boot}:1.2),(x)\n")
    assert prompts_of(plan) == ["a (shoe:1.2)", "a (boot:1.2)"]
    assert plan.notes == ()


def test_the_box_is_filled_from_a_table_without_prompts(tmp_path: Path) -> None:
    plan = plan_of_file(tmp_path, "p.csv", "colour,kind\nred,boot\nblue,shoe\n", prompts="a {colour} {kind}\n{kind}")
    assert prompts_of(plan) == ["a red boot", "boot", "a blue shoe", "shoe"]


def test_rows_without_a_prompt_are_left_out_and_counted(tmp_path: Path) -> None:
    plan = plan_of_file(tmp_path, "p.csv", "prompt,colour\na,red\n,blue\n\n")
    assert prompts_of(plan) == ["a"]
    assert plan.notes == ("p.csv: 1 row was left out, as it has no prompt.",)


@pytest.mark.parametrize(
    ("encoding", "noted"), [("utf-8", False), ("utf-8-sig", False), ("utf-16", True), ("latin-1", True)]
)
@pytest.mark.parametrize("name", ["p.txt", "p.csv"])
def test_other_encodings_are_read_and_said(tmp_path: Path, encoding: str, noted: bool, name: str) -> None:
    text = "ein grüner Schuh" if name == "p.txt" else "prompt,farbe\nein grüner Schuh,grün\n"
    plan = plan_of_file(tmp_path, name, text.encode(encoding))
    assert prompts_of(plan) == ["ein grüner Schuh"]
    assert any("is not UTF-8: it is read as" in note for note in plan.notes) == noted


@pytest.mark.parametrize("name", ["p.txt", "p.csv", "p.jsonl"])
def test_every_byte_order_mark_is_left_out(tmp_path: Path, name: str) -> None:
    text = {"p.txt": "a shoe", "p.csv": "prompt,k\na shoe,x\n", "p.jsonl": '{"prompt": "a shoe"}'}[name]
    assert prompts_of(plan_of_file(tmp_path, name, f"\ufeff\ufeff{text}")) == ["a shoe"]


def test_prompts_in_tables_may_have_variants_and_columns(tmp_path: Path) -> None:
    assert prompts_of(plan_of_file(tmp_path, "p.csv", "prompt,c\na {c} {x|y},red\n")) == ["a red x", "a red y"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.xlsx", "a", r"prompt_file must end in \.txt, \.csv, \.tsv, \.jsonl, got '.*p\.xlsx'"),
        ("p.txt", "# nothing\n", r"p\.txt holds no row"),
        ("p.txt", "a\nb --am 2", r"p\.txt line 2: --am is no option"),
        (
            "p.txt",
            "a\nb --s 500",
            r"p\.txt line 2: Steps [(]num_inference_steps[)] must be between 1 and 150, got '500'",
        ),
        ("p.txt", "a\nb {c", r"p\.txt line 2: a \{ has no \}"),
        ("p.txt", "a\nb <lora:x:9>", r"p\.txt line 2: The strength in <lora:x:9> must be .* got '9'"),
        ("p.txt", "a\nb {c|<lora:x:9>}", r"p\.txt line 2: The strength in <lora:x:9>"),
        ("p.csv", "", r"p\.csv is empty, or its first line names no column"),
        ("p.csv", "prompt,a,a\nx,y,z", r"p\.csv line 1 must name each column, and each once, got 'prompt, a, a'"),
        ("p.csv", "prompt,steps,num_inference_steps\n", r"p\.csv: The columns 'steps' and 'num_inference_steps'"),
        ("p.csv", "prompt,a\nx,y\nx,y,z", r"p\.csv line 3: The row has 3 cells for 2 columns"),
        ("p.csv", 'prompt,a\nx,"y', r"p\.csv line 2 cannot be read .* quotes"),
        ("p.csv", "prompt,seed\nx,-1", r"p\.csv line 2: Seed must be at least 0, got '-1'"),
        ("p.csv", "colour\nred", r"p\.csv has no column prompt, text or caption; it has: colour\..* a \{colour\} shoe"),
        ("p.jsonl", '{"prompt": "a"}\n{', r"p\.jsonl line 2 is not JSON"),
        ("p.jsonl", "[1]", r"p\.jsonl line 1 must be columns as"),
        ("p.jsonl", '{"prompt": "\\ud800"}', r"half of a character \(\\ud800\)"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    with pytest.raises(BatchError, match=message):
        plan_of_file(tmp_path, name, content)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"prompt_file: there is no file .*none.txt"):
        plan_of(prompt_file=str(tmp_path / "none.txt"))


def test_a_table_with_prompts_and_prompts_in_the_box_are_told(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"p.csv has its own prompts, in the column prompt, and prompts has some too"):
        plan_of_file(tmp_path, "p.csv", "prompt\na\n", prompts="b")


def test_a_tag_that_a_record_brings_is_tried_before_the_plan_stands(tmp_path: Path) -> None:
    with pytest.raises(BatchError, match=r"p\.csv line 3: The strength in <lora:ink:9> must be"):
        plan_of_file(tmp_path, "p.csv", "k\n0.5\n9\n", prompts="a shoe <lora:ink:{k}>")


@given(cell=st.text(max_size=12) | st.sampled_from(GRAMMAR))
@example(cell="Men's (Black) [New] <lora:ink:9>")
def test_a_cell_is_text_in_the_prompt_that_it_fills(cell: str) -> None:
    """Each sign of it has the weight of its place, loads no LoRA, begins no chunk, and is whole in the caption."""
    text = cell.strip()
    template = TemplateReader(("k",), Wildcards(Path("none"))).read("a ({k}) shoe").at(0)
    parts = parse_weights(take_lora_tags(fill(template, (cell,), 1))[0])
    expected = (("a ", 1.0), (cell, 1.1), (" shoe", 1.0)) if cell else (("a  shoe", 1.0),)
    assert tuple((part.text, part.weight) for part in parts) == expected
    assert not any(part.after_break for part in parts)
    assert text in plain_prompt(fill(template, (cell,), 1))


def test_a_table_of_products_fills_prompts_as_text_and_typed_values_as_prompts(tmp_path: Path) -> None:
    table = 'name,k\n"Boot (Black) [New]",<lora:ink:0.5>\n'
    item = plan_of_file(tmp_path, "p.csv", table, prompts="({name}) {k}{tone}", attributes='tone: " (matte:1.2)"').item(
        0
    )
    prompt, loras = take_lora_tags(item.generation.prompt)
    assert loras == ()
    assert {part.text: part.weight for part in parse_weights(prompt)} == {
        "Boot (Black) [New]": 1.1,
        " <lora:ink:0.5> ": 1.0,
        "matte": 1.2,
    }
    assert item.caption == "Boot (Black) [New] <lora:ink:0.5> matte"
    with pytest.raises(BatchError, match=r"p\.csv line 2: a value inside a LoRA tag must have no < and no >"):
        plan_of_file(tmp_path, "p.csv", "k\n1> <lora:x:1\n", prompts="a shoe <lora:ink:{k}>")


def test_a_plan_stored_before_cells_were_text_keeps_its_prompts(tmp_path: Path) -> None:
    parts = plan_of_file(tmp_path, "p.csv", "k\n(red:1.2)\n", prompts="a {k} shoe")._parts
    old = replace(parts, format=1)
    (tmp_path / "plan").mkdir()
    BatchPlan(old, old.digest()).store(tmp_path / "plan")
    assert prompts_of(open_plan(tmp_path / "plan")) == ["a (red:1.2) shoe"]


@pytest.mark.parametrize("sign", "\u2028\u0085")
def test_json_lines_end_at_a_line_feed_alone(tmp_path: Path, sign: str) -> None:
    line = json.dumps({"prompt": f"red{sign}shoe"}, ensure_ascii=False)
    assert prompts_of(plan_of_file(tmp_path, "p.jsonl", f"{line}\r\n")) == [f"red{sign}shoe"]


def test_prompts_in_lists_are_joined_and_said(tmp_path: Path) -> None:
    plan = plan_of_file(tmp_path, "p.jsonl", '{"prompt": ["a shoe", "red"]}\n{"prompt": "a boot"}\n')
    assert prompts_of(plan) == ["a shoe, red", "a boot"]
    assert [note for note in plan.notes if "the column prompt holds lists" in note]
    assert plan_of_file(tmp_path, "p.jsonl", '{"prompt": ["a shoe"]}').notes == ()
    plan = plan_of_file(tmp_path, "p.jsonl", '{"prompt": "a shoe", "tags": ["a", "b"]}')
    assert plan.item(0).attributes == {"tags": "a, b"}
    assert plan.notes == ("p.jsonl: the column tags holds lists. The texts of each are joined with commas.",)


def test_excels_line_of_the_separator_is_no_head(tmp_path: Path) -> None:
    plan = plan_of_file(tmp_path, "p.csv", "sep=;\r\nprompt;colour;width\r\na, b shoe;red;64\r\n")
    assert prompts_of(plan) == ["a, b shoe"]
    assert plan.item(0).attributes == {"colour": "red", "width": "64"}
    with pytest.raises(BatchError, match=r"p.csv line 4: Width .*got '65'"):
        plan_of_file(tmp_path, "p.csv", "sep=;\nprompt;width\nshoe;64\nboot;65\n")
    with pytest.raises(BatchError, match=r"p\.csv line 2 must name each column, and each once"):
        plan_of_file(tmp_path, "p.csv", "sep=|\nprompt|a|a\nshoe|1|2\n")


def test_columns_that_a_spreadsheet_emptied_are_none(tmp_path: Path) -> None:
    plan = plan_of_file(tmp_path, "p.csv", "prompt,colour,,\nshoe,red,,\nboot,blue,\n")
    assert plan.columns == ("colour",)
    assert [plan.item(i).attributes for i in range(2)] == [{"colour": "red"}, {"colour": "blue"}]
    with pytest.raises(BatchError, match=r"p\.csv line 2: "):
        plan_of_file(tmp_path, "p.csv", "prompt,colour,,\nshoe,red,,lost\n")


def test_numbers_may_have_a_decimal_comma(tmp_path: Path) -> None:
    plan = plan_of_file(tmp_path, "p.csv", "prompt;cfg;lora\nshoe;7,5;white-ground:0,25\n")
    assert plan.item(0).generation.guidance_scale == 7.5
    assert [choice.strength for choice in plan.item(0).generation.loras] == [0.25]
    with pytest.raises(BatchError, match=r"Guidance [(]guidance_scale[)] .*got '1,000'"):
        plan_of_file(tmp_path, "p.csv", "prompt;cfg\nshoe;1,000\n")


def test_an_empty_part_takes_no_separator(tmp_path: Path) -> None:
    assert prompts_of(plan_of(prompts="{2$$ and $$a||b}")) == ["a", "a and b", "b", "b and a"]
    drawn = plan_of(prompts="{2$$ and $$a||b}", combine="random", total="40")
    assert set(prompts_of(drawn)) == {"a", "a and b", "b", "b and a"}


@pytest.mark.parametrize("combine", ["every combination", "random"])
def test_a_plan_stored_before_empty_parts_took_none_keeps_its_items(tmp_path: Path, combine: str) -> None:
    """It counted the variants with their separators, and would have others under the same numbers."""
    before = ["a and ", " and a", "a and b", "b and a", " and b", "b and "]
    parts = plan_of(prompts="x{2$$ and $$a||b}x", combine=combine, total="40")._parts
    old = replace(parts, format=1, num_variants=np.array([6], np.int64))
    (tmp_path / "plan").mkdir()
    BatchPlan(old, old.digest()).store(tmp_path / "plan")
    assert set(prompts_of(open_plan(tmp_path / "plan"))) == {f"x{text}x" for text in before}


def test_braces_that_are_none_are_said(tmp_path: Path) -> None:
    plan = plan_of(prompts="a {red, worn} shoe")
    assert prompts_of(plan) == ["a red, worn shoe"]
    assert plan.notes[0].startswith("No column is called {red, worn}: the words stand in the prompts")


@pytest.mark.parametrize("line", ["{red$$blue}", "<lora:x:9>", "{red|blue", "__nowhere__"])
def test_a_mistake_in_a_wildcard_names_its_file_and_line(tmp_path: Path, line: str) -> None:
    folder = wildcard_folder(tmp_path, colour=f"# colours\nwhite\n\n2::{line}\n", outer="x __colour__")
    with pytest.raises(BatchError, match=r"prompts line 1: the wildcard file colour.txt line 4: "):
        plan_of(folder, prompts="__outer__ shoe")
