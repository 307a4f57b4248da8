"""Settings as text in AUTOMATIC1111's grammar, which most programs and sites read: written, and read back."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath, PureWindowsPath
from typing import Literal

from studio import __version__
from studio.core.errors import PictureFileError, SettingsError
from studio.core.language import N_, _, ngettext
from studio.core.results import ImageRecord
from studio.core.settings import GenerationSettings, LoraChoice, SchedulerName, parse_settings
from studio.images.prompts import lora_choice, split_lora_tags, unlike_a1111

# Ours to A1111's sampler and schedule type. A1111's "Automatic" is Karras for DPM++ 2M, so that is said in full.
_SAMPLERS: Mapping[str, tuple[str, str]] = {
    "DDIM": ("DDIM", "Automatic"),
    "PNDM": ("PLMS", "Automatic"),
    "Euler": ("Euler", "Automatic"),
    "Euler a": ("Euler a", "Automatic"),
    "Euler trailing": ("Euler", "SGM Uniform"),
    "DPM++ 2M": ("DPM++ 2M", "Uniform"),
    "DPM++ 2M Karras": ("DPM++ 2M", "Karras"),
    "UniPC": ("UniPC", "Automatic"),
    "DDPM": ("DDPM", "Automatic"),
    "LCM": ("LCM", "Automatic"),
}
_SCHEDULERS_OF_CLASSES = {
    "DDIMScheduler": "DDIM",
    "PNDMScheduler": "PNDM",
    "EulerDiscreteScheduler": "Euler",
    "EulerAncestralDiscreteScheduler": "Euler a",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "UniPCMultistepScheduler": "UniPC",
    "DDPMScheduler": "DDPM",
    "LCMScheduler": "LCM",
}
_SCHEDULERS_OF_SAMPLERS: Mapping[str, SchedulerName] = {
    "ddim": "DDIM",
    "plms": "PNDM",
    "pndm": "PNDM",
    "euler": "Euler",
    "euler a": "Euler a",
    "dpm++ 2m": "DPM++ 2M",
    "dpm++ 2m karras": "DPM++ 2M Karras",  # as one name, before version 1.9
    "unipc": "UniPC",
    "ddpm": "DDPM",
    "lcm": "LCM",
}
_ORDINARY_SCHEDULE_TYPES = ("", "automatic", "uniform")

_NEGATIVE = "Negative prompt:"
# A line of settings: some programs write another key first, or small letters.
_FIRST_KEYS = "steps|seed|sampler|schedule type|cfg scale|size|model|model hash|version"
_SETTINGS_LINE = re.compile(rf"\s*(?:steps:\s*\d|(?:{_FIRST_KEYS}):.*?,\s*steps:\s*\d)", re.IGNORECASE)
# A key's length is bounded, or a line of a million letters would take hours.
_SETTING = re.compile(r'(\w[\w \-/]{0,80}):[ \t]*("(?:\\.|[^\\"])*"(?=\s*(?:,|$))|[^,]*)(?:,|$)')
# What says nothing about how the image is made, or is used elsewhere in this module.
_GUIDANCE_START, _GUIDANCE_END = "Skip Early CFG", "Guidance until"
_OF_IMAGE = ("Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", _GUIDANCE_START, _GUIDANCE_END)
_KNOWN_KEYS = frozenset((*_OF_IMAGE, "Model", "Model hash", "Lora hashes", "Version"))
# With these values they say nothing: they are what happens here anyway.
_ORDINARY_VALUES = {"RNG": "CPU", "Clip skip": "1"}
_NAMES_OF_KEYS = {key.casefold(): key for key in (*_KNOWN_KEYS, *_ORDINARY_VALUES)}
_GPU_NOISE = N_("It names no RNG, so A1111 drew its noise on the GPU: the seed makes another image here.")

MAX_TEXT_LENGTH = 1_000_000
_MAX_SKIPPED = 20
_MAX_LORAS = 8


ProgramName = Literal[
    "LoRA Studio",
    "A1111",
    "ComfyUI",
    "InvokeAI",
    "NovelAI",
    "Draw Things",
    "Fooocus",
    "SwarmUI",
    "Easy Diffusion",
]


@dataclass(frozen=True)
class PictureText:
    """What an image tells of how it was made.

    Attributes:
        record: the full record; None where the image is another program's or another version's.
        source: the program whose format the settings are in.
        model: the name of the model as the image has it; empty where it has none.
        skipped: what could not be taken over, a sentence each.
    """

    settings: GenerationSettings
    record: ImageRecord | None
    source: ProgramName
    model: str
    skipped: tuple[str, ...]


def to_parameters(record: ImageRecord) -> str:
    """The text that A1111 writes into an image's `parameters`, so that it and its readers understand ours.

    LoRAs that are not in the prompt are added to it as tags; one whose name no tag can hold is only in the hashes.
    Where guidance starts later, that is A1111's own `Skip Early CFG`; where it ends earlier, only we read it. Not in
    this text: long prompts.
    """
    settings = record.settings
    lines = [_with_tags(settings.prompt, settings.loras)]
    if settings.negative_prompt:
        lines.append(f"{_NEGATIVE} {settings.negative_prompt}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in _setting_values(record)))
    return "\n".join(lines).replace("\0", "")  # NUL ends a PNG's text


def _with_tags(prompt: str, loras: Iterable[LoraChoice]) -> str:
    tagged = {tag[len("<lora:") : -1].partition(":")[0].strip() for tag in split_lora_tags(prompt)[1]}
    missing = [lora for lora in loras if lora.name not in tagged and not set(lora.name) & set("<>:\n")]
    return " ".join(filter(None, [prompt, *(f"<lora:{lora.name}:{_number(lora.strength)}>" for lora in missing)]))


def scheduler_name(record: ImageRecord) -> str:
    """The scheduler by the name that people know; the class's own name where there is none."""
    if record.settings.scheduler != "model's own":
        return record.settings.scheduler
    return _SCHEDULERS_OF_CLASSES.get(record.scheduler, record.scheduler)


def _setting_values(record: ImageRecord) -> list[tuple[str, str]]:
    settings = record.settings
    scheduler = scheduler_name(record)
    sampler, schedule_type = _SAMPLERS.get(scheduler, (scheduler, "Automatic"))
    values = [
        ("Steps", str(settings.num_inference_steps)),
        ("Sampler", sampler),
        ("Schedule type", schedule_type),
        ("CFG scale", _number(settings.guidance_scale)),
        (_GUIDANCE_START, _number(settings.guidance_start) if settings.guidance_start else ""),
        (_GUIDANCE_END, _number(settings.guidance_end) if settings.guidance_end < 1 else ""),
        ("Seed", str(settings.seed)),
        ("Size", f"{record.width}x{record.height}"),
        ("Model", _model_name(record.model)),
        ("RNG", "CPU"),
        ("Lora hashes", ", ".join(f"{lora.name}: {(lora.weights_hash or lora.sha256)[:12]}" for lora in record.loras)),
        ("Version", f"lora-studio {__version__}"),
    ]
    return [(key, value) for key, value in values if value]


def _number(value: float) -> str:
    """The shortest text that is read back as the same number: 7 for 7.0."""
    return repr(float(value)).removesuffix(".0")


def _model_name(model: str) -> str:
    """A file's or a folder's name without its path, which tells of its owner's home; a Hugging Face id as it is."""
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(model).is_absolute():
            return kind(model).name.removesuffix(".safetensors")
    return model


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False) if re.search(r'[,:\n]|^"', value) else value


def _unquoted(value: str) -> str:
    if len(value) < 2 or not (value.startswith('"') and value.endswith('"')):
        return value.strip()
    try:
        return str(json.loads(value, strict=False))
    except ValueError:
        return value


def has_settings_line(text: str) -> bool:
    """Whether a text is A1111's: a line of it gives `Steps`. Others are other programs', or a camera's comment."""
    return len(text) <= MAX_TEXT_LENGTH and any(_SETTINGS_LINE.match(line) for line in text.split("\n"))


def parse_parameters(text: str) -> PictureText:
    """Read A1111's text. What is unknown here or breaks a rule is left at its default and named in `skipped`.

    Raises:
        PictureFileError: a text without a line of settings, or one of over a million characters.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise PictureFileError(
            _(
                "The settings are {length:,} characters long, {limit:,} are allowed.",
                length=len(text),
                limit=MAX_TEXT_LENGTH,
            )
        )
    prompt, negative_prompt, line, skipped = _split(text)
    found = {key: _unquoted(value) for key, value in _SETTING.findall(line)}
    written = {_NAMES_OF_KEYS.get(key.casefold(), key): value for key, value in found.items()}
    if "Seed" in written and "RNG" not in written:
        skipped.append(_(_GPU_NOISE))
    values = _scheduler(written, skipped)
    return taken_over("A1111", written, prompt=prompt, negative_prompt=negative_prompt, skipped=skipped, values=values)


def taken_over(
    source: ProgramName,
    written: Mapping[str, str],
    *,
    prompt: str,
    negative_prompt: str,
    skipped: list[str],
    values: Mapping[str, object] | None = None,
) -> PictureText:
    """A program's settings as ours; `skipped` goes on with what cannot be taken over.

    Args:
        written: numbers and names under A1111's keys, as text.
        prompt: in our grammar: its weights are weights, its LoRA tags choose LoRAs.
        values: of fields of `GenerationSettings`, already checked one by one.
    """
    prompt, loras = _take_known_loras(prompt, skipped)
    fitting = _fitting({**_checked_numbers(written, skipped), **(values or {})}, skipped)
    skipped += _unknown(written)
    if source == "A1111":
        skipped += dict.fromkeys((*unlike_a1111(prompt), *unlike_a1111(negative_prompt)))
    settings = GenerationSettings.model_validate(
        # None of them cuts a prompt at 75 tokens. What our own text does not say stays at its default.
        {
            **fitting,
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "loras": loras,
            "long_prompt": not written.get("Version", "").startswith("lora-studio"),
        }
    )
    return PictureText(settings, None, source, written.get("Model", ""), _shortened(skipped))


def _split(text: str) -> tuple[str, str, str, list[str]]:
    """Prompt, negative prompt, the line of settings, and what was skipped."""
    # A lone surrogate cannot be stored or shown, so pydantic refuses it; a damaged text can have one.
    lines = text.encode("utf-8", "replace").decode().replace("\r\n", "\n").strip().split("\n")
    starts = [number for number, line in enumerate(lines) if _SETTINGS_LINE.match(line)]
    if not starts:
        raise PictureFileError(_("There is no line of settings (Steps: …), so the text is not A1111's."))
    end = starts[-1]
    skipped = []
    if any(line.strip() for line in lines[end + 1 :]):
        skipped.append(_("The text after the settings line is not known here."))
    # Who writes small letters there, does so here; in A1111's own text they are words of the prompt.
    marker = _NEGATIVE if "Steps:" in lines[end] else _NEGATIVE.lower()
    starts = [number for number in range(end) if lines[number].lstrip().startswith((_NEGATIVE, marker))]
    negative = starts[0] if starts else end
    prompt = "\n".join(lines[:negative]).strip()
    negative_prompt = "\n".join(lines[negative:end]).lstrip()[len(_NEGATIVE) :].strip()
    return prompt, negative_prompt, lines[end], skipped


def _take_known_loras(prompt: str, skipped: list[str]) -> tuple[str, tuple[LoraChoice, ...]]:
    rest, tags = split_lora_tags(prompt)
    loras = []
    for tag in tags:
        try:
            loras.append(lora_choice(tag))
        except SettingsError as error:
            skipped.append(_short(str(error)))
    skipped += [
        _("The LoRA {name} is one too many: {limit} may act.", name=_short(lora.name), limit=_MAX_LORAS)
        for lora in loras[_MAX_LORAS:]
    ]
    return rest, tuple(loras[:_MAX_LORAS])


def _checked_numbers(written: Mapping[str, str], skipped: list[str]) -> dict[str, object]:
    """Those numbers that keep their rules, under our names."""
    width, __, height = written.get("Size", "").partition("x")
    candidates = {
        "num_inference_steps": written.get("Steps"),
        "guidance_scale": written.get("CFG scale"),
        "guidance_start": written.get(_GUIDANCE_START),
        "guidance_end": written.get(_GUIDANCE_END),
        "seed": written.get("Seed"),
        "width": width if "Size" in written else None,
        "height": height if "Size" in written else None,
    }
    values: dict[str, object] = {}
    for name, value in candidates.items():
        if value is None:
            continue
        try:
            values[name] = getattr(parse_settings(GenerationSettings, {"prompt": "", name: value[:40]}), name)
        except SettingsError as error:
            skipped.append(_short(_("Not applied: {error}", error=error)))
    return values


def _fitting(values: dict[str, object], skipped: list[str]) -> dict[str, object]:
    """Values that also fit each other: A1111 takes any number of steps with any sampler."""
    try:
        parse_settings(GenerationSettings, {"prompt": "", **values})
    except SettingsError as error:
        skipped.append(_short(_("Not applied: {error}", error=error)))
        return {name: value for name, value in values.items() if name != "num_inference_steps"}
    return values


def _scheduler(written: Mapping[str, str], skipped: list[str]) -> dict[str, object]:
    sampler, schedule_type = written.get("Sampler", ""), written.get("Schedule type", "")
    if not sampler:
        return {}
    scheduler = _SCHEDULERS_OF_SAMPLERS.get(sampler.casefold())
    if scheduler is None:
        words = _("The sampler {name} is not known here; the scheduler stays the model's own.", name=_short(sampler))
        skipped.append(words)
        return {}
    if scheduler == "DPM++ 2M" and schedule_type.casefold() in ("karras", "automatic"):
        scheduler = "DPM++ 2M Karras"
    elif scheduler == "Euler" and schedule_type.casefold() == "sgm uniform":
        scheduler = "Euler trailing"
    elif schedule_type.casefold() not in _ORDINARY_SCHEDULE_TYPES:
        name = _short(schedule_type)
        skipped.append(_("The schedule type {name} is not known here for {sampler}.", name=name, sampler=scheduler))
    return {"scheduler": scheduler}


def _unknown(written: Mapping[str, str]) -> list[str]:
    """What acts on the image there and has no counterpart here."""
    return [
        _("Its noise was not drawn on the CPU, so the seed makes another image here.")
        if key == "RNG"
        else _("{key} is not known here, got {value!r}.", key=_short(key), value=_short(value))
        for key, value in written.items()
        if key not in _KNOWN_KEYS and _ORDINARY_VALUES.get(key) != value
    ]


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:200]}…"


def _shortened(skipped: list[str]) -> tuple[str, ...]:
    num = len(skipped) - _MAX_SKIPPED
    if num <= 0:
        return tuple(skipped)
    return (*skipped[:_MAX_SKIPPED], ngettext("{num} more was left out.", "{num} more were left out.", num, num=num))
