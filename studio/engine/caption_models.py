"""Image-to-text models: which kinds are read, which are recommended, which of their files are needed. No torch.

Only what transformers carries itself is read, and WD taggers, by ONNX Runtime: a model's own code is never run, and a
pickle never loaded.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from studio.core.errors import ModelError, WeightsFileError, about
from studio.core.files import open_file, read_text
from studio.core.language import N_, _
from studio.core.paths import typed_path
from studio.engine.hub_download import DownloadWatcher, HubPlace
from studio.engine.model_folder import ModelLayout
from studio.loras.weights_file import read_header

CONFIG = "config.json"
WEIGHTS, SHARDS = "model.safetensors", "model.safetensors.index.json"
PROCESSOR_FILES = {"preprocessor_config.json", "processor_config.json"}
TOKENIZER_FILES = {"tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt"}
TAGGER_WEIGHTS, TAGGER_TAGS = "model.onnx", "selected_tags.csv"
TAGGER = "wd-tagger"
_SMALL_FILE = re.compile(r"[\w\-.]+\.(json|txt|jinja|model)")


@dataclass(frozen=True)
class CaptionKind:
    """A kind of model, by the `model_type` of its configuration.

    Attributes:
        class_name: transformers' class.
        prompt: what it is asked where the user asks nothing else.
        continues: the prompt is the beginning of the caption, not a question that an answer follows.
    """

    class_name: str
    prompt: str = ""
    continues: bool = False


CAPTION_KINDS: Mapping[str, CaptionKind] = {
    "blip": CaptionKind("BlipForConditionalGeneration", continues=True),
    "blip-2": CaptionKind("Blip2ForConditionalGeneration"),
    "florence2": CaptionKind("Florence2ForConditionalGeneration", prompt="<DETAILED_CAPTION>"),
    "git": CaptionKind("GitForCausalLM", continues=True),
    "llava": CaptionKind(
        "LlavaForConditionalGeneration", prompt="Write a short caption for this image, without any introduction."
    ),
}


@dataclass(frozen=True)
class RecommendedCaptioner:
    """A model worth trying; what it is good at is in English until it is shown."""

    name: str
    gigabytes: float
    licence: str
    good_at: str


RECOMMENDED: tuple[RecommendedCaptioner, ...] = (
    RecommendedCaptioner(
        "Salesforce/blip-image-captioning-large", 1.9, "BSD-3", N_("one plain sentence; quick even without a GPU")
    ),
    RecommendedCaptioner(
        "florence-community/Florence-2-base", 0.5, "MIT", N_("detailed sentences; the best for its size")
    ),
    RecommendedCaptioner("Salesforce/blip2-opt-2.7b", 15.0, "MIT", N_("short captions; answers questions")),
    RecommendedCaptioner("llava-hf/llava-1.5-7b-hf", 14.0, "Llama 2", N_("follows instructions; needs a large GPU")),
    RecommendedCaptioner(
        "fancyfeast/llama-joycaption-beta-one-hf-llava",
        17.0,
        "Llama 3.1",
        N_("long captions made for training; needs a large GPU"),
    ),
    RecommendedCaptioner(
        "SmilingWolf/wd-vit-tagger-v3", 0.4, "Apache 2.0", N_("tags of anime drawings; quick without a GPU")
    ),
)


def is_tagger(names: Collection[str]) -> bool:
    """Whether a model of these files is a WD tagger, whatever its configuration says."""
    return {TAGGER_WEIGHTS, TAGGER_TAGS} <= {*names}


def caption_kind(model: str, config: Mapping[str, object]) -> str:
    """The `model_type` of a configuration.

    Args:
        model: its name, for messages.

    Raises:
        ModelError: where it is of a kind that is not read, or needs code of its own.
    """
    if "auto_map" in config:
        raise ModelError(
            _(
                "{model} needs program code of its own, which the studio never runs. Choose a copy for transformers' "
                "own classes, such as {copy}.",
                model=model,
                copy="florence-community/Florence-2-base",
            )
        )
    kind = config.get("model_type")
    if not isinstance(kind, str) or kind not in CAPTION_KINDS:
        raise ModelError(
            _(
                "{model} is no model that writes captions here: its model_type must be one of {kinds}, got {kind!r}.",
                model=model,
                kinds=", ".join(CAPTION_KINDS),
                kind=kind,
            )
        )
    return kind


def needed_caption_files(model: str, config: Mapping[str, object], names: Collection[str]) -> tuple[str, ...]:
    """What is read of a model's files: configuration, tokenizer, weights; of a tagger, weights and tags.

    Raises:
        ModelError: where it is of another kind, or has its weights as a pickle only, or not at all.
    """
    if is_tagger(names):
        return (TAGGER_TAGS, TAGGER_WEIGHTS)
    if not config and TAGGER_TAGS in names:
        raise _without(model, {TAGGER_WEIGHTS})
    caption_kind(model, config)
    small = sorted(name for name in names if _SMALL_FILE.fullmatch(name) and name != SHARDS)
    for one_of in (PROCESSOR_FILES, TOKENIZER_FILES):
        if not one_of & {*small}:
            raise _without(model, one_of)
    if WEIGHTS in names:
        return (*small, WEIGHTS)
    shards = sorted(name for name in names if re.fullmatch(r"model-\d+-of-\d+\.safetensors", name))
    if SHARDS in names and shards:
        if len(shards) < int(shards[0].rsplit("-", 1)[1].removesuffix(".safetensors")):
            raise ModelError(_("Files of the model {model} are missing. Download it again.", model=model))
        return (*small, SHARDS, *shards)
    if pickles := sorted(name for name in names if name.endswith((".bin", ".pt", ".ckpt"))):
        raise ModelError(
            _(
                "The model {model} has its weights only as a pickle ({pickle}): opening one can run any program that "
                "is hidden in it, so the studio never does. Choose a model with .safetensors files.",
                model=model,
                pickle=pickles[0],
            )
        )
    raise _without(model, {WEIGHTS})


def _without(model: str, one_of: Collection[str]) -> ModelError:
    return ModelError(_("The model {model} has no {file}, so it cannot be used.", model=model, file=min(one_of)))


CAPTIONER_LAYOUT = ModelLayout(
    index=CONFIG,
    needed=needed_caption_files,
    without_index=N_("{repository} has no config.json, so it is no model for captions. Choose another model."),
    instead=TAGGER_TAGS,
)


QUICK_GIGABYTES = 2.0


def captioner_at_hand(cache: Path | None = None) -> str:
    """The recommended model that writes sentences, is on this machine already, and quick on any; "" where none is.

    Args:
        cache: huggingface_hub's folder for models; that of HF_HOME where none is given.
    """
    from huggingface_hub import constants

    from studio.engine.hub import local_snapshot, split_revision

    for model in RECOMMENDED:
        if model.gigabytes <= QUICK_GIGABYTES:
            repository, revision = split_revision(model.name)
            place = HubPlace(cache or Path(constants.HF_HUB_CACHE), repository)
            found = local_snapshot(place, revision, CAPTIONER_LAYOUT)
            if found is not None and not (found / TAGGER_TAGS).exists():  # tags are of drawings: to be asked for
                return model.name
    return ""


def find_captioner(name: str, progress: DownloadWatcher | None = None) -> Path:
    """The folder of a captioner: a folder, or a model of the Hub, which is downloaded where needed.

    Raises:
        ModelError: where there is none, or it is of another kind, incomplete, or damaged.
        DownloadCancelledError: where the watcher asked to stop.
    """
    from studio.engine.hub import find_hub_model  # here: the page lists models without huggingface_hub

    folder = typed_path(name)
    if not folder.is_dir():
        folder = find_hub_model(name, progress=progress, layout=CAPTIONER_LAYOUT).folder
    check_captioner(folder)
    return folder


def assert_captioner_there(name: str) -> None:
    """Make sure, without asking anyone, that a name can be a captioner.

    Raises:
        ModelError: where it is none, or a folder that holds none.
    """
    from studio.engine.hub import looks_like_hub_name

    with about("model"):
        if typed_path(name).is_dir() or not looks_like_hub_name(name):
            find_captioner(name)


def check_captioner(folder: Path) -> str:
    """Make sure, as far as it is cheap to tell, that a folder is a whole captioner; its kind, or `TAGGER`.

    Raises:
        ModelError: where it is not.
    """
    names = {path.name for path in folder.iterdir()}
    without_config = is_tagger(names) or CAPTIONER_LAYOUT.index_in(names) == TAGGER_TAGS
    config = {} if without_config else read_config(folder)
    for name in needed_caption_files(folder.name, config, names):
        if name in (TAGGER_WEIGHTS, TAGGER_TAGS) or name.endswith(".safetensors"):
            _assert_no_pointer(folder / name)
        if name.endswith(".safetensors"):
            _assert_weights(folder / name)
    return TAGGER if is_tagger(names) else caption_kind(folder.name, config)


def read_config(folder: Path) -> Mapping[str, object]:
    """A model's configuration.

    Raises:
        ModelError: where it cannot be read.
    """
    try:
        config = json.loads(read_text(folder / CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            _(
                "{folder} has no config.json that can be read ({error}), so it is no model for captions.",
                folder=folder,
                error=error,
            )
        ) from error
    if not isinstance(config, dict):
        raise ModelError(_("{file} must hold a configuration. Download the model again.", file=folder / CONFIG))
    return config


def _assert_no_pointer(path: Path) -> None:
    with open_file(path) as file:
        if file.read(32).startswith(b"version https://git-lfs"):
            raise ModelError(
                _("{path} is a Git LFS pointer, not the weights themselves: fetch them with `git lfs pull`.", path=path)
            )


def _assert_weights(path: Path) -> None:
    try:
        read_header(path)
    except WeightsFileError as error:
        raise ModelError(_("The model in {folder} cannot be read: {error}", folder=path.parent, error=error)) from error
