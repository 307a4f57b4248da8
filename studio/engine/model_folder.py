"""A model in diffusers' layout: which of its files are needed, and whether those of a folder are what they should be.

No pickles are needed, no safety checker, no second copies. No torch.
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from studio.core.errors import ModelError, WeightsFileError
from studio.core.files import assert_regular, open_file, read_text
from studio.core.language import N_, _
from studio.loras.weights_file import PICKLE_ENDINGS, read_header

PIPELINE = "StableDiffusionPipeline"
MODEL_INDEX = "model_index.json"
WEIGHT_STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
}
PICKLE_STEMS = {**WEIGHT_STEMS, "text_encoder": "pytorch_model"}
# In the order of download: the weights last, so that a folder with weights has the small files, whose number varies.
PARTS = ("scheduler", "tokenizer", *WEIGHT_STEMS)
# Far above those of any Stable Diffusion 1.x, far below what fills a memory: no model needs more.
CONFIGURATIONS = ("config.json", "scheduler_config.json", "tokenizer_config.json")
MAX_NUMBERS = {"num_train_timesteps": 10_000, "model_max_length": 1000, "max_position_embeddings": 1000}
MAX_LAYERS = 100
MAX_NUMBER = 1_000_000


def weights_variant(names: Collection[str], part: str) -> str | None:
    """`""` where a part has its usual weights, `fp16` where it has only those, None where it has no safetensors."""
    for variant in ("", "fp16"):
        if weights_name(part, variant) in names:
            return variant
    return None


def weights_name(part: str, variant: str) -> str:
    """`unet/diffusion_pytorch_model.fp16.safetensors`."""
    return f"{part}/{WEIGHT_STEMS[part]}{'.' * bool(variant)}{variant}.safetensors"


class OtherKindError(ModelError):
    """A model that is no Stable Diffusion 1.x."""


def needed_files(model: str, index: Mapping[str, object], names: Collection[str]) -> tuple[str, ...]:
    """What StableDiffusionPipeline reads of a model's files.

    Args:
        model: its name, for messages.
        index: what its model_index.json says.
        names: all its files, as paths with `/`.

    Raises:
        OtherKindError: where it is of another kind.
        ModelError: where something is missing, or there only as a pickle.
    """
    if (kind := index.get("_class_name")) != PIPELINE:
        raise OtherKindError(
            _(
                "{repository} is a {kind}; the studio works with {pipeline} (Stable Diffusion 1.x).",
                repository=model,
                kind=kind,
                pipeline=PIPELINE,
            )
        )
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
        raise _incomplete(model, missing[0])
    return tuple(needed)


@dataclass(frozen=True)
class ModelLayout:
    """Which files of a repository a kind of model consists of.

    Attributes:
        index: the file that says what it is.
        needed: of a model's name, what its index says and all its files, those that are needed; raises ModelError where
            it is of another kind or incomplete.
        without_index: what is said of a `{repository}` that has no index; in English.
        instead: a file that is enough where there is no index, which then says nothing.
    """

    index: str
    needed: Callable[[str, Mapping[str, object], Collection[str]], tuple[str, ...]]
    without_index: str
    instead: str = ""

    def index_in(self, names: Collection[str]) -> str:
        """Which of a model's files is its index; "" where it has none."""
        return next((name for name in (self.index, self.instead) if name in names), "")

    def read_index(self, path: Path) -> Mapping[str, object]:
        """What an index says.

        Raises:
            OSError, ValueError, TypeError: where it cannot be read.
        """
        return {} if path.name == self.instead else dict(json.loads(read_text(path)))


DIFFUSERS_LAYOUT = ModelLayout(
    index=MODEL_INDEX,
    needed=needed_files,
    without_index=N_(
        "{repository} has no model_index.json, so it is not a model in diffusers' layout. If it offers a checkpoint "
        "of Stable Diffusion 1.x as .safetensors, download that file and give its path."
    ),
)


def is_complete(folder: Path, index: Mapping[str, object], layout: ModelLayout = DIFFUSERS_LAYOUT) -> bool:
    """Whether a folder holds all that is needed: an interrupted download leaves one that does not.

    One of another kind is not fetched again: whoever loads it says what it is.
    """
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    try:
        layout.needed(folder.name, index, names)
    except OtherKindError:
        return True
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
    raise _incomplete(model, "tokenizer/vocab.json")


def _incomplete(model: str, file: str) -> ModelError:
    return ModelError(
        _("The model {model} is not complete: it has no {file}. Choose another model.", model=model, file=file)
    )


def _weights_file(model: str, part: str, names: Collection[str]) -> str:
    variant = weights_variant(names, part)
    if variant is not None:
        return weights_name(part, variant)
    pickles = [name for name in names if name.startswith(f"{part}/{PICKLE_STEMS[part]}") and name.endswith(".bin")]
    if pickles:
        raise ModelError(
            _(
                "The model {model} has its {part} only as a pickle ({pickle}): opening one can run "
                "any program that is hidden in it, so the studio never does. Choose a model with "
                ".safetensors files, or ask its author for them.",
                model=model,
                part=part,
                pickle=min(pickles),
            )
        )
    raise ModelError(
        _(
            "The model {model} has no {file}, so it cannot be used. Choose a model in diffusers' layout.",
            model=model,
            file=weights_name(part, ""),
        )
    )


def check_folder(folder: Path) -> None:
    """Make sure, as far as it is cheap to tell, that a folder is a whole model.

    Raises:
        ModelError: where files are missing, damaged, pickles, or of another kind of model.
    """
    _assert_stable_diffusion(folder)
    _assert_configurations(folder)
    _assert_safetensors(folder)


def _assert_safetensors(folder: Path) -> None:
    """Say of what only looks like a weights file what it is; a download that failed often leaves one."""
    for part, stem in PICKLE_STEMS.items():
        pickles = [path for ending in PICKLE_ENDINGS for path in (folder / part).glob(f"{stem}*{ending}")]
        if pickles and not any((folder / part).glob("*.safetensors")):
            raise ModelError(
                _(
                    "{file} is a pickle: opening one can run any program that is hidden in it, so the "
                    "studio never does. It needs the {part} as .safetensors; get that file from where "
                    "the model comes from.",
                    file=pickles[0],
                    part=part,
                )
            )
    for path in sorted(folder.glob("*/*.safetensors")):
        with open_file(path) as file:
            head = file.read(64)
        if head.startswith(b"version https://git-lfs"):
            raise ModelError(
                _("{path} is a Git LFS pointer, not the weights themselves: fetch them with `git lfs pull`.", path=path)
            )
        if head.lstrip()[:1] == b"<":
            raise ModelError(
                _("{path} is a web page saved under this name, not weights. Download the model again.", path=path)
            )
        try:
            read_header(path)
        except WeightsFileError as error:
            raise ModelError(_("The model in {folder} cannot be read: {error}", folder=folder, error=error)) from error


def _assert_stable_diffusion(folder: Path) -> None:
    index = folder / "model_index.json"
    try:
        kind = json.loads(read_text(index))["_class_name"]
    except FileNotFoundError as error:
        raise ModelError(
            _(
                "{folder} has no model_index.json, so it is not a model in diffusers' layout. Choose "
                "the folder that holds model_index.json, unet, vae, text_encoder, tokenizer and "
                "scheduler, or a single .safetensors file.",
                folder=folder,
            )
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            _("{index} cannot be read ({error}). Copy or download the model again.", index=index, error=error)
        ) from error
    if kind != PIPELINE:
        raise ModelError(
            _(
                "{folder} holds a {kind}; the studio works with {pipeline} (Stable Diffusion 1.x).",
                folder=folder,
                kind=kind,
                pipeline=PIPELINE,
            )
        )


def _assert_configurations(folder: Path) -> None:
    """Every file is one, and every configuration JSON: libraries answer a damaged one with anything, down to a bare
    Exception, and numbers out of bounds with all the memory there is.
    """
    for path in sorted(path for part in PARTS for path in (folder / part).glob("*")):
        try:
            if path.suffix == ".json":
                _assert_bounds(path, json.loads(read_text(path)))
            elif not path.is_dir():
                assert_regular(path)
        except (OSError, ValueError, RecursionError) as error:
            raise ModelError(
                _("{path} cannot be read ({error}). Copy or download the model again.", path=path, error=error)
            ) from error


def _assert_bounds(path: Path, values: object) -> None:
    if path.name not in CONFIGURATIONS or not isinstance(values, dict):
        return
    for name, value in values.items():
        most = MAX_NUMBERS.get(name, MAX_LAYERS if "layers" in name else MAX_NUMBER)
        numbers = value if isinstance(value, list) else [value]
        if len(numbers) > MAX_NUMBERS["num_train_timesteps"]:  # betas, one for each of the timesteps
            raise ModelError(
                _(
                    "{name} in {path} must be a list of at most {most:,} numbers, got {num_numbers:,}.",
                    name=name,
                    path=path,
                    most=MAX_NUMBERS["num_train_timesteps"],
                    num_numbers=len(numbers),
                )
            )
        least = 1 if name in MAX_NUMBERS else -most
        for number in numbers:
            is_size = isinstance(number, int) or (isinstance(number, float) and name in MAX_NUMBERS)
            if is_size and not least <= number <= most:  # NaN neither
                raise ModelError(
                    _(
                        "{name} in {path} must be between {least:,} and {most:,}, got {number}. Copy or "
                        "download the model again.",
                        name=name,
                        path=path,
                        least=least,
                        most=most,
                        number=str(number)[:20],
                    )
                )


def forget_own_path(folder: Path) -> None:
    """diffusers notes where a model was loaded from: nothing that belongs into a model that is passed on."""
    for path in [folder / "model_index.json", *folder.glob("*/*config.json")]:
        entries = json.loads(read_text(path))
        if entries.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")
