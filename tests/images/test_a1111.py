"""A1111's text: written so that its readers understand it, read so that nothing is lost in silence."""

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio import __version__
from studio.core.errors import PictureFileError
from studio.core.results import ImageRecord, LoraUsed, Timings
from studio.core.settings import SCHEDULER_NAMES, SEED_MAX, GenerationSettings, LoraChoice, SchedulerName
from studio.images.a1111 import MAX_TEXT_LENGTH, has_settings_line, parse_parameters, to_parameters
from studio.images.prompts import escape_prompt, plain_prompt
from tests.captions import hostile_captions

A1111_TEXT = """a (red:1.2) shoe, <lora:shoes:0.7>
on white
Negative prompt: blurry,
dark
Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned, RNG: CPU, Lora hashes: "shoes: 0123456789ab", Version: v1.10.1"""


def make_record(settings: GenerationSettings, **changes: object) -> ImageRecord:
    facts: dict[str, object] = {
        "settings": settings,
        "width": settings.width or 512,
        "height": settings.height or 512,
        "model": "shoes-demo",
        "model_revision": "",
        "scheduler": "PNDMScheduler",
        "loras": tuple(
            LoraUsed(name=x.name, strength=x.strength, sha256="abcdef" * 10 + "1234") for x in settings.loras
        ),
        "device": "cpu",
        "precision": "float32",
        "checks": (),
        "timings": Timings(text_seconds=0.1, step_seconds=(0.5,), vae_seconds=1, total_seconds=1.6, first_call=False),
        "made_at": datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        "versions": {"torch": "2.10"},
    }
    return ImageRecord.model_validate({**facts, **changes})


FULL = GenerationSettings(
    prompt="a (red:1.3) shoe, 'très' chic,\n白い背景",
    negative_prompt='blurry: very,\n"bad"',
    num_inference_steps=12,
    guidance_scale=7.123456789,
    scheduler="Euler a",
    width=512,
    height=768,
    seed=2**62 + 1,
    loras=(LoraChoice(name="my shoes", strength=0.8), LoraChoice(name="style", strength=-1)),
)


def test_the_text_is_a1111s_to_the_letter() -> None:
    settings = GenerationSettings(
        prompt="a shoe",
        negative_prompt="blurry",
        scheduler="DPM++ 2M Karras",
        seed=1,
        loras=(LoraChoice(name="shoes", strength=1),),
    )
    assert to_parameters(make_record(settings)) == (
        "a shoe <lora:shoes:1>\n"
        "Negative prompt: blurry\n"
        "Steps: 25, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 1, Size: 512x512, "
        f'Model: shoes-demo, RNG: CPU, Lora hashes: "shoes: abcdefabcdef", Version: lora-studio {__version__}'
    )


def test_an_empty_negative_prompt_has_no_line() -> None:
    assert "Negative" not in to_parameters(make_record(GenerationSettings(prompt="a")))


def test_without_loras_there_are_no_hashes() -> None:
    assert "Lora hashes" not in to_parameters(make_record(GenerationSettings(prompt="a")))


def test_lora_hashes_are_what_a1111_looks_up() -> None:
    used = LoraUsed(name="shoes", strength=1, sha256="0" * 64, weights_hash="0123456789abcdef" * 4)
    record = make_record(GenerationSettings(prompt="a")).model_copy(update={"loras": (used,)})
    assert 'Lora hashes: "shoes: 0123456789ab"' in to_parameters(record)


def test_a_lora_that_the_prompt_has_is_not_added_again() -> None:
    settings = GenerationSettings(prompt="a <lora:x:0.5>", loras=(LoraChoice(name="x", strength=0.5),))
    assert to_parameters(make_record(settings)).count("<lora:") == 1


@pytest.mark.parametrize("model", ["/home/ann/models/sd.safetensors", r"C:\Users\ann\sd.safetensors"])
def test_the_text_does_not_tell_where_the_owners_files_lie(model: str) -> None:
    text = to_parameters(make_record(GenerationSettings(prompt="a"), model=model))
    assert "Model: sd," in text
    assert "ann" not in text


def test_a_value_with_a_comma_a_colon_or_a_newline_is_quoted_as_json() -> None:
    model = 'odd, "model": ü\nname'
    text = to_parameters(make_record(GenerationSettings(prompt="a"), model=model))
    assert f"Model: {json.dumps(model, ensure_ascii=False)}, RNG" in text
    assert parse_parameters(text).model == model


def test_what_is_written_is_read_back() -> None:
    read = parse_parameters(to_parameters(make_record(FULL)))
    assert read.settings == FULL
    assert read.model == "shoes-demo"
    assert read.source == "A1111"
    assert read.skipped == ()


def test_guidance_in_a_part_of_the_steps_is_written_and_read_back() -> None:
    part = FULL.model_copy(update={"guidance_start": 0.2, "guidance_end": 0.75})
    text = to_parameters(make_record(part))
    assert "Skip Early CFG: 0.2, Guidance until: 0.75" in text
    read = parse_parameters(text)
    assert (read.settings.guidance_start, read.settings.guidance_end, read.skipped) == (0.2, 0.75, ())
    assert "CFG: " not in to_parameters(make_record(FULL))


def test_a_caption_is_read_back_as_the_same_text_whatever_it_holds() -> None:
    for caption in hostile_captions(2000, seed=2):
        settings = GenerationSettings(prompt=escape_prompt(caption), negative_prompt="blurry", width=64, height=64)
        read = parse_parameters(to_parameters(make_record(settings, scheduler="EulerDiscreteScheduler"))).settings
        assert plain_prompt(read.prompt) == caption.replace("\r\n", "\n").strip()
        assert (read.negative_prompt, read.loras, read.width) == ("blurry", (), 64)


@pytest.mark.parametrize("name", [name for name in SCHEDULER_NAMES if name != "model's own"])
def test_every_scheduler_is_read_back(name: SchedulerName) -> None:
    settings = GenerationSettings(prompt="a", scheduler=name, width=512, height=512)
    assert parse_parameters(to_parameters(make_record(settings))).settings == settings


def test_the_models_own_scheduler_is_written_by_its_name() -> None:
    assert "Sampler: PLMS, " in to_parameters(make_record(GenerationSettings(prompt="a")))


def test_a_scheduler_of_an_unknown_class_is_written_as_it_is() -> None:
    text = to_parameters(make_record(GenerationSettings(prompt="a"), scheduler="HeunDiscreteScheduler"))
    assert "Sampler: HeunDiscreteScheduler, " in text


def test_a_nul_in_a_prompt_does_not_end_the_text() -> None:
    assert "\0" not in to_parameters(make_record(GenerationSettings(prompt="a\0b")))


def test_a_picture_of_a1111_is_understood() -> None:
    read = parse_parameters(A1111_TEXT)
    assert read.settings == GenerationSettings(
        prompt="a (red:1.2) shoe,\non white",
        negative_prompt="blurry,\ndark",
        num_inference_steps=20,
        guidance_scale=7,
        seed=965400086,
        scheduler="DPM++ 2M Karras",
        width=512,
        height=768,
        loras=(LoraChoice(name="shoes", strength=0.7),),
        long_prompt=True,
    )
    assert (read.model, read.record, read.skipped) == ("v1-5-pruned", None, ())


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        ("DPM++ 2M Karras", "DPM++ 2M Karras"),
        ("DPM++ 2M", "DPM++ 2M"),
        ("DPM++ 2M, Schedule type: Automatic", "DPM++ 2M Karras"),
        ("DPM++ 2M, Schedule type: Uniform", "DPM++ 2M"),
        ("Euler, Schedule type: Automatic", "Euler"),
    ],
)
def test_samplers_mean_what_they_mean_in_the_version_that_wrote_them(sampler: str, scheduler: str) -> None:
    read = parse_parameters(f"a\nSteps: 20, Sampler: {sampler}, Seed: 1, RNG: CPU")
    assert read.settings.scheduler == scheduler
    assert read.skipped == ()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Steps: 0, Seed: 7", "Steps (num_inference_steps) must be between 1 and 150, got '0'."),
        ("Steps: 20, Seed: 7, CFG scale: 0.5", "Guidance (guidance_scale) must be between 1 and 30"),
        ("Steps: 20, Seed: 7, CFG scale: nan", "guidance_scale"),
        ("Steps: 20, Seed: 7, Size: 500x512", "Width must be a multiple of 8 between 64 and 2048"),
        ("Steps: 20, Seed: 7, Size: big", "Width must be a whole number"),
        ("Steps: 20, Seed: 7, Sampler: DPM++ SDE", "The sampler DPM++ SDE is not known here"),
        ("Steps: 20, Seed: 7, Sampler: Euler, Schedule type: Beta", "The schedule type Beta is not known"),
        ("Steps: 20, Seed: 7, Hires upscale: 2", "Hires upscale is not known here"),
        ("Steps: 20, Seed: 7, Clip skip: 2", "Clip skip is not known here"),
        ("Steps: 20, Seed: 7, RNG: NV", "noise was not drawn on the CPU"),
        ('Steps: 20, Seed: 7, ControlNet 0: "Module: canny, Weight: 1"', "ControlNet 0 is not known here"),
        ("Steps: 20, Seed: 7\nTemplate: {a|b}", "after the settings line"),
    ],
)
def test_what_cannot_be_taken_over_is_named_and_the_rest_is_taken(line: str, words: str) -> None:
    read = parse_parameters(f"a shoe\n{line}")
    assert any(words in sentence for sentence in read.skipped), read.skipped
    assert (read.settings.prompt, read.settings.seed) == ("a shoe", 7)


def test_more_steps_than_its_scheduler_takes_here_are_named_and_the_scheduler_is_taken() -> None:
    read = parse_parameters("a shoe\nSteps: 60, Sampler: LCM, CFG scale: 2")
    assert (read.settings.scheduler, read.settings.num_inference_steps) == ("LCM", 25)
    assert read.skipped[0].startswith("Not applied: Steps (num_inference_steps) must be at most 50")


def test_a_negative_seed_stays_the_default() -> None:
    read = parse_parameters("a\nSteps: 20, RNG: CPU, Seed: -1")
    assert read.settings.seed == GenerationSettings(prompt="").seed
    assert "Seed must be at least 0" in read.skipped[0]


def test_a_lora_tag_that_breaks_its_rule_is_named_and_the_others_act() -> None:
    read = parse_parameters("a <lora:x:9> <lora:y:1:2> <lora:z:1>\nSteps: 20")
    assert read.settings.loras == (LoraChoice(name="z"),)
    assert "<lora:x:9>" in read.skipped[0]
    assert "<lora:y:1:2>" in read.skipped[1]


def test_a_ninth_lora_is_named() -> None:
    read = parse_parameters(" ".join(f"<lora:l{i}:1>" for i in range(9)) + "\nSteps: 20")
    assert len(read.settings.loras) == 8
    assert read.skipped == ("The LoRA l8 is one too many: 8 may act.",)


def test_the_last_line_of_settings_counts() -> None:
    read = parse_parameters("how to\nSteps: many\nSteps: 20, Seed: 5")
    assert (read.settings.prompt, read.settings.seed) == ("how to\nSteps: many", 5)


@pytest.mark.parametrize(
    "text", ["", " \n ", "a shoe\nNegative prompt: dark", "Steps: many", "a, steps: 3", "Screenshot"]
)
def test_a_text_without_a_line_of_settings_is_refused(text: str) -> None:
    with pytest.raises(PictureFileError, match="no line of settings"):
        parse_parameters(text)


@pytest.mark.parametrize(
    "line",
    [
        "Seed: 5, Size: 512x768, Steps: 20, RNG: CPU",
        "seed: 5, steps: 20, size: 512x768, rng: CPU",
        "STEPS: 20, SEED: 5, SIZE: 512x768, RNG: CPU",
        "  steps: 20,seed: 5,size: 512x768,Rng: CPU  ",
        "\tModel: a, Seed: 5, Steps: 20, Size: 512x768, RNG: CPU",
    ],
)
def test_a_line_of_settings_is_known_by_its_keys_in_any_order_and_case(line: str) -> None:
    read = parse_parameters(f"a shoe\nNegative prompt: dark\n{line}")
    assert read.settings == GenerationSettings(
        prompt="a shoe",
        negative_prompt="dark",
        num_inference_steps=20,
        seed=5,
        width=512,
        height=768,
        long_prompt=True,
    )
    assert read.skipped == ()


def test_small_letters_mark_the_negative_prompt_only_where_the_settings_have_them_too() -> None:
    small = parse_parameters("a shoe\nnegative prompt: dark\nsteps: 20, seed: 5")
    assert (small.settings.prompt, small.settings.negative_prompt) == ("a shoe", "dark")
    a1111s = parse_parameters("a shoe\nnegative prompt: dark\nSteps: 20, Seed: 5")
    assert (a1111s.settings.prompt, a1111s.settings.negative_prompt) == ("a shoe\nnegative prompt: dark", "")


def test_without_an_rng_the_noise_came_from_a_gpu_and_that_is_said() -> None:
    assert "drew its noise on the GPU" in parse_parameters("a\nSteps: 20, Seed: 5").skipped[0]
    assert parse_parameters("a\nSteps: 20, Seed: 5, RNG: CPU").skipped == ()
    assert "drew its noise" not in str(parse_parameters("a\nSteps: 20").skipped), "it has no seed to apply"


_KEYS = ["Steps", "seed", "Sampler", "Schedule type", "CFG scale", "Size", "Model", "RNG", "Lora hashes", "x-y"]
_WORDS = st.text(st.characters(codec="utf-8"), max_size=40)
_NUMBERS = st.fixed_dictionaries(
    {
        "num_inference_steps": st.integers(1, 50),
        "guidance_scale": st.floats(1, 30),
        "seed": st.integers(0, SEED_MAX),
        "width": st.integers(8, 256).map(lambda eighths: eighths * 8),
        "height": st.integers(8, 256).map(lambda eighths: eighths * 8),
        "scheduler": st.sampled_from([name for name in SCHEDULER_NAMES if name != "model's own"]),
    }
)
_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="<>:\n\0"), min_size=1, max_size=20)


@given(prompt=_WORDS, negative=_WORDS, numbers=_NUMBERS, model=_WORDS, lora=_NAMES, strength=st.floats(-4, 4))
def test_settings_that_are_written_read_back(
    prompt: str, negative: str, numbers: dict[str, object], model: str, lora: str, strength: float
) -> None:
    loras = (LoraChoice(name=lora.strip(), strength=strength),) if lora.strip() else ()
    settings = GenerationSettings.model_validate(
        {**numbers, "prompt": escape_prompt(prompt), "negative_prompt": negative, "loras": loras}
    )
    read = parse_parameters(to_parameters(make_record(settings, model=model)))

    def kept(text: str) -> str:
        return text.replace("\0", "").replace("\r\n", "\n").strip()

    comma = "," if loras else ""  # a LoRA tag takes a comma beside it along
    assert plain_prompt(read.settings.prompt).strip().strip(comma).strip() == kept(prompt).strip(comma).strip()
    assert read.settings.negative_prompt == kept(negative)
    assert read.settings.loras == loras
    assert {name: getattr(read.settings, name) for name in numbers} == numbers
    assert read.skipped == ()


@given(st.text(max_size=60), st.lists(st.tuples(st.sampled_from(_KEYS), st.text(max_size=20)), max_size=8))
def test_no_text_raises_anything_but_our_error(text: str, values: list[tuple[str, str]]) -> None:
    line = ", ".join(f"{key}: {value}" for key, value in values)
    for whole in (text, f"{text}\nSteps: 1, {line}", f"{line}, steps: 2\n{text}"):
        try:
            read = parse_parameters(whole)
        except PictureFileError as error:
            assert not has_settings_line(whole) or not whole.strip(), error
        else:
            assert has_settings_line(whole)
            assert GenerationSettings.model_validate(read.settings.model_dump()) == read.settings


def test_windows_line_ends_are_line_ends() -> None:
    read = parse_parameters("a\r\nNegative prompt: b\r\nSteps: 20, Seed: 5")
    assert (read.settings.prompt, read.settings.negative_prompt, read.settings.seed) == ("a", "b", 5)


def test_a_text_without_measure_is_refused() -> None:
    with pytest.raises(PictureFileError, match="1,000,000 are allowed"):
        parse_parameters("a" * (MAX_TEXT_LENGTH + 1))


@pytest.mark.parametrize("unit", ["a", " ", '"', '\\"', 'a: "', "a:", 'a:",', "<lora:a>", "b <lora:a>", "\n", ": "])
def test_a_hostile_text_does_not_take_long(unit: str) -> None:
    started = time.monotonic()
    many = unit * (200_000 // len(unit))
    read = parse_parameters(f"{many}\nSteps: 20, {many}")
    assert time.monotonic() - started < 5
    assert len(read.skipped) <= 21


def test_a_lone_surrogate_does_not_raise() -> None:
    assert parse_parameters("a \ud800\nSteps: 20").settings.prompt == "a ?"
