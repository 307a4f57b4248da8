"""Settings of runs that are laid over each other: only those that differ, in words."""

from pathlib import Path

from studio.training.folder import RunFolder
from studio.training.settings import TrainingSettings
from studio.ui.training.view import differences_html, differing, value_words
from tests.training.told_runs import SETTINGS, make_run


def with_changes(folder: Path, **changes: object) -> RunFolder:
    return make_run(folder, [], settings=SETTINGS.model_copy(update=changes))


def test_only_what_differs_has_a_row_with_each_runs_value(tmp_path: Path) -> None:
    one = with_changes(tmp_path / "one", rank=8)
    two = with_changes(tmp_path / "two", rank=128, max_train_steps=3_000, name="other")
    html = differences_html([one, two], {"two": "Second"})
    assert html.index("one") < html.index("Second")
    assert '<th scope="col">Setting</th>' in html
    assert "<td>Rank</td><td>8</td><td>128</td>" in html
    assert "<td>400</td><td>3,000</td>" in html
    assert html.count("<tr>") == 3, "the head, steps and rank: names stand in the head already"


def test_the_same_settings_are_said_to_be_the_same(tmp_path: Path) -> None:
    runs = [with_changes(tmp_path / name) for name in ("one", "two")]
    assert "the same settings" in differences_html(runs, {})
    assert differences_html(runs[:1], {}) == ""


def test_hostile_values_are_text_and_damaged_settings_are_said(tmp_path: Path) -> None:
    one, two = with_changes(tmp_path / "one"), with_changes(tmp_path / "two", trigger_word="<b>x</b>")
    assert "<b>x" not in differences_html([one, two], {})
    two.settings.write_text("{", encoding="utf-8")
    assert "cannot be compared" in differences_html([one, two], {})


def test_values_are_words() -> None:
    values = [None, "", (), True, False, 3000, 0.0001, ("a", "b"), "AdamW"]
    assert list(map(value_words, values)) == ["–", "–", "–", "yes", "no", "3,000", "0.0001", "a | b", "AdamW"]


def test_they_are_in_the_forms_order() -> None:
    other = TrainingSettings(dataset="x", rank=9, seed=5, trigger_word="t")
    names = differing([TrainingSettings(dataset="y"), other])
    assert names == sorted(names, key=list(TrainingSettings.model_fields).index)
