"""What is read from disk is bounded; what is made is not, so that no odd number ends the work that it tells of."""

import math
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from studio.core.errors import SettingsError
from studio.core.records import MOST, AnyFloat, Label, Record, label_or_none, read_label, write_label
from studio.core.settings import GenerationSettings


class Inner(Record):
    """A record in another."""

    number: int = 0


class Fact(Record):
    """One of each kind of field."""

    number: int = 0
    share: float | None = 0.0
    loss: AnyFloat = 0.0
    left_seconds: float = 0.0
    several: tuple[float, ...] = ()
    named: dict[str, int] = Field(default_factory=dict)
    inner: Inner | None = None
    settings: GenerationSettings | None = None


@pytest.mark.parametrize(
    "text",
    [
        '{"number": 1e400}',
        f'{{"number": {MOST + 1}}}',
        '{"share": NaN}',
        '{"share": Infinity}',
        '{"share": 1e300}',
        '{"left_seconds": 1e12}',
        '{"several": [0.5, NaN]}',
        '{"named": {"a": 99999999999999999999}}',
        '{"inner": {"number": 99999999999999999999}}',
    ],
)
def test_numbers_that_no_machine_has_are_refused_where_they_are_read(text: str) -> None:
    with pytest.raises(ValidationError):
        Fact.model_validate_json(text)


def test_what_may_be_infinite_is_read_back_as_it_was_written() -> None:
    for loss in (math.inf, -math.inf, 1e300):
        assert Fact.model_validate_json(Fact(loss=loss).model_dump_json()).loss == loss
    assert math.isnan(Fact.model_validate_json(Fact(loss=math.nan).model_dump_json()).loss)


def test_a_record_is_made_of_any_number_and_settings_keep_bounds_of_their_own() -> None:
    assert Fact(number=10**30, share=math.nan).number == 10**30
    settings = GenerationSettings(prompt="a", seed=MOST)
    whole = Fact(number=-MOST, share=-1.5, several=(1.0, 2.0), named={"a": 3}, inner=Inner(number=4), settings=settings)
    assert Fact.model_validate_json(whole.model_dump_json()) == whole


# Names and notes


@given(
    st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=80),
    st.text(st.characters(exclude_categories=("Cc", "Cs")) | st.sampled_from("\n\t"), max_size=300),
    st.booleans(),
)
def test_a_name_and_a_note_are_read_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, name: str, note: str, starred: bool
) -> None:
    file = tmp_path_factory.getbasetemp() / "label.json"
    assume(not re.search("[\u202a-\u202e\u2066-\u2069\u2028\u2029]", name + note))
    written = Label.of(name=name, note=note, starred=starred)
    assert (written.name, written.note) == (name.strip(), note)
    write_label(file, written)
    assert read_label(file) == written


@given(st.text(max_size=100), st.text(max_size=100))
def test_any_other_text_is_refused_in_a_sentence_or_kept(name: str, note: str) -> None:
    try:
        label = Label.of(name=name, note=note)
    except SettingsError as error:
        assert re.match(r"(Name|Note) must ", str(error))
    else:
        assert Label.model_validate_json(label.model_dump_json()) == label


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ({"name": "x" * 81}, "Name must have at most 80 characters"),
        ({"note": "x" * 2001}, "Note must have at most 2000 characters"),
        ({"name": "a\nb"}, "Name must be one line"),
        ({"name": "a\x1bb"}, "Name must not hold control characters, such as U\\+001B"),
        ({"note": "a\u202eb"}, "Note must not hold control characters, such as U\\+202E"),
        ({"note": "\ud83d"}, "Note must hold whole characters"),
    ],
)
def test_what_cannot_be_shown_is_refused(texts: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        Label.of(**texts)


@given(st.binary(max_size=60) | st.from_regex(rb'\{"(name|note|x)": ("[^"]*"|[0-9]+|null)\}', fullmatch=True))
def test_a_damaged_label_is_an_error_of_ours_and_an_empty_one_in_lists(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "damaged.json"
    file.write_bytes(content)
    try:
        label = read_label(file)
    except SettingsError:
        label = Label()
    assert label_or_none(file) == label


def test_an_empty_label_leaves_no_file(tmp_path: Path) -> None:
    file = tmp_path / "label.json"
    assert read_label(file) == Label()
    write_label(file, Label(note="a"))
    write_label(file, Label())
    assert list(tmp_path.iterdir()) == []
