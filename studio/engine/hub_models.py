"""Models of the Hugging Face Hub: how they are named, and which of their files are needed. No torch, no network."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from urllib.request import getproxies

from studio.core.errors import ModelError

# The seed report's model has left the Hub; its copy lives here.
MOVED_MODELS = {"runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5"}

MODEL_INDEX = "model_index.json"
DEFAULT_REVISION = "main"
WEIGHT_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
PICKLE_STEMS = {**WEIGHT_STEMS, "text_encoder": "pytorch_model"}
# In the order of download: the weights last, so that a folder with weights has the small files, whose number varies.
PARTS = ("scheduler", "tokenizer", *WEIGHT_STEMS)

# What huggingface_hub's requests can go through; some desktops write socks://, which says too little.
PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")

# As git names branches, tags and commits, as far as they can be part of a path.
_REVISION = re.compile(r"[\w\-]+(?:[./][\w\-]+)*")


def split_revision(name: str) -> tuple[str, str]:
    """`owner/name` and the revision of `owner/name@revision`; `main` where none is given.

    Raises:
        ModelError: where the revision can be none.
    """
    repository, at, revision = name.partition("@")
    if at and not _REVISION.fullmatch(revision):
        raise ModelError(f"{revision!r} in {name} is no revision. Give a branch, a tag or a commit after the @.")
    return repository, revision or DEFAULT_REVISION


def unusable_proxy() -> str:
    """What is wrong with a proxy of the environment or the system; empty where nothing is, or none is used."""
    proxies = getproxies()
    if "*" in proxies.get("no", "").split(","):
        return ""
    for kind in ("http", "https", "all"):
        scheme, separator, _ = proxies.get(kind, "").partition("://")
        if separator and scheme.lower() not in PROXY_SCHEMES:
            known = ", ".join(f"{name}://" for name in PROXY_SCHEMES)
            return f"the proxy in {kind.upper()}_PROXY must begin with one of {known}, got {scheme}://"
    return ""


def looks_like_hub_name(name: str) -> bool:
    """True for `owner/name` and `owner/name@revision`."""
    return not Path(name).is_absolute() and name.partition("@")[0].count("/") == 1


def weights_variant(names: Collection[str], part: str) -> str | None:
    """`""` where a part has its usual weights, `fp16` where it has only those, None where it has no safetensors."""
    for variant in ("", "fp16"):
        if weights_name(part, variant) in names:
            return variant
    return None


def weights_name(part: str, variant: str) -> str:
    """`unet/diffusion_pytorch_model.fp16.safetensors`."""
    return f"{part}/{WEIGHT_STEMS[part]}{'.' * bool(variant)}{variant}.safetensors"


def needed_files(model: str, index: Mapping[str, object], names: Collection[str]) -> tuple[str, ...]:
    """What StableDiffusionPipeline reads of a model's files: no pickles, no safety checker, no second copies.

    Args:
        model: its name, for messages.
        index: what its model_index.json says.
        names: all its files, as paths with `/`.

    Raises:
        ModelError: where something is missing, or there only as a pickle.
    """
    needed = [MODEL_INDEX]
    for part in PARTS:
        if part not in index:
            continue
        if part == "tokenizer":
            needed += _tokenizer_files(model, names)
        elif part == "scheduler":
            needed.append("scheduler/scheduler_config.json")
        else:
            needed += [f"{part}/config.json", _weights_file(model, part, names)]
    missing = [name for name in needed if name not in names]
    if missing:
        raise ModelError(f"The model {model} is not complete: it has no {missing[0]}. Choose another model.")
    return tuple(needed)


def is_complete(folder: Path, index: Mapping[str, object]) -> bool:
    """Whether a folder holds all that is needed: an interrupted download leaves one that does not."""
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    try:
        needed_files(folder.name, index, names)
    except ModelError:
        return False
    return True


def half_precision_parts(folder: Path) -> tuple[str, ...]:
    """The parts of a folder that are there in float16 files only."""
    names = {path.relative_to(folder).as_posix() for path in folder.glob("*/*.safetensors")}
    return tuple(part for part in WEIGHT_STEMS if weights_variant(names, part) == "fp16")


def _tokenizer_files(model: str, names: Collection[str]) -> list[str]:
    found = [name for name in names if re.fullmatch(r"tokenizer/[\w\-]+\.(json|txt)", name)]
    if {"tokenizer/vocab.json", "tokenizer/merges.txt"} <= set(found) or "tokenizer/tokenizer.json" in found:
        return sorted(found)
    raise ModelError(f"The model {model} is not complete: it has no tokenizer/vocab.json. Choose another model.")


def _weights_file(model: str, part: str, names: Collection[str]) -> str:
    variant = weights_variant(names, part)
    if variant is not None:
        return weights_name(part, variant)
    pickles = [name for name in names if name.startswith(f"{part}/{PICKLE_STEMS[part]}") and name.endswith(".bin")]
    if pickles:
        raise ModelError(
            f"The model {model} has its {part} only as a pickle ({min(pickles)}): opening one can run any program "
            "that is hidden in it, so the studio never does. Choose a model with .safetensors files, or ask its "
            "author for them."
        )
    raise ModelError(
        f"The model {model} has no {weights_name(part, '')}, so it cannot be used. Choose a model in diffusers' layout."
    )
