"""Tables: what Python's own csv and json write is read as it was; whatever else a file holds, only we raise."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.batches.prompt_files import open_prompt_file
from studio.core.errors import BatchError, DatasetError, StudioError
from studio.datasets.tables import MAX_NESTING, Table, as_text, parse_json, read_table
from studio.images.records import Problem

PIECES = (
    *(b'"', b",", b";", b"\t", b"\n", b"\r", b"\0", b"sep=;\n", b"\xef\xbb\xbf", b"\xff\xfe", b"\xe9", b" "),
    *(b"prompt", b"{", b"}", b"[", b"]", b":", b"NaN", b"null", "\u2028".encode(), b"\x85", b'{"prompt": "a"}\n'),
    *(b'{"prompt": "\\ud800"}\n', b'{"\\udfff": 1}\n', b'["a", "b"]', b"[" * 400, b"]" * 400, b'"a":{' * 200),
)
NOISE = st.lists(st.sampled_from(PIECES) | st.binary(max_size=5), max_size=12).map(b"".join)
TEXTS = st.text(st.sampled_from("ab \"',;|\t\n\r:{}[]\\#=\u2028\u0085\ufeffé靴🥾"), max_size=8)
NAMES = TEXTS.map(str.strip).filter(bool)
DELIMITERS = st.sampled_from(",;\t")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tables")


def read(folder: Path, name: str, content: bytes) -> Table:
    (folder / name).write_bytes(content)
    return read_table(folder / name, name)


def rows_of(table: Table) -> list[tuple[str, ...]]:
    return [tuple(row.cells[column] for column in table.columns) for row in table.rows]


def batch_rows(folder: Path, name: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns of the Batch tab's reader and its rows, the prompt in front."""
    file = open_prompt_file(folder / name)
    return (file.prompt_column, *file.columns), [(row.prompt, *row.cells) for row in file.rows(0)]


@given(NOISE, st.sampled_from([".csv", ".tsv", ".json", ".jsonl"]))
def test_whatever_a_table_holds_only_we_raise_and_what_is_read_can_be_kept(
    folder: Path, content: bytes, ending: str
) -> None:
    try:
        table = read(folder, f"noise{ending}", content)
    except DatasetError:
        return
    for row in table.rows:
        json.dumps(row.cells, ensure_ascii=False).encode()
        assert Problem(code="row", severity="note", sentence=str(row.cells)).model_dump_json()


@given(NOISE, st.sampled_from([".txt", ".csv", ".tsv", ".jsonl"]))
def test_whatever_a_file_of_prompts_holds_only_we_raise(folder: Path, content: bytes, ending: str) -> None:
    (folder / f"prompts{ending}").write_bytes(content)
    try:
        for row in open_prompt_file(folder / f"prompts{ending}").rows(0):
            json.dumps(row, ensure_ascii=False).encode()
    except BatchError:
        pass


def written_csv(head: Sequence[str], rows: Sequence[Sequence[str]], delimiter: str, num_emptied: int) -> str:
    """As Python's csv writes it, with columns behind the last that a spreadsheet emptied."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\r\n")
    writer.writerows([*row, *[""] * num_emptied] for row in (head, *rows))
    return file.getvalue()


@given(
    st.data(),
    st.lists(NAMES, min_size=1, max_size=4, unique=True),
    DELIMITERS,
    st.integers(0, 2),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.booleans(),
)
def test_what_pythons_csv_writes_reads_back(
    folder: Path, data: st.DataObject, head: list[str], delimiter: str, num_emptied: int, encoding: str, says_so: bool
) -> None:
    head = ["prompt", *head] if "prompt" not in head else head
    rows = data.draw(st.lists(st.tuples(*[TEXTS] * len(head)), max_size=4))
    text = written_csv(head, rows, delimiter, num_emptied)
    says_so = says_so or not is_seen(head, delimiter)
    separator = f"sep={delimiter}\r\n" if says_so else ""
    table = read(folder, "table.csv", f"{separator}{text}".encode(encoding))
    wanted = [tuple(map(str.strip, row)) for row in rows]
    assert table.columns == tuple(head)
    assert rows_of(table) == [row for row in wanted if any(row)]
    assert [s.problem.code for s in table.skipped_files] == (["table not UTF-8"] if encoding == "utf-16" else [])


def is_seen(head: Sequence[str], delimiter: str) -> bool:
    """Whether no other delimiter stands unquoted in the head as often."""
    plain = [name for name in head if not any(sign in name for sign in f'{delimiter}"\r\n')]
    return all("".join(plain).count(other) < len(head) - 1 for other in ",;\t" if other != delimiter)


@given(st.lists(st.dictionaries(TEXTS, TEXTS | st.none() | st.integers() | st.lists(TEXTS, max_size=3)), max_size=4))
def test_what_pythons_json_writes_reads_back(folder: Path, rows: list[dict[str, object]]) -> None:
    rows = [row for row in rows if row]
    columns = tuple(dict.fromkeys(column for row in rows for column in row))
    wanted = [tuple(plainly(row.get(column)) for column in columns) for row in rows]
    lines = "\n".join(json.dumps(row, ensure_ascii=index % 2 == 0) for index, row in enumerate(rows))
    for name, content in (("table.jsonl", lines), ("table.json", json.dumps(rows, ensure_ascii=False))):
        if not rows:
            with pytest.raises(DatasetError, match=r"is empty|no list of rows"):
                read(folder, name, content.encode())
            continue
        table = read(folder, name, content.encode("utf-8-sig"))
        assert (table.columns, rows_of(table), table.skipped_files) == (columns, wanted, ())


def plainly(value: object) -> str:
    """What a cell says, worked out by hand."""
    if isinstance(value, list):
        return ", ".join(text.strip() for text in value if text.strip())
    return "" if value is None else str(value).strip()


@given(NOISE, st.sampled_from(["both.csv", "both.jsonl"]), DELIMITERS)
def test_the_batch_reader_reads_the_same_rows(folder: Path, content: bytes, name: str, delimiter: str) -> None:
    start = f"prompt{delimiter}colour\n" if name == "both.csv" else '{"prompt": "a shoe", "colour": "red"}\n'
    (folder / name).write_bytes(start.encode() + content)
    try:
        columns, rows = batch_rows(folder, name)
    except StudioError:
        return
    table = read_table(folder / name, name)
    assert not [skipped for skipped in table.skipped_files if skipped.problem.severity == "reject"]
    own = [tuple(row.cells.get(column, "") for column in columns) for row in table.rows]
    assert [row for row in own if row[0]] == rows


# What these found, one by one


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_delimiter_inside_of_quotes_is_none(folder: Path, delimiter: str) -> None:
    text = written_csv(("file;,\t;,\tname", "two\nlines", "text"), [("a.png", "1", "x")], delimiter, 0)
    table = read(folder, "table.csv", text.encode())
    assert table.columns == ("file;,\t;,\tname", "two\nlines", "text")
    assert rows_of(table) == [("a.png", "1", "x")]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_its_mark_is_read_as_the_batch_reads_it(folder: Path, encoding: str) -> None:
    content = "prompt,colour\na shoe,red\n".encode(encoding)
    table = read(folder, "table.csv", content)
    assert (table.columns, rows_of(table)) == batch_rows(folder, "table.csv")
    assert table.columns == ("prompt", "colour")
    assert [skipped.problem.code for skipped in table.skipped_files] == ["table not UTF-8"]


def test_a_stray_zero_byte_loses_its_row_alone(folder: Path) -> None:
    table = read(folder, "table.csv", b"file_name,text\na.png,x\nb.png,y\0\n")
    assert rows_of(table) == [("a.png", "x")]
    assert [skipped.name for skipped in table.skipped_files] == ["table.csv row 3"]


@pytest.mark.parametrize("row", ['{"file": "a.png", "text": "x\\ud800"}', '{"file": "a.png", "\\udc00": "x"}'])
def test_half_of_a_character_loses_its_row_alone(folder: Path, row: str) -> None:
    table = read(folder, "table.jsonl", f'{row}\n{{"file": "b.png"}}\n'.encode())
    assert (table.columns, rows_of(table)) == (("file",), [("b.png",)])
    (skipped,) = table.skipped_files
    assert (skipped.name, skipped.problem.severity) == ("table.jsonl row 1", "reject")
    assert "half of a character" in skipped.problem.sentence


@pytest.mark.parametrize("depth", [MAX_NESTING + 1, 600, 100_000])
def test_what_is_nested_without_end_is_no_row(folder: Path, depth: int) -> None:
    deep = f'{{"file": {"[" * depth}{"]" * depth}}}'
    (skipped,) = read(folder, "deep.jsonl", deep.encode()).skipped_files
    assert "nested too deep" in skipped.problem.sentence
    with pytest.raises(DatasetError, match=r"deep\.json is not JSON \(nested too deep\)"):
        read(folder, "deep.json", f"[{deep}]".encode())


def test_an_image_of_meta_cap_is_its_key_whatever_it_says_of_itself(folder: Path) -> None:
    table = read(folder, "meta_cap.json", b'{"a.png": {"caption": "a shoe", "tags": "", "image": "other.png"}}')
    assert rows_of(table) == [("a.png", "a shoe", "")]


def test_a_list_has_no_gaps() -> None:
    assert as_text(["a", None, "", ["b", []], 3]) == "a, b, 3"


@pytest.mark.parametrize(("text", "encoding"), [("schöne Größe – „rot“", "cp1252"), ("白い靴の写真です", "shift_jis")])
def test_other_encodings_are_read_by_both_readers(folder: Path, text: str, encoding: str) -> None:
    table = read(folder, "table.csv", f"prompt,colour\n{text},1\n".encode(encoding))
    assert rows_of(table) == batch_rows(folder, "table.csv")[1] == [(text, "1")]


@pytest.mark.parametrize(
    ("value", "text"),
    [("NaN", ""), ("null", ""), ('"NaN"', "NaN"), ('["a", NaN, null]', "a"), ("3.0", "3.0")],
)
def test_what_is_not_there_is_no_text(value: str, text: str) -> None:
    assert as_text(parse_json(value)) == text
