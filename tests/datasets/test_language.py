"""A dataset in another language: what is compared, sent and kept stays English, and what is read does not."""

import html
import re
from pathlib import Path

import pytest

from studio.core import language
from studio.core.errors import system_error_message
from studio.core.files import file_stamp
from studio.core.language import _
from studio.core.paths import UserData
from studio.datasets.checker import CheckCache
from studio.datasets.inspection import rejected
from studio.datasets.query import EDITED, NEEDS_FIXING, SORT_NAMES, STATES, DatasetQuery, find_rows
from studio.datasets.reading import read_source
from studio.datasets.report import summarise
from studio.datasets.session import DatasetSession
from studio.datasets.source import YOUR_EDIT, LayoutChoice
from studio.ui.datasets.browser import choices_of, read_facets
from studio.ui.datasets.statistics import statistics_html
from tests.datasets.bad_inputs import encoded, picture
from tests.datasets.rows import make_facts, make_row


@pytest.mark.usefixtures("marked")
def test_a_bar_finds_its_images_and_is_called_otherwise() -> None:
    rows = [
        make_row(f"{i}.png", "shoe " * i, facts=make_facts(brightness=0.34), attributes={"colour": ""})
        for i in range(1, 20)
    ]
    page = statistics_html(summarise(rows, bucket_of=lambda row: "512 × 512"))
    found = re.findall(r'data-facet="([^"]*)".*?<button[^>]*>([^<]*)<.*?class="number">([^<]*)<', page)
    labels = {}
    for sent, label, number in found:
        (facet,) = read_facets(f"[{html.unescape(sent)}]")
        labels[facet.value] = label
        query = DatasetQuery(facets=(facet,), per_page=500)
        assert len(find_rows(rows, query, bucket_of=lambda row: "512 × 512")) == int(number), facet
        assert facet.label == label
    assert labels["0.3 to 0.4"] == "⟦0,3 to 0,4⟧"
    assert labels["(empty)"] == "⟦(empty)⟧"
    assert labels["2 to 3"] == "⟦2 to 3⟧"


@pytest.mark.usefixtures("marked")
def test_filters_and_orders_are_known_in_english() -> None:
    for names in (STATES, SORT_NAMES):
        assert choices_of(names) == [(f"⟦{name}⟧", name) for name in names]
    problems = rejected("damaged", "It is damaged.").problems
    rows = [make_row("a.png", caption_from=YOUR_EDIT), make_row("b.png", problems=problems)]
    for state, name in ((EDITED, "a.png"), (NEEDS_FIXING, "b.png")):
        (row,) = find_rows(rows, DatasetQuery(problem=state), bucket_of=lambda row: "")
        assert row.key == name


@pytest.mark.usefixtures("marked")
def test_codes_of_problems_are_english_and_their_sentences_are_not(tmp_path: Path) -> None:
    for name, content in {"a.png": b"", "a.txt": b"a\nb", "lone.txt": b"a", ".b": b"", "c": b"", "d.csv": b"x"}.items():
        (tmp_path / name).write_bytes(content)
    reading = read_source(tmp_path, LayoutChoice())
    found = [*(file.problem for file in reading.skipped_files), *reading.pictures[0].problems]
    assert {problem.code for problem in found} == {
        "caption of several lines",
        "caption without an image",
        "hidden file",
        "other file",
        "other table",
    }
    assert all("⟦" in problem.sentence for problem in found)


@pytest.mark.usefixtures("marked")
def test_what_was_found_once_is_said_in_the_language_of_whoever_reads_it(tmp_path: Path) -> None:
    cache = CheckCache(tmp_path / "checks.db")
    (tmp_path / "bad.png").write_bytes(b"")
    stamps = {tmp_path / "bad.png": file_stamp(tmp_path / "bad.png")}
    with language.for_later():
        reason = system_error_message(FileNotFoundError(2, "gone", "<b>.png"))
        facts = rejected("damaged", _("It cannot be decoded ({reason}).", reason=reason))
    cache.keep([(*next(iter(stamps.items())), facts)], background="#ffffff")
    (known,) = cache.find(stamps, background="#ffffff").values()
    (problem,) = known.problems
    assert known == facts
    assert f"{problem.sentence}".startswith("⟦It cannot be decoded (⟦")
    assert language.said(problem.sentence) == f"{problem.sentence}"
    with language.speaking(language.ENGLISH):
        assert f"{problem.sentence}" == f"It cannot be decoded ({reason})."


@pytest.mark.usefixtures("marked")
def test_two_pages_read_one_dataset_each_in_its_language(tmp_path: Path) -> None:
    source = tmp_path / "shoes"
    source.mkdir()
    (source / "a.png").write_bytes(encoded(picture(), "PNG"))
    (source / "lone.txt").write_bytes(b"a")
    session = DatasetSession(UserData(tmp_path / "user_data"), count_tokens=len)
    session.open_folder(str(source))
    opened = session.opened
    for tag in (language.PORTUGUESE, language.ENGLISH):
        with language.speaking(tag):
            assert session.opened is opened
            problems = [opened.skipped_files[0].problem, *opened.rows[0].problems]
            assert len(problems) > 1
            marked = {f"{problem.sentence}".startswith("⟦") for problem in problems}
            assert marked == {tag == language.PORTUGUESE}
    session.close()
