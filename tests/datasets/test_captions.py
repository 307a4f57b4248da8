"""Caption files: strict UTF-8, the bad byte named, a guess offered."""

import os
import random
from pathlib import Path

import pytest

from studio.core.errors import DatasetError
from studio.datasets.captions import MAX_CAPTION_BYTES, decode_caption, guess_caption, read_caption


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
