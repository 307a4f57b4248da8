"""Captions of images by a model that transformers carries, loaded from a folder: no network, no code of its own."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoProcessor
from transformers.utils import logging as transformers_logging

from studio.core.errors import ModelError
from studio.core.language import _
from studio.core.results import PrecisionDecision
from studio.core.settings import PrecisionName
from studio.core.text import gigabytes
from studio.engine.caption_models import CAPTION_KINDS, TAGGER, check_captioner, find_captioner
from studio.engine.device import DTYPES, assert_precision, decide_precision, pick_device, prepare_device
from studio.engine.hub_download import DownloadProgress, DownloadWatcher

if TYPE_CHECKING:
    from studio.engine.tagger import Tagger

TOP_P = 0.9


def load_captioner(
    name: str,
    *,
    precision: PrecisionName,
    cpu: bool,
    thresholds: tuple[float, float],
    say: Callable[[str], None],
    should_stop: Callable[[], bool],
) -> "Captioner | Tagger":
    """Find a captioner, download it where needed, and load it.

    Args:
        name: as `find_captioner` takes it.
        thresholds: of a tagger's general tags, and of its characters.
        say: told how far a download is.

    Raises:
        ModelError: where it cannot be had or loaded.
        DownloadCancelledError: where it should stop.
    """

    def progress(arrived: DownloadProgress) -> None:
        share = arrived.done_bytes / max(1, arrived.total_bytes)
        say(
            _(
                "Downloading {model}: {share:.0%} of {total}.",
                model=name,
                share=share,
                total=gigabytes(arrived.total_bytes),
            )
        )

    folder = find_captioner(name, DownloadWatcher(progress, should_stop))
    if check_captioner(folder) == TAGGER:
        from studio.engine.tagger import Tagger  # no other model needs ONNX Runtime

        return Tagger(folder, general_threshold=thresholds[0], character_threshold=thresholds[1])
    device = pick_device(cpu_only=cpu)
    prepare_device(device)
    return Captioner(folder, device=device, precision=decide_precision(device.type, precision))


class Captioner:
    """A loaded model. Not safe for threads."""

    says_tags = False

    def __init__(self, folder: Path, *, device: torch.device, precision: PrecisionDecision) -> None:
        """Load it.

        Raises:
            ModelError: where it cannot be read, lacks weights, or is of another kind.
            PrecisionError: where a weight has another precision than was decided.
        """
        transformers_logging.set_verbosity_error()
        transformers_logging.disable_progress_bar()
        self._device = device
        self._dtype = DTYPES[precision.precision]
        self._kind = CAPTION_KINDS[check_captioner(folder)]
        kind = getattr(transformers, self._kind.class_name)
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._model, loading = kind.from_pretrained(
                folder, dtype=self._dtype, use_safetensors=True, output_loading_info=True, **local
            )
            self._processor = AutoProcessor.from_pretrained(folder, **local)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError, SafetensorError) as error:
            raise ModelError(
                _(
                    "The model in {folder} cannot be loaded ({error}). Download it again, or choose another.",
                    folder=folder,
                    error=str(error).strip().partition("\n")[0][:200] or type(error).__name__,
                )
            ) from error
        if missing := sorted(loading["missing_keys"]) + sorted(map(str, loading["mismatched_keys"])):
            raise ModelError(
                _(
                    "The model in {folder} lacks {num_missing} of its weights ({weight}, …). Download it again, or "
                    "choose another.",
                    folder=folder,
                    num_missing=len(missing),
                    weight=missing[0],
                )
            )
        assert_precision({self._kind.class_name: self._model}, precision.precision)
        self._model.eval().to(device)

    def caption(
        self, image: Image.Image, *, prompt: str = "", num_candidates: int = 1, max_new_tokens: int = 60, seed: int = 0
    ) -> tuple[str, ...]:
        """What the model says of an RGB image: the likeliest words first, then others by chance; none twice.

        Args:
            prompt: what it is asked, or the beginning of the caption; "" for what is usual for the model.
            seed: of the words by chance; the same one gives the same words on the same machine.

        Raises:
            ModelError: where the model cannot take such a prompt.
        """
        inputs, num_prompt_tokens = self._inputs(image, prompt.strip() or self._kind.prompt)
        torch.manual_seed(seed)
        limits = {"max_new_tokens": min(max_new_tokens, self._room(inputs, prompt))}
        with torch.inference_mode():
            tokens = self._model.generate(**inputs, **limits, do_sample=False, num_beams=1)
            said = self._text(tokens, num_prompt_tokens)
            if num_candidates > 1:
                chance = {"do_sample": True, "top_p": TOP_P, "num_return_sequences": num_candidates - 1}
                said += self._text(self._model.generate(**inputs, **limits, **chance), num_prompt_tokens)
        return tuple(dict.fromkeys(text for text in said if text))

    def _inputs(self, image: Image.Image, prompt: str) -> tuple[Any, int]:
        """What the model is given, and how many tokens of what it returns are not the caption."""
        text: str | None = prompt or None
        if self._kind is CAPTION_KINDS["llava"]:
            content = [{"type": "image"}, {"type": "text", "text": prompt}]
            chat = [{"role": "user", "content": content}]
            text = self._processor.apply_chat_template(chat, add_generation_prompt=True)
        try:
            inputs = self._processor(images=image, text=text, return_tensors="pt").to(self._device, self._dtype)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelError(
                _("The model cannot be asked {prompt!r}: {error}", prompt=prompt, error=str(error)[:200])
            ) from error
        if text and self._kind is CAPTION_KINDS["git"]:  # without the token that ends a caption
            for name in ("input_ids", "attention_mask"):
                inputs[name] = inputs[name][:, :-1]
        if self._kind.continues or self._kind is CAPTION_KINDS["florence2"]:
            return inputs, 0
        return inputs, inputs["input_ids"].shape[1] if text else 0

    def _room(self, inputs: Any, prompt: str) -> int:  # noqa: ANN401 - transformers' BatchFeature
        """How many tokens a caption may have beside what stands before it: a model reads no more than it has places.

        Raises:
            ModelError: where the prompt leaves none.
        """
        config = self._model.config
        places: int = config.get_text_config(decoder=True).max_position_embeddings
        before: int = getattr(config, "num_query_tokens", 1)
        if "input_ids" in inputs and self._kind is not CAPTION_KINDS["florence2"]:
            before = inputs["input_ids"].shape[1]
        room = places - before - 1
        if room < 1:
            raise ModelError(
                _(
                    "The prompt must leave room for a caption: the model reads {places:,} tokens, and {prompt!r} has "
                    "{num_tokens:,}. Ask for less.",
                    places=places,
                    prompt=prompt[:80],
                    num_tokens=before,
                )
            )
        return room

    def _text(self, tokens_BT: torch.Tensor, num_prompt_tokens: int) -> list[str]:
        """(B, T) tokens as B captions on one line each."""
        decoded = self._processor.batch_decode(tokens_BT[:, num_prompt_tokens:], skip_special_tokens=True)
        return [" ".join(text.split()) for text in decoded]
