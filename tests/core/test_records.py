"""What is read from disk is bounded; what is made is not, so that no odd number ends the work that it tells of."""

import math

import pytest
from pydantic import Field, ValidationError

from studio.core.records import MOST, AnyFloat, Record
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
