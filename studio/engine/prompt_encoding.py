"""Prompts to embeddings: weights, long prompts, and a cache, so that the same words are encoded once.

Shapes: N = tokens (77 for each part of a prompt), D = embedding width.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import torch
from transformers import CLIPTokenizer

from studio.core.settings import GenerationSettings
from studio.engine.models import Components
from studio.images.prompts import parse_weights

KEPT_PROMPTS = 64  # 77 × 768 floats each: 15 MB in all for Stable Diffusion 1.5


@dataclass(frozen=True)
class WeightedTokens:
    """Token ids and the weight of each, without the marks of beginning and end."""

    ids: tuple[int, ...]
    weights: tuple[float, ...]


@dataclass
class TextEncoding:
    """Encodes prompts with one model's text encoder."""

    components: Components
    _kept: OrderedDict[Hashable, torch.Tensor] = field(default_factory=OrderedDict)

    def encode(self, settings: GenerationSettings, prompt: str, *, state: Hashable) -> torch.Tensor:
        """(2, N, D) embeddings, the negative one first; (1, N, D) without guidance.

        Args:
            prompt: the prompt without LoRA tags.
            state: what else the embeddings depend on: the LoRAs that change the text encoder.
        """
        guided = settings.guidance_scale > 1 and settings.guidance_start < settings.guidance_end
        texts = (settings.negative_prompt, prompt) if guided else (prompt,)
        key = (texts, settings.long_prompt, state)
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            while len(self._kept) >= KEPT_PROMPTS:
                self._kept.popitem(last=False)
            self._kept[key] = encode_prompts(self.components, texts, long_prompt=settings.long_prompt)
        return self._kept[key]

    def forget(self) -> None:
        """Encode all anew from now on."""
        self._kept.clear()


def encode_prompts(components: Components, texts: Sequence[str], *, long_prompt: bool = False) -> torch.Tensor:
    """(len(texts), N, D) embeddings; N is 77, or with `long_prompt` as many times 77 as the longest text needs.

    Without `long_prompt` what is past 77 tokens is cut off.
    """
    tokenizer = components.tokenizer
    prompts = [_tokens(tokenizer, text) for text in texts]
    size = tokenizer.model_max_length - 2
    num_parts = max(1, *(-(-len(tokens.ids) // size) for tokens in prompts)) if long_prompt else 1
    parts = [_encode_part(components, prompts, slice(size * i, size * (i + 1))) for i in range(num_parts)]
    return torch.cat(parts, dim=1)


def _tokens(tokenizer: CLIPTokenizer, text: str) -> WeightedTokens:
    ids: list[int] = []
    weights: list[float] = []
    for piece in parse_weights(text):
        piece_ids = tokenizer(piece.text, add_special_tokens=False).input_ids
        ids += piece_ids
        weights += [piece.weight] * len(piece_ids)
    return WeightedTokens(tuple(ids), tuple(weights))


def _encode_part(components: Components, prompts: Sequence[WeightedTokens], part: slice) -> torch.Tensor:
    """(len(prompts), 77, D): one part of every prompt, between its marks, filled up as the tokenizer does."""
    tokenizer, encoder = components.tokenizer, components.text_encoder
    rows, weight_rows = [], []
    for prompt in prompts:
        ids, weights = prompt.ids[part], prompt.weights[part]
        filling = tokenizer.model_max_length - len(ids) - 2
        rows.append([tokenizer.bos_token_id, *ids, tokenizer.eos_token_id, *[tokenizer.pad_token_id] * filling])
        weight_rows.append([1.0, *weights, 1.0, *[1.0] * filling])
    embeddings: torch.Tensor = encoder(torch.tensor(rows, device=encoder.device))[0]
    return _weighted(embeddings, torch.tensor(weight_rows))


def _weighted(embeddings_BND: torch.Tensor, weights_BN: torch.Tensor) -> torch.Tensor:
    """Each token's embedding times its weight, then scaled so that the prompt's mean stays, as A1111 does it.

    A prompt whose weights are all 1 is not touched, to the bit.
    """
    for i in torch.nonzero((weights_BN != 1).any(dim=1)).flatten().tolist():
        before = embeddings_BND[i].mean()
        weighted = embeddings_BND[i] * weights_BN[i].to(embeddings_BND)[:, None]
        after = weighted.mean()
        embeddings_BND[i] = weighted * (before / after) if float(after.abs()) > 0 else weighted
    return embeddings_BND
