"""The Batch tab's form: every setting has its place, what it holds is what is made, and the preview says that."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import gradio as gr
import pytest

from studio.batches.folder import begin_batch, plan_of
from studio.batches.forecast import PlanFacts
from studio.batches.ledger import ItemRow, Ledger
from studio.batches.session import BatchSession
from studio.batches.settings import BatchSettings
from studio.core.errors import SettingsError
from studio.core.paths import UserData
from studio.core.settings import GenerationSettings, parse_settings
from studio.jobs.queue import JobQueue
from studio.training.folder import RunFolder
from studio.ui.batches import form as batch_form
from studio.ui.batches import preview as batch_preview
from studio.ui.forms import LORA_ROWS, form_groups, help_html
from studio.ui.shell.commands import PreflightState
from studio.ui.shell.parts import problem
from studio.ui.shell.status import start_words
from tests.ui.queued import job_line


@pytest.fixture(scope="module")
def named() -> dict[str, gr.components.Component]:
    with gr.Blocks():
        return batch_form.build().named


def values_of(named: dict[str, gr.components.Component], **changes: object) -> dict[str, Any]:
    return {**{name: control.value for name, control in named.items()}, **changes}


def test_every_setting_is_in_the_form_and_so_is_what_all_images_share(
    named: dict[str, gr.components.Component],
) -> None:
    own = {name for names in form_groups(BatchSettings).values() for name in names}
    assert own == set(BatchSettings.model_fields) - {"cpu", "generation"}
    shared = {name for names in form_groups(GenerationSettings).values() for name in names} | {
        "negative_prompt",
        "size",
        "speed",
    }
    rows = {f"{what}_{i}" for what in ("lora", "strength") for i in range(LORA_ROWS)}
    assert set(named) == own | shared | rows


def test_an_untouched_form_with_a_prompt_is_the_default_batch(named: dict[str, gr.components.Component]) -> None:
    settings = parse_settings(BatchSettings, batch_form.read_form(values_of(named, prompts="boots")))
    assert settings == BatchSettings(prompts="boots")


def test_a_batchs_settings_fill_the_form_and_are_read_back_the_same(named: dict[str, gr.components.Component]) -> None:
    generation = {
        "prompt": "",
        "seed": 7,
        "width": 96,
        "height": 128,
        "scheduler": "Euler",
        "loras": [{"name": "a", "strength": 0.5}, {"name": "b"}],
    }
    changes = {"total": 500, "most_offset": 0.25, "reject_copies": True, "grid_x": "colour", "generation": generation}
    settings = parse_settings(BatchSettings, {**batch_form.EXAMPLE, **changes})
    values = batch_form.form_values(named, settings)
    assert set(values) == set(named)
    assert parse_settings(BatchSettings, batch_form.read_form(values)) == settings


def test_a_scheduler_and_steps_that_do_not_fit_are_refused(named: dict[str, gr.components.Component]) -> None:
    values = values_of(named, prompts="boots", scheduler="LCM", num_inference_steps=60)
    with pytest.raises(
        SettingsError, match=r"^Steps [(]num_inference_steps[)] must be at most 50 with the scheduler LCM, got 60"
    ):
        parse_settings(BatchSettings, batch_form.read_form(values))


def test_help_shows_underscores_and_braces_as_they_are_typed() -> None:
    html = help_html(BatchSettings.model_fields["prompts"].description or "")
    assert "<code>__colour__</code>" in html
    assert "<code>{red|blue}</code>" in html
    assert help_html("a `<b>` c") == '<p class="quiet">a <code>&lt;b&gt;</code> c</p>'


def test_more_loras_than_the_form_has_rows_for_are_refused_and_not_dropped(
    named: dict[str, gr.components.Component],
) -> None:
    loras = [{"name": name} for name in "abcd"]
    settings = parse_settings(BatchSettings, {"prompts": "x", "generation": {"prompt": "", "loras": loras}})
    with pytest.raises(SettingsError, match="4 LoRAs"):
        batch_form.form_values(named, settings)


def test_0_stands_for_no_limit_and_a_whole_number_stays_whole(named: dict[str, gr.components.Component]) -> None:
    read = batch_form.read_form(values_of(named, total=0, least_whiteness=0.0, max_retries=5.0, most_offset=0.5))
    assert (read["total"], read["least_whiteness"], read["max_retries"]) == (None, None, 5)
    assert isinstance(read["max_retries"], int)
    assert read["most_offset"] == 0.5


def test_the_example_is_a_plan_of_sixty_that_is_shown_with_its_counts(tmp_path: Path) -> None:
    settings = parse_settings(BatchSettings, batch_form.EXAMPLE)
    html = batch_preview.preview_html(PlanFacts.of(plan_of(settings, UserData(tmp_path))))
    assert "<b>60 images</b>" in html
    assert '<th scope="row">black</th><td>12</td>' in html
    assert '<th scope="row">boots</th><td>15</td>' in html
    assert html.count("product photo of") == 10


def test_texts_of_a_plan_are_text(tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    settings = BatchSettings(prompts=f"{hostile} {{a}}", attributes=f'a: "{hostile}", b')
    html = batch_preview.preview_html(PlanFacts.of(plan_of(settings, UserData(tmp_path))))
    assert "<img" not in html + problem(hostile)


def test_many_values_are_cut_and_many_pictures_are_not_counted_while_one_types() -> None:
    html = batch_preview.counts_html({"colour": {f"c{i}": 1 for i in range(30)}, "id": 5000})
    assert "and 18 more" in html
    assert "5,000 different values" in html
    facts = PlanFacts(num_items=10**7, num_columns=1, value_counts={}, examples=(), notes=())
    assert "“Measure”" in batch_preview.preview_html(facts)


def test_a_large_file_of_prompts_is_not_read_while_one_types(tmp_path: Path) -> None:
    small, large = tmp_path / "small.txt", tmp_path / "large.txt"
    small.write_text("boots\n", encoding="utf-8")
    large.write_text("boots\n" * 2_000_000, encoding="utf-8")
    assert not batch_preview.is_too_large_to_follow(BatchSettings(prompt_file=str(small)))
    assert batch_preview.is_too_large_to_follow(BatchSettings(prompt_file=str(large)))
    assert not batch_preview.is_too_large_to_follow(BatchSettings(prompts="boots", prompt_file="~nobody/at all"))


def test_the_forecast_is_a_sentence_and_what_went_wrong_is_text(tmp_path: Path) -> None:
    facts = PlanFacts(
        num_items=60,
        num_columns=0,
        value_counts={},
        examples=(),
        notes=(),
        seconds_per_picture=1.0,
        bytes_per_picture=20_000,
        free_bytes=10**12,
    )
    found = batch_preview.forecast_html(PreflightState(result_json=facts.model_dump_json()), ())
    assert "60 images in 1 min 00 s (1.00 s each), " in found
    assert 'data-seconds="60"' in found, "the page's script says when it is ready, and keeps that true"
    ahead = [job_line(RunFolder(tmp_path), state=state) for state in ("running", "queued", "finished")]
    assert "(after 2 jobs in the queue)" in batch_preview.forecast_html(
        PreflightState(result_json=facts.model_dump_json()), ahead
    )
    assert batch_preview.ahead_html(ahead) == '<span hidden data-ahead="2"></span>'
    assert 'data-ahead="2"' in batch_preview.line_html(60, None, jobs_before=2)
    assert (start_words(ahead), start_words(ahead[2:])) == ("Add to queue", "Start")
    assert "&lt;b&gt;" in batch_preview.forecast_html(PreflightState(problem="<b>"), ())
    assert "measured" in batch_preview.forecast_html(PreflightState(running=True), ())
    assert "“Measure”" in batch_preview.forecast_html(PreflightState(result_json="{}"), ())


def test_a_grid_becomes_two_columns_and_one_seed_for_all(tmp_path: Path) -> None:
    found = batch_form.grid_columns("num_inference_steps", "4, 8", batch_form.WORD, "red, blue", seed=7)
    assert found == {
        "attributes": "num_inference_steps: 4, 8\ny: red, blue\nseed: 7",
        "grid_x": "num_inference_steps",
        "grid_y": "y",
    }
    settings = parse_settings(BatchSettings, {"prompts": "{y} boots", **found})
    plan = plan_of(settings, UserData(tmp_path))
    made = [plan.item(i).generation for i in range(plan.num_items)]
    assert {(one.num_inference_steps, one.prompt, one.seed) for one in made} == {
        (4, "red boots", 7),
        (4, "blue boots", 7),
        (8, "red boots", 7),
        (8, "blue boots", 7),
    }


def test_a_grid_of_one_axis_or_of_seeds_needs_no_more() -> None:
    found = batch_form.grid_columns("seed", "1, 2", batch_form.NOTHING, "", seed=7)
    assert found == {"attributes": "seed: 1, 2", "grid_x": "seed", "grid_y": ""}
    with pytest.raises(SettingsError, match="values across"):
        batch_form.grid_columns("seed", " ", batch_form.NOTHING, "", seed=7)
    with pytest.raises(SettingsError, match="must differ"):
        batch_form.grid_columns("seed", "1", "seed", "2", seed=7)


def test_a_forecast_carries_what_it_was_made_for_as_text() -> None:
    made_with = {"name": "x", "num_inference_steps": 3, "prompts": "<b>'\"", "unknown": 1}
    html = batch_preview.forecast_html(PreflightState(running=True, form=made_with, number=7), ())
    (found,) = re.findall(r'data-form="batch" data-made-for="([^"]*)" data-button="Measure"', html)
    assert json.loads(unescape(found)) == [["num_inference_steps", "Steps", 3], ["prompts", "Prompts", "<b>'\""]]
    assert "made-for" not in batch_preview.forecast_html(PreflightState(), ()), "nothing was measured"


def finished_batch(session: BatchSession, **changes: object) -> None:
    """One of two images that took 3 s and 1 MB each, at 10 steps."""
    generation = GenerationSettings(prompt="", num_inference_steps=10)
    settings = BatchSettings(prompts="a boot", images_per_prompt=2, generation=generation)
    batch = begin_batch(settings.model_copy(update=changes), session.user_data)
    batch.ledgers.mkdir()
    noted = Ledger(batch.ledgers / "process-0.db")
    for item in range(2):
        noted.add(
            ItemRow(
                item=item, state="done", seed=1, attempts=1, seconds=2 + 2 * item, num_bytes=1_000_000, made_at="2026"
            )
        )
    noted.close()


def line_of(session: BatchSession, *, measured: PreflightState | None = None, **changes: object) -> str:
    generation = GenerationSettings(prompt="", num_inference_steps=20)
    asked = BatchSettings(prompts="a boot", images_per_prompt=60, generation=generation)
    settings = asked.model_copy(update=changes)
    values = {"prompts": "a boot", "prompt_file": "", "num_inference_steps": 20}
    return batch_preview.preview_of(values, lambda: settings, session, measured or PreflightState()).line


def test_the_line_beside_start_tells_what_a_batch_like_it_took_here(tmp_path: Path) -> None:
    session = BatchSession(UserData(tmp_path))
    assert "<b>60 images</b> · time and size not measured yet" in line_of(session)
    finished_batch(session, picture_format="webp")
    assert "not measured yet" in line_of(session), "another format is another size"
    finished_batch(session)
    line = line_of(session)
    assert "about 6 min" in line  # 60 images of 3 s at 10 steps, now at 20
    assert 'data-seconds="360"' in line
    assert line.endswith("60.0 MB</p>")
    facts = PlanFacts(
        num_items=3,
        num_columns=0,
        value_counts={},
        examples=(),
        notes=(),
        seconds_per_picture=0.5,
        bytes_per_picture=2e6,
    )
    measured = PreflightState(result_json=facts.model_dump_json(), form={"num_inference_steps": 20})
    assert "about 30 s" in line_of(session, measured=measured), "what was measured for this form counts most"
    other = PreflightState(result_json=facts.model_dump_json(), form={"num_inference_steps": 25})
    assert "about 6 min" in line_of(session, measured=other)


def test_behind_other_jobs_no_hour_is_told_and_start_adds_to_the_queue(tmp_path: Path) -> None:
    session = BatchSession(UserData(tmp_path))
    finished_batch(session)
    (batch,) = session.folders()
    JobQueue(session.user_data).add("batch", batch.root, batch.name)
    line = line_of(session)
    assert "after 1 job in the queue" in line
    assert "data-seconds" not in line
