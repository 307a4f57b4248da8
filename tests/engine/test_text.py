"""Prompts become the same embeddings as diffusers makes; weights, long prompts and the cache do what they say."""

import torch

from studio.core.settings import GenerationSettings
from studio.engine.denoise import KEPT_PROMPTS, TextEncoding, encode_prompts
from studio.engine.pipeline import PipelineManager
from studio.images.prompts import escape_prompt
from tests.captions import hostile_captions

LONG = ", ".join(["red canvas sneakers on grass"] * 30)


def diffusers_embeddings(manager: PipelineManager, prompt: str) -> torch.Tensor:
    tokenizer, encoder = manager.components.tokenizer, manager.components.text_encoder
    tokens = tokenizer(prompt, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        return encoder(tokens.input_ids)[0]


def encode(manager: PipelineManager, *prompts: str, long_prompt: bool = False) -> torch.Tensor:
    with torch.inference_mode():
        return encode_prompts(manager.components, prompts, long_prompt=long_prompt)


def test_plain_prompts_are_encoded_as_diffusers_does_to_the_bit(manager: PipelineManager) -> None:
    for prompt in ("brown boots", "", LONG, "a photo of  Red   sneakers,\non wood"):
        assert torch.equal(encode(manager, prompt), diffusers_embeddings(manager, prompt))


def test_a_caption_as_a_prompt_has_the_captions_own_tokens_to_the_bit(manager: PipelineManager) -> None:
    """What training reads of it, which knows neither weights nor tags (`studio.training.torch.caches.token_ids`)."""
    for caption in hostile_captions(200, seed=1):
        assert torch.equal(encode(manager, escape_prompt(caption)), diffusers_embeddings(manager, caption)), caption


def test_weight_1_changes_nothing(manager: PipelineManager) -> None:
    assert torch.equal(encode(manager, "(brown:1.0) boots"), encode(manager, "brown boots"))


def test_a_weight_moves_the_embedding_of_its_word_and_keeps_the_mean(manager: PipelineManager) -> None:
    plain, heavy = encode(manager, "brown boots"), encode(manager, "(brown:1.4) boots")
    ratio = (heavy / plain)[0].median(dim=1).values
    assert torch.isclose(ratio[1] / ratio[2], torch.tensor(1.4), atol=1e-4), "brown is 1.4 times as heavy as boots"
    torch.testing.assert_close(heavy.mean(), plain.mean(), atol=1e-6, rtol=1e-4)


def test_brackets_lower_the_weight(manager: PipelineManager) -> None:
    ratio = (encode(manager, "[brown] boots") / encode(manager, "brown boots"))[0].median(dim=1).values
    assert torch.isclose(ratio[1] / ratio[2], torch.tensor(1 / 1.1), atol=1e-4)


def test_a_weighted_prompt_leaves_its_neighbour_alone(manager: PipelineManager) -> None:
    both = encode(manager, "on grass", "(brown:1.4) boots")
    torch.testing.assert_close(both[0], encode(manager, "on grass")[0])


def test_long_prompts_are_cut_off_unless_asked_for(manager: PipelineManager) -> None:
    assert encode(manager, LONG).shape[1] == 77
    parts = encode(manager, LONG, long_prompt=True)
    assert parts.shape[1] > 77
    assert parts.shape[1] % 77 == 0
    torch.testing.assert_close(parts[:, :77], encode(manager, LONG))


def test_the_shorter_of_two_prompts_gets_as_many_parts_as_the_longer(manager: PipelineManager) -> None:
    both = encode(manager, "", LONG, long_prompt=True)
    empty = encode(manager, "")
    torch.testing.assert_close(both[0, -77:], empty[0])


def test_a_long_prompt_makes_a_valid_picture(manager: PipelineManager, quick: GenerationSettings) -> None:
    long = quick.model_copy(update={"prompt": LONG, "long_prompt": True})
    cut = long.model_copy(update={"long_prompt": False})
    assert not torch.equal(manager.generate(long).latents_CHW, manager.generate(cut).latents_CHW)


def count_forward_passes(manager: PipelineManager, encoding: TextEncoding, *calls: GenerationSettings) -> int:
    passes = []
    handle = manager.components.text_encoder.register_forward_hook(lambda *_: passes.append(1))
    for settings in calls:
        with torch.inference_mode():
            encoding.encode(settings, settings.prompt, state=())
    handle.remove()
    return len(passes)


def test_the_same_words_are_encoded_once(manager: PipelineManager, quick: GenerationSettings) -> None:
    encoding = TextEncoding(manager.components)
    other_seed = quick.model_copy(update={"seed": 1, "num_inference_steps": 3})
    assert count_forward_passes(manager, encoding, quick, other_seed, quick) == 1


def test_other_words_and_other_guidance_are_encoded_anew(manager: PipelineManager, quick: GenerationSettings) -> None:
    encoding = TextEncoding(manager.components)
    changes = ({"prompt": "boots"}, {"negative_prompt": "grass"}, {"guidance_scale": 1.0}, {"long_prompt": True})
    calls = [quick, *(quick.model_copy(update=change) for change in changes)]
    assert count_forward_passes(manager, encoding, *calls) == len(calls)


def test_the_cache_forgets_the_oldest(manager: PipelineManager, quick: GenerationSettings) -> None:
    encoding = TextEncoding(manager.components)
    many = [quick.model_copy(update={"prompt": f"boots {i}"}) for i in range(KEPT_PROMPTS + 1)]
    assert count_forward_passes(manager, encoding, *many, many[-1], many[0]) == len(many) + 1


def chunk(manager: PipelineManager, *ids: int) -> torch.Tensor:
    """(1, 77, D) of these tokens, filled up to 77 by hand."""
    tokenizer, encoder = manager.components.tokenizer, manager.components.text_encoder
    row = [tokenizer.bos_token_id, *ids, *[tokenizer.eos_token_id] * (76 - len(ids))]
    with torch.inference_mode():
        return encoder(torch.tensor([row]))[0]


def test_break_begins_a_chunk_of_its_own_filled_up_with_ends(manager: PipelineManager) -> None:
    tokenizer = manager.components.tokenizer
    boots, grass, long = (
        tokenizer(text, add_special_tokens=False).input_ids for text in ("brown boots,", "on grass", LONG)
    )
    two = torch.cat([chunk(manager, *boots), chunk(manager, *grass)], dim=1)
    assert torch.equal(encode(manager, "brown boots, BREAK on grass"), two)
    assert torch.equal(encode(manager, "brown boots,\nBREAK\non grass BREAK"), two), "at the end it begins nothing"
    cut = torch.cat([chunk(manager, *long[:75]), chunk(manager, *grass)], dim=1)
    assert torch.equal(encode(manager, f"{LONG} BREAK on grass"), cut)
    parts = [chunk(manager, *long[start : start + 75]) for start in range(0, len(long), 75)]
    whole = torch.cat([*parts, chunk(manager, *grass)], dim=1)
    assert torch.equal(encode(manager, f"{LONG} BREAK on grass", long_prompt=True), whole)
    empty_first = torch.cat([chunk(manager), chunk(manager, *grass)], dim=1)
    assert torch.equal(encode(manager, "BREAK on grass"), empty_first)
