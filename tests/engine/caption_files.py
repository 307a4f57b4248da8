"""Tiny image-to-text models of every kind that is read, with weights at random, saved as transformers saves them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from tokenizers.processors import TemplateProcessing
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    CLIPImageProcessorPil,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.processing_utils import ProcessorMixin

SIDE = 32
WIDTH = 16
PAD, UNK, BOS, EOS, IMAGE = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "<image>"
WORDS = ["a", "red", "blue", "black", "white", "shoe", "boot", "on", "wood", "grass", "in", "the", "photo", "of"]
WORDS += ["describe", "image"]
LAYERS = {"hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**LAYERS, "image_size": SIDE, "patch_size": 16}
CHAT = (
    "{% for m in messages %}{% for c in m.content %}"
    "{% if c.type == 'image' %}<image> {% else %}{{ c.text }}{% endif %}"
    "{% endfor %}{% endfor %}"
)
Saver = Callable[[Path], None]


def _tokenizer(**named: object) -> PreTrainedTokenizerFast:
    """One token a word; anything else is unknown."""
    words = (PAD, UNK, BOS, EOS, IMAGE, *WORDS)
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token=UNK))
    tokenizer.pre_tokenizer = Split(" ", "removed")
    tokenizer.post_processor = TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=[(BOS, 2), (EOS, 3)])
    special = {"pad_token": PAD, "unk_token": UNK, "bos_token": BOS, "eos_token": EOS, "cls_token": BOS}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, sep_token=EOS, model_max_length=64, **special, **named)


def _small_pictures() -> BlipImageProcessorPil:
    return BlipImageProcessorPil(size={"height": SIDE, "width": SIDE})


def _clip_pictures() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE})


def _save(folder: Path, model: torch.nn.Module, processor: ProcessorMixin) -> None:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def _blip(folder: Path) -> None:
    tokenizer = _tokenizer()
    text = {
        **LAYERS,
        "vocab_size": len(tokenizer),
        "encoder_hidden_size": WIDTH,
        "max_position_embeddings": 64,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "sep_token_id": 3,
        "pad_token_id": 0,
    }
    config = BlipConfig(text_config=text, vision_config={**VISION, "initializer_range": 0.02}, projection_dim=WIDTH)
    _save(folder, BlipForConditionalGeneration(config), BlipProcessor(_small_pictures(), tokenizer))


def _blip_2(folder: Path) -> None:
    tokenizer = _tokenizer()
    opt = {
        "model_type": "opt",
        "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 64,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    config = Blip2Config(
        vision_config=VISION,
        qformer_config={**LAYERS, "vocab_size": 10, "encoder_hidden_size": WIDTH},
        text_config=opt,
        num_query_tokens=4,
        image_token_index=4,
    )
    processor = Blip2Processor(_small_pictures(), tokenizer, num_query_tokens=4)
    _save(folder, Blip2ForConditionalGeneration(config), processor)


def _git(folder: Path) -> None:
    tokenizer = _tokenizer()
    config = GitConfig(
        vision_config=VISION,
        **LAYERS,
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        bos_token_id=2,
        eos_token_id=3,
        pad_token_id=0,
    )
    _save(folder, GitForCausalLM(config), GitProcessor(_clip_pictures(), tokenizer))


def _llava(folder: Path) -> None:
    tokenizer = _tokenizer(extra_special_tokens={"image_token": IMAGE})
    llama = {
        **LAYERS,
        "model_type": "llama",
        "vocab_size": len(tokenizer),
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
    }
    config = LlavaConfig(
        vision_config={**VISION, "model_type": "clip_vision_model", "projection_dim": WIDTH},
        text_config=llama,
        image_token_index=4,
        vision_feature_layer=-1,
    )
    processor = LlavaProcessor(
        _clip_pictures(),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    _save(folder, LlavaForConditionalGeneration(config), processor)


def _florence2(folder: Path) -> None:
    tokenizer = _tokenizer(extra_special_tokens={"image_token": IMAGE})
    bart = {
        "model_type": "bart",
        "d_model": WIDTH,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": 128,
        "bos_token_id": 2,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "decoder_start_token_id": 3,
        "forced_eos_token_id": 3,
        "forced_bos_token_id": 2,
    }
    davit = {
        "embed_dim": [8],
        "depths": [1],
        "num_heads": [2],
        "num_groups": [2],
        "patch_size": [7],
        "patch_stride": [4],
        "patch_padding": [3],
        "patch_prenorm": [False],
        "window_size": 4,
        "projection_dim": WIDTH,
    }
    config = Florence2Config(text_config=bart, vision_config=davit, image_token_id=4, projection_dim=WIDTH)
    pictures = _small_pictures()
    pictures.image_seq_length = 65  # type: ignore[attr-defined]
    processor = Florence2Processor(pictures, tokenizer, num_additional_image_tokens=1)
    _save(folder, Florence2ForConditionalGeneration(config), processor)


SAVERS: Mapping[str, Saver] = {
    "blip": _blip,
    "blip-2": _blip_2,
    "florence2": _florence2,
    "git": _git,
    "llava": _llava,
}


def save_captioner(kind: str, folder: Path) -> Path:
    """A tiny model of a kind, the same one each time."""
    torch.manual_seed(7)
    SAVERS[kind](folder)
    return folder
