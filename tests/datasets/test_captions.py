"""Caption files: strict UTF-8, the bad byte named, a guess offered."""

import os
import random
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.core.errors import DatasetError
from studio.core.files import guess_text
from studio.datasets.bulk import BulkChange, change_caption
from studio.datasets.captions import (
    MAX_CAPTION_BYTES,
    alternatives_of,
    caption_file,
    caption_targets,
    decode_caption,
    find_captions,
    guess_caption,
    read_caption,
)


def codes(content: bytes) -> list[str]:
    return [problem.code for problem in decode_caption(content).problems]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"a red shoe\n", "a red shoe"),
        (b"a red shoe\r\n", "a red shoe"),
        (b"  a   red\tshoe ", "a red shoe"),
        ("Größe 42, café".encode(), "Größe 42, café"),
        ("靴 🥾".encode(), "靴 🥾"),
        (b"one, two\n\n\n", "one, two"),
    ],
)
def test_plain_captions_are_read_without_a_word(content: bytes, text: str) -> None:
    reading = decode_caption(content)
    assert reading.text == text
    assert reading.problems == ()


def test_a_byte_order_mark_is_left_out_and_said() -> None:
    assert decode_caption(b"\xef\xbb\xbfa shoe").text == "a shoe"
    assert codes(b"\xef\xbb\xbfa shoe") == ["caption with BOM"]


@pytest.mark.parametrize(
    "content", ["\ufeff\ufeffa shoe", "\ufeff \ufeff a shoe\n", "\ufeffa\r\n\ufeffshoe", "\n\ufeffa shoe"]
)
def test_every_byte_order_mark_is_left_out(content: str) -> None:
    assert decode_caption(content.encode()).text == "a shoe"


def test_rtf_and_other_encodings_are_seen_behind_several_marks() -> None:
    for before in (b"\xef\xbb\xbf" * 2, b"\xef\xbb\xbf \xef\xbb\xbf", b"\xc2\xa0"):
        assert codes(before + rb"{\rtf1 a shoe}") == ["caption is RTF"]
    assert guess_text("\ufeff\ufeff\ufeffé".encode("utf-16-le"))[0] == "é"
    assert guess_text(b"\xef\xbb\xbf" * 2 + "été".encode("latin-1"))[0] == "été"


def test_lines_are_joined_and_said() -> None:
    assert decode_caption(b"a shoe\nred\n").text == "a shoe red"
    assert codes(b"a shoe\nred\n") == ["caption of several lines"]


@pytest.mark.parametrize("content", [b"", b"\n", b"   \t \r\n"])
def test_an_empty_caption_is_said(content: bytes) -> None:
    assert decode_caption(content).text == ""
    assert codes(content) == ["caption empty"]


def test_a_zero_byte_is_rejected_by_its_place() -> None:
    (problem,) = decode_caption(b"a sh\0oe").problems
    assert problem.severity == "reject"
    assert "Byte 5" in problem.sentence


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "shift_jis"])
def test_other_encodings_are_rejected_with_an_offer(encoding: str) -> None:
    text = "これは白い靴の写真です、きれいな背景" if encoding == "shift_jis" else "schöne Größe, café"
    (problem,) = decode_caption(text.encode(encoding)).problems
    assert (problem.code, problem.severity) == ("caption not UTF-8", "reject")
    assert "recode caption" in problem.remedies


def test_the_first_bad_byte_is_named() -> None:
    (problem,) = decode_caption("Größe".encode("latin-1")).problems
    assert "Byte 3" in problem.sentence
    assert "0xf6" in problem.sentence


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Größe 42, ein schöner Schuh", "latin-1"),
        ("“quoted” – naïve café shoe", "cp1252"),
        ("schöne Schuhe", "utf-16"),
        ("これは白い靴の写真です、きれいな背景", "shift_jis"),
        # a few words or fewer, where statistics have nothing to go by
        ("für", "latin-1"),
        ("Öl", "latin-1"),
        ("é", "latin-1"),
        ("fête", "latin-1"),
        ("vêtu, été\r\n", "latin-1"),
        ("sûr", "latin-1"),
        ("“Öl”", "cp1252"),
        ("5 €", "cp1252"),
        ("靴", "shift_jis"),
        ("白い靴\r\n", "shift_jis"),
        ("スニーカー", "shift_jis"),
        ("ｼｭｰｽﾞ", "shift_jis"),
        ("a photo of 靴", "shift_jis"),
        ("ботинки", "cp1251"),
        ("红色运动鞋", "gb18030"),
        ("靴", "utf-16"),
        ("a shoe", "utf-16-le"),
        ("a shoe", "utf-16-be"),
    ],
)
def test_the_guess_reads_it_right(text: str, encoding: str, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(text.encode(encoding))
    assert guess_caption(file)[0] == text.strip()


def test_utf16_without_its_mark_is_rejected_with_an_offer() -> None:
    (problem,) = decode_caption("a shoe".encode("utf-16-le")).problems
    assert (problem.code, problem.severity) == ("caption with NUL", "reject")
    assert "recode caption" in problem.remedies
    assert "“a shoe”" in problem.sentence


def test_a_bad_byte_behind_a_mark_is_counted_from_the_files_start(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbfcaf\xe9"
    assert "Byte 7, " in decode_caption(content).problems[0].sentence.replace(" of the caption file", "")
    (tmp_path / "a.txt").write_bytes(content)
    assert guess_caption(tmp_path / "a.txt") == ("café", "cp1252")


@pytest.mark.parametrize("seed", range(20))
def test_no_bytes_whatever_make_it_fail(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(50):
        content = chance.randbytes(chance.randrange(80))
        reading = decode_caption(content)
        assert (reading.text is None) == any(problem.severity == "reject" for problem in reading.problems)
        if reading.text is not None:
            assert reading.text.split() == content.decode("utf-8-sig").split()


def test_no_guess_is_made_of_noise(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(bytes(range(256)) * 3)
    with pytest.raises(DatasetError, match="encoding"):
        guess_caption(file)


def test_ten_megabytes_are_no_caption(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"shoe " * 2_000_000)
    (problem,) = read_caption(file).problems
    assert problem.code == "caption too large"
    file.write_bytes(b"x" * MAX_CAPTION_BYTES)
    assert read_caption(file).text


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such pipes")
@pytest.mark.timeout(10)
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    assert read_caption(tmp_path / "a.txt").text is None


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    assert [p.code for p in read_caption(tmp_path / "a.txt").problems] == ["caption unreadable"]


RTF = rb"{\rtf1\ansi\ansicpg1252{\fonttbl\f0 Helvetica;}\f0\fs24 Gr\'f6\'dfe, \u38772 ?\par}"


def test_rtf_is_rejected_with_its_text_and_one_click_takes_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(RTF)
    reading = read_caption(tmp_path / "a.txt")
    (problem,) = reading.problems
    assert (reading.text, problem.code) == (None, "caption is RTF")
    assert "recode caption" in problem.remedies
    assert "“Größe, 靴”" in problem.sentence
    assert guess_caption(tmp_path / "a.txt") == ("Größe, 靴", "RTF")


@pytest.mark.parametrize(
    ("rtf", "text"),
    [
        (rb"{\rtf1 shoe \uc0\u55357 \u56842 }", "shoe 😊"),  # TextEdit's emoji: two halves
        (rb"{\rtf1 shoe \u-10179 ?\u-8694 ?}", "shoe 😊"),
        (rb"{\rtf1 half \u-10179 ?}", "half \ufffd"),
        (rb"{\rtf1{\fonttbl\f0\fnil\fcharset134 SimSun;}\f0 \'b0\'d7 shoe}", "白 shoe"),
        (rb"{\rtf1\ansi\ansicpg932{\fonttbl\f0\fcharset128 X;}\f0 \'83e\'83X\'83g red}", "テスト red"),
        (rb"{\rtf1\ansi\ansicpg932{\fonttbl\f0\fcharset128 X;}\f0 \'95\'5c\'8e\'a6\'83\'5c}", "表示ソ"),
        (rb"{\rtf1\ansi\ansicpg1252 caf\'e9 \'e9t\'e9}", "café été"),
        (rb'{\rtf1 a {\field{\*\fldinst{HYPERLINK "http://x.y"}}{\fldrslt boot}} red}', "a boot red"),
    ],
)
def test_rtf_is_read_with_emoji_links_and_other_code_pages(rtf: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "a.rtf").write_bytes(rtf)
    assert guess_caption(tmp_path / "a.rtf") == (text, "RTF")
    (problem,) = decode_caption(rtf).problems
    assert f"“{text}”" in problem.sentence
    assert problem.model_dump_json()


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "pieces",
    [
        rb"{\fonttbl|\f1\fcharset1 ",
        rb"{\fonttbl|\f1 |}",
        rb"{\fonttbl|{\f1\fcharset1 x;}|}\f1 x",
        rb'{\field{\*\fldinst{|HYPERLINK "a" ',
        rb'{\field{\*\fldinst{HYPERLINK "a"}}{|  ',
        rb"|{\field{\*\fldinst{",
        rb"\pict|\bin",
    ],
)
def test_no_rtf_takes_for_ever(pieces: bytes) -> None:
    start, repeated, *end = pieces.split(b"|")
    decode_caption(b"{\\rtf1 " + start + repeated * (40_000 // len(repeated)) + b"".join(end))


RTF_PIECES = (
    rb"\u|\u-10179 ?|\u99999999999 ?|\'|\'e9|\ansicpg1252|\ansicpg99999|\uc|\uc9|\fcharset128|\bin9 |{|}|\par| x|\*|"
    rb"{\fonttbl\f0\fcharset134 A;}|\f0".split(b"|")
)
STARTS = (*rb"{\rtf1||{|x".split(b"|"), b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\x94\x92", b"\xe9", b"\0")


@given(
    st.sampled_from(STARTS), st.lists(st.sampled_from(RTF_PIECES) | st.binary(max_size=4), max_size=10).map(b"".join)
)
def test_whatever_a_caption_file_holds_only_we_raise_and_what_is_read_can_be_kept(start: bytes, rest: bytes) -> None:
    reading = decode_caption(start + rest)
    assert (reading.text is None) == any(problem.severity == "reject" for problem in reading.problems)
    for problem in reading.problems:
        assert problem.model_dump_json()
    if reading.text:
        assert decode_caption(caption_file("a.png", reading.text)).text == reading.text


CAPTIONS = st.text(st.sampled_from("ab ,.:()[]<>{}\\*\"'\n\r\t\0\u2028\u0085\ufeff\u200béß靴🥾ﬁ"), max_size=12)


@given(CAPTIONS | CAPTIONS.map("{{\\rtf1 {}".format))
def test_a_caption_reads_back_as_it_was_written_or_is_refused(caption: str) -> None:
    text = " ".join(caption.split())
    try:
        content = caption_file("a.png", text)
    except DatasetError as error:
        assert "\0" in text or text.startswith(("\ufeff", "{\\rtf"))
        assert str(error).startswith("The caption of a.png cannot be kept in a text file")
    else:
        assert decode_caption(content).text == text
        assert decode_caption(content).problems == decode_caption(f"{text}\n".encode()).problems


def test_half_of_a_character_is_not_written() -> None:
    with pytest.raises(DatasetError, match="half of one"):
        caption_file("a.png", "x\ud800")


@given(CAPTIONS, st.builds(BulkChange, find=CAPTIONS, replace=CAPTIONS, prefix=CAPTIONS, suffix=CAPTIONS,
                           whole_words=st.booleans(), remove_repeats=st.booleans()))  # fmt: skip
def test_a_bulk_change_gives_a_line_and_adds_nothing_twice(caption: str, change: BulkChange) -> None:
    text = change_caption(caption, change)
    assert text == " ".join(text.split())
    ends = BulkChange(prefix=change.prefix, suffix=change.suffix)
    assert change_caption(change_caption(caption, ends), ends) == change_caption(caption, ends)


# Names: an image's caption is found whatever both are called, and is another image's only where it is said

STEMS = ("a", "a.png", "v1.5 shoe", "caf\u00e9", "cafe\u0301", "🥾", "a\u200b", "a ", "a.", "-a", "靴", "a_mask", "CON")
ENDINGS = (".png", ".PNG", ".jpg", "", ".png.jpg")


@given(
    st.lists(st.builds("{}{}".format, st.sampled_from(STEMS), st.sampled_from(ENDINGS)), min_size=1, unique=True),
    st.sets(st.builds("{}{}".format, st.sampled_from((*STEMS, "a.png.png")), st.sampled_from([".txt", ".TXT"]))),
)  # fmt: skip
def test_a_caption_is_written_where_it_is_read_first(pictures: list[str], captions: set[str]) -> None:
    found = find_captions(pictures, sorted(captions))
    counted = {key: next(iter(files), "") for key, files in found.items()}
    targets = caption_targets(counted)
    written = {key: target for key, target in targets.items() if target is not None}
    assert len(set(written.values())) == len(written)
    after = find_captions(pictures, sorted({*captions, *written.values()}))
    for key, target in written.items():
        assert after[key][0] == target
    for key in pictures:
        if key not in written:  # its name is another's too
            assert not {target for target in after[key] if target in written.values()} - {*found[key], *after[key][1:]}
            alike = [other for other in pictures if other != key and _may_share(other, key)]
            assert alike


def _may_share(one: str, other: str) -> bool:
    one, other = unicodedata.normalize("NFC", one), unicodedata.normalize("NFC", other)
    return one == other or one.startswith(f"{other}.") or other.startswith(f"{one}.")


@pytest.mark.parametrize(
    ("caption", "several"),
    [
        ("a shoe", ("a shoe",)),
        ("a shoe || red  sneakers", ("a shoe", "red sneakers")),
        ("a|b", ("a|b",)),
        ("|| a ||", ("a",)),
        ("a || a", ("a",)),
        ("", ("",)),
        (" || ", ("",)),
    ],
)
def test_several_captions_stand_in_one(caption: str, several: tuple[str, ...]) -> None:
    assert alternatives_of(caption) == several
