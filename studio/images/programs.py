"""Settings that other programs leave in an image: which program's they are, and what is simple of them.

Their prompts are text: only what is a command in the program's own prompts stays one in ours.
"""

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pydantic_core import from_json

from studio.core.errors import PictureFileError
from studio.core.language import N_, _
from studio.images.a1111 import MAX_TEXT_LENGTH, PictureText, ProgramName, taken_over
from studio.images.prompts import escape_prompt

COMMENT_KEY = "EXIF UserComment"
OTHER_PROGRAMS = N_("ComfyUI, InvokeAI, NovelAI, Draw Things, Fooocus, SwarmUI and Easy Diffusion")

_Json = Mapping[str, object]
# A1111's round brackets alone, as ComfyUI reads them; what else is a command of ours is text there.
_NOT_COMFYUIS = re.compile(r"\\(?![()])|[\[\]]|(?<=<)(?=\w+:)|^(?=[^\S\n]*Negative prompt:)", re.MULTILINE)
_MAX_NODES_FOLLOWED = 50


@dataclass(frozen=True)
class _Found:
    """What one program left. `values` are under A1111's keys; no prompt: the program is known, its settings are not."""

    program: ProgramName
    prompt: object = None
    negative_prompt: object = None
    values: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def decode_comment(comment: object) -> str:
    """EXIF's UserComment as text, even if its 8-byte encoding prefix is wrong; "" if there is none."""
    if isinstance(comment, str):
        comment = comment.encode("latin-1", "replace")  # what Pillow made of bytes that are declared as ASCII
    if not isinstance(comment, bytes):
        return ""
    encoding, content = comment[:8].upper(), comment[8:]
    if encoding == b"UNICODE\0":
        return _clean(_decode_unicode(content))
    if encoding not in (b"ASCII\0\0\0", b"JIS\0\0\0\0\0", bytes(8)):
        content = comment
    return fix_encoding(content.decode("latin-1"))


def _decode_unicode(content: bytes) -> str:
    """UTF-16 in either byte order, which the standard leaves open; or UTF-8, which has no NUL where UTF-16 has many."""
    whole = content[: len(content) // 2 * 2]  # an odd last byte is padding
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return whole.decode("utf-16", "replace")
    text = content.decode("utf-8", "replace")
    if "\0" not in text.strip("\0") and "\ufffd" not in text:
        return text
    # In the wrong order "Steps" and every other ASCII letter becomes something far from ASCII.
    texts = [whole.decode(order, "replace") for order in ("utf-16-be", "utf-16-le")]
    return max(texts, key=lambda text: sum(character.isascii() and character != "\0" for character in text))


def fix_encoding(text: str) -> str:
    """A text that was read as Latin-1, as UTF-8 where its bytes are that; without byte order mark and NUL padding."""
    try:
        return _clean(text.encode("latin-1").decode("utf-8"))
    except UnicodeError:
        return _clean(text)


def _clean(text: str) -> str:
    return text.strip("\0").removeprefix("\ufeff").replace("\0", "")


def read_program(texts: Mapping[str, str], name: str) -> PictureText | None:
    """The settings of a known program; None where it is none of them.

    Args:
        texts: all texts of a file by their keys, EXIF's comment as `COMMENT_KEY`.
        name: the file's, for the error.

    Raises:
        PictureFileError: the program is known, but not the way its settings are kept.
    """
    texts = {key: text for key, text in texts.items() if len(text) <= MAX_TEXT_LENGTH}
    for reader in _READERS:
        if found := reader(texts):
            return _taken(found, name)
    return None


def _taken(found: _Found, name: str) -> PictureText:
    prompt = found.prompt
    if not isinstance(prompt, str):
        raise PictureFileError(
            _(
                "{name} was made by {program}, which keeps its settings in a way that is not read here. "
                "Open it there, and type them in.",
                name=name,
                program=found.program,
            )
        )
    negative = found.negative_prompt if isinstance(found.negative_prompt, str) else ""
    skipped = [
        _("{program} draws and uses noise in its own way: the seed makes another image here.", program=found.program),
        *found.notes,
    ]
    to_ours = _PROMPTS.get(found.program, escape_prompt)
    written = {key: str(value) for key, value in found.values.items() if _is_value(value)}
    if sampler := written.pop("Sampler", ""):
        skipped.append(_("Its sampler, {sampler}: choose a scheduler here.", sampler=sampler[:200]))
    return taken_over(
        found.program,
        written,
        prompt=to_ours(prompt).strip(),
        negative_prompt=to_ours(negative).strip(),
        skipped=skipped,
    )


def _is_value(value: object) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def _comfyui_prompt(prompt: str) -> str:
    return _NOT_COMFYUIS.sub(lambda match: f"\\{match.group()}", prompt)


# The others' weights (`x++`, `{x}`) are none of ours, and their brackets are text.
_PROMPTS: Mapping[ProgramName, Callable[[str], str]] = {
    "ComfyUI": _comfyui_prompt,
    "SwarmUI": _comfyui_prompt,
    "Fooocus": _comfyui_prompt,
    "Draw Things": _comfyui_prompt,
}


def _object(text: object) -> _Json:
    """The JSON object in a text, or the object itself; an empty one for all else."""
    if isinstance(text, str) and text.lstrip().startswith("{"):
        try:
            text = from_json(text.encode("utf-8", "replace"))
        except ValueError:  # as NovelAI's, Fooocus's and SwarmUI's is no more than a text with a brace
            return {}
    return text if isinstance(text, dict) else {}


def _values(source: _Json, **keys: str) -> dict[str, object]:
    """A1111's values by our short names of its keys."""
    names = {"steps": "Steps", "cfg": "CFG scale", "seed": "Seed", "model": "Model", "sampler": "Sampler"}
    return {names[name]: source[key] for name, key in keys.items() if key in source}


def _size(width: object, height: object) -> dict[str, object]:
    return {"Size": f"{width}x{height}"} if _is_value(width) and _is_value(height) else {}


def _invokeai(texts: Mapping[str, str]) -> _Found | None:
    keys = {"invokeai_metadata", "invokeai_graph", "invokeai_workflow", "sd-metadata", "Dream"}
    if not keys & set(texts):
        return None
    data = _object(texts.get("invokeai_metadata", ""))
    model = _object(data.get("model"))
    values = _values(data, steps="steps", cfg="cfg_scale", seed="seed", sampler="scheduler")
    values |= _size(data.get("width"), data.get("height")) | {"Model": model.get("name", model.get("model_name"))}
    return _Found("InvokeAI", data.get("positive_prompt"), data.get("negative_prompt"), values)


def _novelai(texts: Mapping[str, str]) -> _Found | None:
    if texts.get("Software") != "NovelAI":
        return None
    data = _object(texts.get("Comment", ""))
    values = _values(data, steps="steps", cfg="scale", seed="seed", sampler="sampler")
    values |= _size(data.get("width"), data.get("height"))
    prompt = data.get("prompt", texts.get("Description"))
    weighted = isinstance(prompt, str) and re.search(r"[{\[]|::", prompt)
    notes = (_("Its weights, as {word} and [word], are words here."),) if weighted else ()
    return _Found("NovelAI", prompt, data.get("uc"), values, notes)


def _draw_things(texts: Mapping[str, str]) -> _Found | None:
    xmp = texts.get("XML:com.adobe.xmp", "")
    comment = xmp.partition("<exif:UserComment")[2].partition("</exif:UserComment>")[0]
    data = _object(html.unescape(comment[comment.find("{") : comment.rfind("}") + 1]))
    if "Draw Things" not in xmp and not {"c", "uc"} <= set(data):
        return None
    values = _values(data, steps="steps", cfg="scale", seed="seed", sampler="sampler", model="model")
    return _Found("Draw Things", data.get("c"), data.get("uc"), values | _entry("Size", data.get("size")))


def _entry(key: str, value: object) -> dict[str, object]:
    return {key: value} if isinstance(value, str) else {}


def _fooocus(texts: Mapping[str, str]) -> _Found | None:
    text = texts.get("parameters") or texts.get(COMMENT_KEY, "")
    data = _object(text)
    if "fooocus_scheme" not in texts and not str(data.get("version", "")).startswith("Fooocus"):
        return None
    values = _values(data, steps="steps", cfg="guidance_scale", seed="seed", sampler="sampler", model="base_model")
    size = re.fullmatch(r"\(?\s*(\d{1,5}),\s*(\d{1,5})\s*\)?", str(data.get("resolution", ""))[:40])
    values |= _size(*size.groups()) if size else {}
    return _Found("Fooocus", data.get("prompt"), data.get("negative_prompt"), values)


def _swarmui(texts: Mapping[str, str]) -> _Found | None:
    for key in ("parameters", COMMENT_KEY):
        data = _object(texts.get(key, ""))
        if "sui_image_params" in data:
            data = _object(data["sui_image_params"])
            values = _values(data, steps="steps", cfg="cfgscale", seed="seed", sampler="sampler", model="model")
            values |= _size(data.get("width"), data.get("height"))
            return _Found("SwarmUI", data.get("prompt"), data.get("negativeprompt"), values)
    return None


def _easy_diffusion(texts: Mapping[str, str]) -> _Found | None:
    for data in (texts, _object(texts.get(COMMENT_KEY, ""))):
        if {"prompt", "num_inference_steps", "guidance_scale"} <= set(data):
            values = _values(data, steps="num_inference_steps", cfg="guidance_scale", seed="seed")
            values |= _values(data, sampler="sampler_name", model="use_stable_diffusion_model")
            values |= _size(data.get("width"), data.get("height"))
            return _Found("Easy Diffusion", data.get("prompt"), data.get("negative_prompt"), values)
    return None


def _comfyui(texts: Mapping[str, str]) -> _Found | None:
    comment = _object(texts.get(COMMENT_KEY, ""))
    # A WebP's graph is in EXIF's camera and maker, after the word that is its key in a PNG.
    webp = dict(text.split(":", 1) for text in texts.values() if text.startswith(("prompt:{", "workflow:{")))
    graph = _object(texts.get("prompt") or webp.get("prompt") or comment.get("prompt"))
    nodes = {key: _object(node) for key, node in graph.items() if "class_type" in _object(node)}
    workflow = _object(texts.get("workflow") or webp.get("workflow") or comment.get("workflow"))
    if not nodes and "nodes" not in workflow:
        return None
    samplers = [node for node in nodes.values() if "positive" in _inputs(node) and "steps" in _inputs(node)]
    if not samplers:
        return _Found("ComfyUI")
    inputs = _inputs(samplers[0])
    seed = "noise_seed" if "noise_seed" in inputs else "seed"
    values = _values(inputs, steps="steps", cfg="cfg", seed=seed, sampler="sampler_name")
    latents = _inputs(_linked(nodes, inputs.get("latent_image"), "width"))
    values |= _size(latents.get("width"), latents.get("height"))
    values |= _values(_inputs(_linked(nodes, inputs.get("model"), "ckpt_name")), model="ckpt_name")
    prompt, negative = (
        _inputs(_linked(nodes, inputs.get(side), "text")).get("text") for side in ("positive", "negative")
    )
    notes = (_("It has several samplers: the first one's settings are taken."),) if len(samplers) > 1 else ()
    return _Found("ComfyUI", prompt, negative, values, notes)


def _inputs(node: _Json) -> _Json:
    return _object(node.get("inputs"))


def _linked(nodes: Mapping[str, _Json], link: object, wanted: str) -> _Json:
    """The node that has an input of that name, on the way back from a link `[node, output]`."""
    kinds = {"text": ("conditioning",), "width": ("samples", "latent"), "ckpt_name": ("model",)}[wanted]
    for __ in range(_MAX_NODES_FOLLOWED):  # a graph of a stranger may go round
        node = nodes.get(str(link[0]), {}) if isinstance(link, list) and link else {}
        inputs = _inputs(node)
        if wanted in inputs:
            return node
        link = next((inputs[kind] for kind in kinds if kind in inputs), None)
    return {}


# Fooocus and SwarmUI write A1111's key, and SwarmUI's images may hold ComfyUI's graph too.
_READERS = (_invokeai, _novelai, _draw_things, _fooocus, _swarmui, _easy_diffusion, _comfyui)
