"""Every layout is recognised and read; nothing that lies in the folder goes unmentioned."""

import json
import os
from pathlib import Path

import pytest

from studio.core.errors import DatasetError
from studio.core.paths import assets_folder
from studio.datasets.reading import read_source
from studio.datasets.source import LayoutChoice, SourceReading

AS_FOUND = LayoutChoice()


def make(folder: Path, **files: str | bytes) -> Path:
    """Files by their paths; `__` stands for `/`, `_dot_` for `.`."""
    for name, content in files.items():
        write(folder, name.replace("__", "/").replace("_dot_", "."), content)
    return folder


def write(folder: Path, name: str, content: str | bytes = "x") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def captions(reading: SourceReading) -> dict[str, str | None]:
    return {picture.key: picture.caption for picture in reading.pictures}


def left(reading: SourceReading) -> dict[str, str]:
    return {skipped_file.name: skipped_file.problem.code for skipped_file in reading.skipped_files}


# Captions beside the images


def test_captions_lie_beside_their_pictures_in_every_sub_folder(tmp_path: Path) -> None:
    for name in ("a.png", "sub/a.jpg", "sub/deep/b.webp"):
        write(tmp_path, name)
    write(tmp_path, "a.txt", "one")
    write(tmp_path, "sub/a.caption", "two")
    reading = read_source(tmp_path, AS_FOUND)
    assert reading.layout == "sidecar"
    assert captions(reading) == {"a.png": "one", "sub/a.jpg": "two", "sub/deep/b.webp": None}


def test_pictures_stand_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write(tmp_path, f"shoe {number}.png")
    assert [p.key for p in read_source(tmp_path, AS_FOUND).pictures] == ["shoe 1.png", "shoe 2.png", "shoe 10.png"]


def test_an_accent_written_in_two_ways_is_one_name(tmp_path: Path) -> None:
    write(tmp_path, "u\u0308bung.png")
    write(tmp_path, "\u00fcbung.txt", "found")
    assert [p.caption for p in read_source(tmp_path, AS_FOUND).pictures] == ["found"]


def test_what_is_left_over_is_named(tmp_path: Path) -> None:
    for name in ("a.png", "lonely.txt", "notes.md", ".DS_Store", "movie.mp4", ".git/config", "__MACOSX/._a.png"):
        write(tmp_path, name)
    assert left(read_source(tmp_path, AS_FOUND)) == {
        "lonely.txt": "caption without an image",
        "notes.md": "other file",
        ".DS_Store": "hidden file",
        "movie.mp4": "other file",
        ".git": "hidden folder",
        "__MACOSX": "system folder",
    }


def test_of_two_captions_the_txt_counts_and_it_is_said(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    write(tmp_path, "a.txt", "text")
    write(tmp_path, "a.caption", "caption")
    (picture,) = read_source(tmp_path, AS_FOUND).pictures
    assert picture.caption == "text"
    assert [problem.code for problem in picture.problems] == ["two captions"]


def test_a_caption_of_two_pictures_is_said(tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", a_dot_jpg="x", a_dot_txt="both")
    for picture in read_source(tmp_path, AS_FOUND).pictures:
        assert picture.caption == "both"
        assert [problem.code for problem in picture.problems] == ["shared caption"]


def test_a_caption_that_is_not_utf8_rejects_its_picture(tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", a_dot_txt="Größe".encode("latin-1"))
    (picture,) = read_source(tmp_path, AS_FOUND).pictures
    assert picture.caption is None
    assert picture.problems[0].severity == "reject"


@pytest.mark.skipif(os.name == "nt" or os.uname().sysname == "Darwin", reason="names there are always Unicode")
def test_a_name_that_is_not_utf8_is_a_leftover(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/sh\xf6e.png"))).write_bytes(b"x")
    assert left(read_source(tmp_path, AS_FOUND)) == {"sh\\xf6e.png": "name not UTF-8"}


def test_a_looping_folder_ends(tmp_path: Path) -> None:
    write(tmp_path, "sub/a.png")
    (tmp_path / "sub/up").symlink_to(tmp_path)
    reading = read_source(tmp_path, AS_FOUND)
    assert [p.key for p in reading.pictures] == ["sub/a.png"]
    assert left(reading) == {"sub/up": "linked folder"}


def test_a_folder_named_like_a_picture_is_told_of_and_looked_into(tmp_path: Path) -> None:
    write(tmp_path, "odd.png/a.png")
    assert [p.key for p in read_source(tmp_path, AS_FOUND).pictures] == ["odd.png", "odd.png/a.png"]


@pytest.mark.parametrize("missing", ["nowhere", "file.txt"])
def test_what_is_no_folder_is_said(missing: str, tmp_path: Path) -> None:
    write(tmp_path, "file.txt")
    with pytest.raises(DatasetError, match=r"cannot be found|not a folder"):
        read_source(tmp_path / missing, AS_FOUND)


# kohya


def test_kohya_folders_give_repeats_and_words(tmp_path: Path) -> None:
    write(tmp_path, "10_red shoe/a.png")
    write(tmp_path, "10_red shoe/b.png")
    write(tmp_path, "10_red shoe/b.txt", "own words")
    write(tmp_path, "2_boot/c.png")
    reading = read_source(tmp_path, AS_FOUND)
    assert reading.layout == "kohya"
    assert {p.key: (p.repeats, p.caption) for p in reading.pictures} == {
        "2_boot/c.png": (2, "boot"),
        "10_red shoe/a.png": (10, "red shoe"),
        "10_red shoe/b.png": (10, "own words"),
    }


def test_pictures_outside_of_kohya_folders_are_not_lost_in_silence(tmp_path: Path) -> None:
    for name in ("10_shoe/a.png", "b.png", "reg/c.png"):
        write(tmp_path, name)
    assert left(read_source(tmp_path, AS_FOUND)) == {"b.png": "outside of repeats", "reg/c.png": "regularisation"}


def test_zero_repeats_are_rejected(tmp_path: Path) -> None:
    write(tmp_path, "0_shoe/a.png")
    (picture,) = read_source(tmp_path, AS_FOUND).pictures
    assert [problem.code for problem in picture.problems] == ["no repeats"]


# Tables


def test_an_imagefolder_is_read_by_its_jsonl(tmp_path: Path) -> None:
    rows = [{"file_name": "a.png", "text": "one, “two”", "size": 42}, {"file_name": "sub/b.png", "text": "b"}]
    make(tmp_path, a_dot_png="x", sub__b_dot_png="x")
    write(tmp_path, "metadata.jsonl", "\n".join(json.dumps(row) for row in rows))
    reading = read_source(tmp_path, AS_FOUND)
    assert reading.layout == "imagefolder"
    assert captions(reading) == {"a.png": "one, “two”", "sub/b.png": "b"}
    assert reading.columns == ("file_name", "text", "size")
    assert reading.pictures[0].attributes["size"] == "42"


def test_an_imagefolder_with_splits_is_read_whole(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write(tmp_path, f"{split}/a.png")
        write(tmp_path, f"{split}/metadata.csv", f"file_name,text\na.png,{split} caption\n")
    assert captions(read_source(tmp_path, AS_FOUND)) == {"test/a.png": "test caption", "train/a.png": "train caption"}


@pytest.mark.parametrize(
    "content",
    [
        "image,caption\na.png,a red shoe\n",
        "image;caption\r\na.png;a red shoe\r\n",
        "image\tcaption\na.png\ta red shoe\n",
        '\ufeffimage,caption\n"a.png","a red shoe"\n',
        '\ufeff\ufeffimage,caption\n"a.png","a red shoe"\n',
        "path,prompt\npictures/a.png,a red shoe\n",
        "filename,description,price\na,a red shoe,12\n",
    ],
)
def test_any_table_with_pictures_and_captions_is_recognised(content: str, tmp_path: Path) -> None:
    write(tmp_path, "pictures/a.png" if "pictures/" in content else "a.png")
    write(tmp_path, "list.csv", content)
    reading = read_source(tmp_path, AS_FOUND)
    assert reading.layout == "table"
    assert list(captions(reading).values()) == ["a red shoe"]


def test_columns_can_be_chosen(tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", list_dot_csv="which,words,text\na.png,these,not these\n")
    choice = LayoutChoice(layout="table", table="list.csv", image_column="which", caption_column="words")
    assert captions(read_source(tmp_path, choice)) == {"a.png": "these"}


def test_a_column_that_is_not_there_is_said_with_those_that_are(tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", list_dot_csv="which,words\na.png,these\n")
    with pytest.raises(DatasetError, match=r"no column 'price'.*which, words"):
        read_source(tmp_path, LayoutChoice(layout="table", image_column="price"))
    with pytest.raises(DatasetError, match=r"no column that names images.*which, words"):
        read_source(tmp_path, LayoutChoice(layout="table"))
    with pytest.raises(DatasetError, match=r"Available: list\.csv"):
        read_source(tmp_path, LayoutChoice(layout="table", table="other.csv"))
    with pytest.raises(DatasetError, match="no table"):
        read_source(tmp_path, LayoutChoice(layout="fashion"))


def test_what_is_wrong_in_a_table_is_named_by_row(tmp_path: Path) -> None:
    lines = [
        "image,caption",
        "a.png,good",
        "gone.png,lost",
        "a.png,again",
        "../out.png,escape",
        "/etc/passwd.png,escape",
        "short",
        "a.png,too,many",
        ",no name",
        "",
    ]
    make(tmp_path, a_dot_png="x", b_dot_png="x", list_dot_csv="\n".join(lines))
    reading = read_source(tmp_path, AS_FOUND)
    assert captions(reading) == {"a.png": "good"}
    assert left(reading) == {
        "list.csv row 3": "row without an image",
        "list.csv row 4": "row twice",
        "list.csv row 5": "row leads out",
        "list.csv row 6": "row leads out",
        "list.csv row 7": "row unreadable",
        "list.csv row 8": "row unreadable",
        "list.csv row 9": "row without a file",
        "b.png": "image without a row",
    }


def test_bad_lines_of_jsonl_are_named(tmp_path: Path) -> None:
    lines = ['{"file_name": "a.png", "text": "good"}', "{not json", "[1]", '{"file_name": "a\\u0000.png", "text": "x"}']
    make(tmp_path, a_dot_png="x", metadata_dot_jsonl="\n".join(lines))
    reading = read_source(tmp_path, AS_FOUND)
    assert captions(reading) == {"a.png": "good"}
    assert {name for name, code in left(reading).items() if code == "row unreadable"} == {
        "metadata.jsonl row 2",
        "metadata.jsonl row 3",
        "metadata.jsonl row 4",
    }


def test_a_table_in_another_encoding_is_read_and_said(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    write(tmp_path, "list.csv", "image;caption\na.png;schöne Größe, sagt man".encode("cp1252"))
    reading = read_source(tmp_path, AS_FOUND)
    assert captions(reading) == {"a.png": "schöne Größe, sagt man"}
    assert left(reading) == {"list.csv": "table not UTF-8"}


def test_a_cell_of_ten_megabytes_is_one_bad_row(tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", list_dot_csv=f"image,caption\na.png,good\nb.png,{'x' * 10_000_000}\n")
    reading = read_source(tmp_path, AS_FOUND)
    assert captions(reading) == {"a.png": "good"}
    assert left(reading)["list.csv row 3"] == "row unreadable"


# Fashion products


def test_unquoted_commas_in_product_names_are_kept(tmp_path: Path) -> None:
    head = "id,gender,masterCategory,subCategory,articleType,baseColour,season,year,usage,productDisplayName"
    rows = [
        "1,Men,Footwear,Shoes,Casual Shoes,Black,Summer,2012,Casual,Puma Men Black Shoes",
        "2,Men,Footwear,Shoes,Casual Shoes,Red,Summer,2012,Casual,Nike Shoes, Red, Pack of 2",
        '3,Men,Footwear,Shoes,Sandals,Blue,Summer,2012,Casual,"Quoted, with comma"',
    ]
    write(tmp_path, "styles.csv", "\n".join([head, *rows]))
    for number in (1, 2, 3):
        write(tmp_path, f"images/{number}.jpg")
    reading = read_source(tmp_path, AS_FOUND)
    assert reading.layout == "fashion"
    assert captions(reading) == {
        "images/1.jpg": "Puma Men Black Shoes",
        "images/2.jpg": "Nike Shoes, Red, Pack of 2",
        "images/3.jpg": "Quoted, with comma",
    }
    assert reading.pictures[1].attributes["baseColour"] == "Red"


def test_the_demo_shoes_are_a_fashion_folder() -> None:
    reading = read_source(assets_folder() / "casual-shoes", AS_FOUND)
    assert (reading.layout, len(reading.pictures)) == ("fashion", 60)
    assert all(picture.caption for picture in reading.pictures)
    assert set(left(reading).values()) <= {"other file"}
    assert any(", " in str(picture.caption) for picture in reading.pictures)


def test_another_layout_can_be_chosen(tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", a_dot_txt="beside", metadata_dot_csv="file_name,text\na.png,in the table\n")
    assert captions(read_source(tmp_path, AS_FOUND)) == {"a.png": "in the table"}
    reading = read_source(tmp_path, LayoutChoice(layout="sidecar"))
    assert captions(reading) == {"a.png": "beside"}
    assert reading.recognised == ("imagefolder", "sidecar")
    assert left(reading) == {"metadata.csv": "other table"}


def test_captions_that_a_table_replaces_are_said(tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", a_dot_txt="beside", metadata_dot_csv="file_name,text\na.png,in the table\n")
    assert left(read_source(tmp_path, AS_FOUND)) == {"a.txt": "caption not used"}


# Tables that are none of the dataset's business

FOREIGN: dict[str, str | bytes] = {
    "config.json": '{"lr": 1}',
    "list.json": "[1, 2]",
    "empty.json": "[]",
    "empty.csv": "",
    "blank.csv": "\n\n",
    "empty.jsonl": "",
    "metadata.csv": 'file_name,text\na.png,"red\n',
    "metadata.jsonl": "{broken",
    "styles.csv": "id,name\n7,nobody\n",
    "broken.json": "{",
    "ratings.csv": "file,score\na.png,5\nb.png,4\n",
    "twice.csv": "a,a\n1,2\n",
    "few.csv": "file,caption\na.png,from the table\n",
    "binary.csv": bytes(range(256)),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_table_is_a_note_beside_captions(name: str, tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", a_dot_txt="one", b_dot_png="x", b_dot_txt="two")
    write(tmp_path, name, FOREIGN[name])
    reading = read_source(tmp_path, AS_FOUND)
    assert reading.layout == "sidecar"
    assert captions(reading) == {"a.png": "one", "b.png": "two"}
    assert left(reading) == {name: "other table"}
    assert {skipped.problem.severity for skipped in reading.skipped_files} == {"note"}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_table_is_a_note_beside_the_datasets_own(name: str, tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", b_dot_png="x", captions_dot_csv="file,caption\na.png,one\nb.png,two\n")
    write(tmp_path, name, FOREIGN[name])
    reading = read_source(tmp_path, AS_FOUND)
    assert captions(reading) == {"a.png": "one", "b.png": "two"}
    assert left(reading) == {name: "other table"}


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_the_only_captions_in_a_broken_table_need_fixing(name: str, tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", b_dot_png="x")
    write(tmp_path, name, FOREIGN[name])
    [skipped] = read_source(tmp_path, AS_FOUND).skipped_files
    assert (skipped.name, skipped.problem.code, skipped.problem.severity) == (name, "table unreadable", "reject")


@pytest.mark.parametrize("name", ["broken.json", "binary.csv", "config.json", "empty.csv"])
def test_a_foreign_table_is_a_note_where_there_are_no_captions(name: str, tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", b_dot_png="x")
    write(tmp_path, name, FOREIGN[name])
    [skipped] = read_source(tmp_path, AS_FOUND).skipped_files
    assert (skipped.name, skipped.problem.code, skipped.problem.severity) == (name, "other table", "note")


def test_a_table_of_captions_that_names_most_pictures_wins(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path, f"{name}.png")
    write(tmp_path, "a.txt", "beside")
    write(tmp_path, "list.csv", "file,caption\na.png,one\nb.png,two\n")
    assert captions(read_source(tmp_path, AS_FOUND)) == {"a.png": "one", "b.png": "two"}


@pytest.mark.parametrize("rows", ['a.png,"red shoe\nb.png,blue', 'a.png,"red shoe\nb.png,"blue"', 'a.png,"red" shoe'])
def test_a_quote_that_is_not_closed_is_an_error_with_its_line(rows: str, tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", b_dot_png="x", list_dot_csv=f"file,caption\n{rows}\n")
    with pytest.raises(DatasetError, match=r"list\.csv line 2 cannot be read .* quotes"):
        read_source(tmp_path, LayoutChoice(layout="table"))
    (note,) = read_source(tmp_path, AS_FOUND).skipped_files
    assert "list.csv line 2 cannot be read" in note.problem.sentence


@pytest.mark.parametrize("sign", "\u2028\u2029\u0085\x0b\x0c\x1c\x1e")
def test_json_lines_end_at_a_line_feed_alone(sign: str, tmp_path: Path) -> None:
    # Only these of them may stand unescaped in a JSON string.
    line = json.dumps({"file_name": "a.png", "text": f"red{sign}shoe"}, ensure_ascii=sign < " ")
    make(tmp_path, a_dot_png="x", metadata_dot_jsonl=line + "\r\n")
    reading = read_source(tmp_path, AS_FOUND)
    assert captions(reading) == {"a.png": "red shoe"}
    assert left(reading) == {}


def test_a_list_of_captions_is_joined_and_said(tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", metadata_dot_jsonl='{"file_name": "a.png", "text": ["a shoe", "a red shoe"]}')
    reading = read_source(tmp_path, AS_FOUND)
    assert captions(reading) == {"a.png": "a shoe, a red shoe"}
    assert left(reading) == {"metadata.jsonl": "captions in lists"}


def test_sd_scripts_metadata_is_caption_then_tags(tmp_path: Path) -> None:
    whole = {
        "a": {"caption": "a shoe", "tags": "red, worn"},
        "/elsewhere/set/sub/b.png": {"tags": "boot", "train_resolution": [64, 64]},
        "C:\\set\\c": {"caption": "a sock"},
        "/elsewhere/gone.png": {"caption": "gone"},
    }
    make(tmp_path, a_dot_png="x", sub__b_dot_png="x", c_dot_png="x", meta_cap_dot_json=json.dumps(whole))
    reading = read_source(tmp_path, AS_FOUND)
    assert captions(reading) == {"a.png": "a shoe, red, worn", "c.png": "a sock", "sub/b.png": "boot"}
    assert left(reading) == {"meta_cap.json row 4": "row leads out"}


# Captions named after the whole file


def test_a_caption_with_the_pictures_ending_in_its_name_is_found(tmp_path: Path) -> None:
    make(tmp_path, a_dot_png="x", a_dot_jpg="x", a_dot_png_dot_txt="png", a_dot_jpg_dot_txt="jpg", b_dot_png="x")
    reading = read_source(tmp_path, AS_FOUND)
    assert captions(reading) == {"a.png": "png", "a.jpg": "jpg", "b.png": None}
    assert left(reading) == {}
    write(tmp_path, "b.png.txt", "whole name")
    write(tmp_path, "a.txt", "both")
    write(tmp_path, "b.txt", "plain")
    reading = read_source(tmp_path, AS_FOUND)
    assert captions(reading) == {"a.png": "png", "a.jpg": "jpg", "b.png": "plain"}
    assert {problem.code for picture in reading.pictures for problem in picture.problems} == {"two captions"}


def test_a_kohya_project_is_read_with_its_repeats(tmp_path: Path) -> None:
    for name in ("img/20_red shoe/a.png", "img/20_red shoe/b.png", "img/3_boot/c.png", "reg/1_shoe/r.png"):
        write(tmp_path, name)
    write(tmp_path, "img/20_red shoe/b.txt", "own words")
    write(tmp_path, "model/sample/s.png")
    reading = read_source(tmp_path, AS_FOUND)
    assert reading.layout == "kohya"
    assert {p.key: (p.repeats, p.caption) for p in reading.pictures} == {
        "img/3_boot/c.png": (3, "boot"),
        "img/20_red shoe/a.png": (20, "red shoe"),
        "img/20_red shoe/b.png": (20, "own words"),
    }
    assert left(reading) == {"reg/1_shoe/r.png": "regularisation", "model/sample/s.png": "output of kohya_ss"}
    (kept_apart,) = read_source(tmp_path / "reg", AS_FOUND).pictures
    assert (kept_apart.repeats, kept_apart.caption) == (1, "shoe")
