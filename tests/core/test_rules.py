"""What is said of a broken rule: the setting by its label, its whole range, and nothing in the words of a framework."""

import importlib
import re
from collections.abc import Iterator
from gettext import NullTranslations

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from studio.core import language
from studio.core.errors import SettingsError
from studio.core.rules import label_of, labels_alone, nearest_setting, rules_of, shown
from studio.core.settings import GenerationSettings, Settings, parse_settings
from studio.training.settings import TrainingSettings

MODULES = ("training.settings", "batches.settings", "datasets.query", "datasets.edits", "datasets.source", "cli.export")
FRAMEWORK = re.compile(r"input|should|valid|pattern|regex|unable|parse|literal|instance|pydantic|\^|\\", re.IGNORECASE)
WRONG: tuple[object, ...] = ("", "x", "1e3", "../up", -1, 1e9, 2.5, float("nan"), None, [], {}, ["a"] * 99, "x" * 3000)


def all_settings() -> Iterator[type[Settings]]:
    for module in MODULES:
        importlib.import_module(f"studio.{module}")
    found = [Settings]
    for kind in found:
        found += kind.__subclasses__()
    return (kind for kind in found if kind.__module__.startswith("studio.") and kind.model_fields)


FIELDS = [(kind, name, field) for kind in all_settings() for name, field in kind.model_fields.items()]
NUMBERS = [
    (kind, name, rules)
    for kind, name, field in FIELDS
    if (rules := [rule for rule in rules_of(field) if isinstance(rule, Ge | Gt | Le | Lt)])
]


def problem_of(kind: type[Settings], name: str, value: object) -> str:
    """What is said of one value alone; "" where it is taken, or only other settings are missing."""
    try:
        parse_settings(kind, {name: value})
    except SettingsError as error:
        return re.sub(r"(^| )[^.]* is missing\.", "", str(error)).strip()
    return ""


def test_there_are_settings_to_look_at() -> None:
    assert len(FIELDS) > 100
    assert len(NUMBERS) > 40


@pytest.mark.parametrize(
    ("kind", "name", "rules"), NUMBERS, ids=[f"{kind.__name__}.{name}" for kind, name, _ in NUMBERS]
)
def test_a_number_out_of_range_is_named_by_its_label_with_its_range(
    kind: type[Settings], name: str, rules: list[object]
) -> None:
    low = next((rule for rule in rules if isinstance(rule, Ge | Gt)), None)
    high = next((rule for rule in rules if isinstance(rule, Le | Lt)), None)
    for bound, beyond in filter(lambda end: end[0], ((low, -5), (high, 10))):
        limit = next(getattr(bound, end) for end in ("ge", "gt", "le", "lt") if hasattr(bound, end))
        wrong = limit + beyond if isinstance(limit, int) else limit + float(beyond)
        field = kind.model_fields[name]
        value: object = [wrong] if "tuple" in str(field.annotation) else wrong
        said = problem_of(kind, name, value)
        assert said.startswith(label_of(kind, name)), said
        assert str(limit).removesuffix(".0") in said, said
        assert not FRAMEWORK.search(said.partition(", got ")[0].removeprefix(label_of(kind, name))), said


@pytest.mark.parametrize(("kind", "name", "field"), FIELDS, ids=[f"{kind.__name__}.{name}" for kind, name, _ in FIELDS])
def test_nothing_is_said_in_the_words_of_the_framework(kind: type[Settings], name: str, field: FieldInfo) -> None:
    assert not any(getattr(rule, "pattern", None) for rule in field.metadata), "say which characters are allowed"
    if hasattr(field.annotation, "model_fields"):
        return
    for value in WRONG:
        for said in problem_of(kind, name, value).split(". "):
            rule = said.partition(", got ")[0].replace(label_of(kind, name), "")
            assert not FRAMEWORK.search(rule), said


@pytest.mark.parametrize(
    ("typed", "near"),
    [("rnk", "rank"), ("learning-rate", "learning_rate"), ("Steps", "max_train_steps"), ("optimiser", "optimizer")],
)
def test_the_nearest_setting_is_found_by_its_name_or_its_label(typed: str, near: str) -> None:
    assert nearest_setting(typed, [TrainingSettings]) == f" Did you mean {near}?"


def test_a_name_with_nothing_near_it_suggests_nothing() -> None:
    assert nearest_setting("qqqqq", [TrainingSettings]) == ""
    with pytest.raises(SettingsError, match=r"^guidance is not a setting, got 3\. Did you mean guidance_scale\?$"):
        parse_settings(GenerationSettings, {"prompt": "a", "guidance": 3})


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "nothing"),
        (10**99, "a number of about 99 digits"),
        (-(10**9999), "a number of about 9999 digits"),  # too long for Python to write
        (10**20, "100000000000000000000"),
        (True, "True"),
    ],
    ids=["empty", "large", "endless", "whole", "truth"],
)
def test_an_empty_box_and_a_number_without_end_are_said_in_short(value: object, words: str) -> None:
    assert shown(value) == words


WORDS = {
    "Steps": "Passos",
    "Strength": "Força",
    "must be between {least} and {most}": "deve ficar entre {least} e {most}",
    "must be {choices}": "deve ser {choices}",
    "{others} or {last}": "{others} ou {last}",
    "{label} {rule}, got {value}.": "{label} {rule}, mas é {value}.",
    "nothing": "nada",
    "Did you mean {name}?": "Seria {name}?",
}


class FewWords(NullTranslations):
    """A catalogue of what the tests below look for."""

    def gettext(self, message: str) -> str:
        return WORDS.get(message, message)


@pytest.fixture
def portuguese(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(language, "catalogue", lambda tag: FewWords() if tag == language.PORTUGUESE else None)
    with language.speaking(language.PORTUGUESE):
        yield


@pytest.mark.usefixtures("portuguese")
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("num_inference_steps", 0, "Passos (num_inference_steps) deve ficar entre 1 e 150, mas é 0."),
        ("loras", [{"name": "a", "strength": 9}], "LoRAs 1, Força (strength) deve ficar entre -4 e 4, mas é 9."),
        ("seed", None, "Seed must be a whole number, mas é nada."),
    ],
)
def test_a_rule_is_said_in_the_language_that_is_spoken(name: str, value: object, said: str) -> None:
    assert problem_of(GenerationSettings, name, value) == said


@pytest.mark.usefixtures("portuguese")
def test_a_page_reads_the_label_alone() -> None:
    with labels_alone():
        assert problem_of(GenerationSettings, "num_inference_steps", 0) == "Passos deve ficar entre 1 e 150, mas é 0."


@pytest.mark.usefixtures("portuguese")
def test_choices_and_limits_are_written_as_the_language_writes_them() -> None:
    said = problem_of(GenerationSettings, "scheduler", "Eulr")
    assert said.startswith("Scheduler deve ser \"model's own\", 'DDIM', ") and "'DDPM' ou 'LCM', mas é" in said
    assert "deve ficar entre 0 e 0,9, mas é 2." in problem_of(TrainingSettings, "lora_dropout", 2)


@pytest.mark.usefixtures("portuguese")
@pytest.mark.parametrize("typed", ["Passos", "steps"])
def test_a_setting_is_found_by_what_the_page_calls_it_in_either_language(typed: str) -> None:
    assert nearest_setting(typed, [GenerationSettings]) == " Seria num_inference_steps?"
