"""Train a small BLIP that says which shoe a picture shows: `red sneakers, wooden floor`."""

# Upper-case endings of names are shapes: B pictures in a batch, C channels, H × W, T tokens.

import argparse
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from attributes import GROUNDS, KINDS, PALETTE, Ground, ShoeAttributes
from drawing import ShoePicture, draw
from optimization import LossLog, WeightAverage, learning_rate_factor
from picture_set import PictureSet, load_picture_set
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.decoders import WordPiece
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor, nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample, interpolate
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessorPil,
    BlipProcessor,
    PreTrainedTokenizerFast,
)

WARMUP_STEPS = 150
MAX_GRADIENT_NORM = 1.0
HEADS_WEIGHT = 0.3
NUM_CLASSES = [len(KINDS), len(PALETTE), len(GROUNDS)]
SIDE, PATCH, WIDTH = 128, 16, 128
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PAD, UNK, CLS, SEP, MASK = range(len(SPECIAL))
GROUND_WORDS: dict[Ground, str] = {
    "grey": "grey background",
    "wood": "wooden floor",
    "grass": "grass",
    "street": "street",
    "studio": "studio background",
    "white": "white background",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The command line of this script."""

    pictures: Path
    output: Path
    start_from: Path | None
    max_train_steps: int
    learning_rate: float
    batch_size: int
    seed: int
    num_held_out: int
    device: str


def parse_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line, or the given arguments."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path, required=True, help="folder that make_pictures.py filled")
    parser.add_argument("--output", type=Path, required=True, help="folder for the captioner")
    parser.add_argument("--start-from", type=Path, help="a captioner's folder, to train it further")
    parser.add_argument("--max-train-steps", type=int, default=2000, help="default: 2000")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="default: 1e-3")
    parser.add_argument("--batch-size", type=int, default=64, help="pictures a step (default: 64)")
    parser.add_argument("--seed", type=int, default=1, help="for weights and batches (default: 1)")
    parser.add_argument("--num-held-out", type=int, default=600, help="drawn anew and captioned at the end (600)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: cpu)")
    return Settings(**vars(parser.parse_args(arguments)))


def caption_of(shoe: ShoeAttributes) -> str:
    """What is to be said of a picture."""
    return f"{shoe.colour} {shoe.kind}, {GROUND_WORDS[shoe.ground]}"


def make_processor() -> BlipProcessor:
    """One token a word of all captions, and pictures at the size that they are drawn at."""
    words = sorted({word for text in (*PALETTE, *KINDS, *GROUND_WORDS.values()) for word in text.split()} | {","})
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate((*SPECIAL, *words))}, unk_token="[UNK]"))
    tokenizer.normalizer = Lowercase()  # type: ignore[assignment]
    tokenizer.pre_tokenizer = BertPreTokenizer()  # type: ignore[assignment]
    tokenizer.post_processor = TemplateProcessing(  # type: ignore[assignment]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", CLS), ("[SEP]", SEP)]
    )
    tokenizer.decoder = WordPiece()  # type: ignore[assignment]  # closes the gap before a comma
    named = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, **named)
    return BlipProcessor(BlipImageProcessorPil(size={"height": SIDE, "width": SIDE}), fast)


def make_model(vocab_size: int) -> BlipForConditionalGeneration:
    """1.4 million weights, at random."""
    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "projection_dim": WIDTH, "num_attention_heads": 4}
    text = {
        "vocab_size": vocab_size,
        "encoder_hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "max_position_embeddings": 32,
        "bos_token_id": CLS,
        "eos_token_id": SEP,
        "sep_token_id": SEP,
        "pad_token_id": PAD,
    }
    vision = {"num_hidden_layers": 4, "image_size": SIDE, "patch_size": PATCH, "initializer_range": 0.02}
    config = BlipConfig(
        text_config={**shared, **text}, vision_config={**shared, **vision}, projection_dim=WIDTH, label_smoothing=0.0
    )
    return BlipForConditionalGeneration(config)


def batches(
    picture_set: PictureSet, processor: BlipProcessor, settings: Settings
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pictures (B, C, H, W), their captions' tokens (B, T), and classes (B, 3) of kind, colour and ground, without end.

    Each picture is mirrored or not, moved and scaled a little, softened or not, and a little lighter or darker.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    tokens_NT = processor.tokenizer(
        [caption_of(shoe) for shoe in picture_set.attributes], padding=True, return_tensors="pt"
    ).input_ids
    classes_N3 = torch.tensor(
        [
            (KINDS.index(shoe.kind), list(PALETTE).index(shoe.colour), GROUNDS.index(shoe.ground))
            for shoe in picture_set.attributes
        ]
    )
    mean, std = (torch.tensor(v)[:, None, None] for v in (_mean(processor), _std(processor)))
    while True:
        indices = torch.randint(0, len(tokens_NT), (settings.batch_size,), generator=generator)
        pictures_BCHW = torch.from_numpy(picture_set.pictures_NHWC[indices.numpy()]).permute(0, 3, 1, 2).float() / 255
        pictures_BCHW = moved(pictures_BCHW, generator)
        if torch.rand((), generator=generator) < 0.3:  # as of a smaller picture that was enlarged
            small = interpolate(pictures_BCHW, size=(96, 96), mode="area")
            pictures_BCHW = interpolate(small, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
        light = 0.95 + 0.1 * torch.rand(len(indices), 1, 1, 1, generator=generator)
        white = pictures_BCHW.amin(dim=1, keepdim=True) > 0.995  # white stays white
        pictures_BCHW = torch.where(white, pictures_BCHW, (pictures_BCHW * light).clamp(0, 1))
        yield (pictures_BCHW - mean) / std, tokens_NT[indices], classes_N3[indices]


def moved(pictures_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Each mirrored or not, at 0.9 to 1.1 of its size, moved by up to 8 % of it; edges go on outwards."""
    scale_B = 0.9 + 0.2 * torch.rand(len(pictures_BCHW), generator=generator)
    mirror_B = torch.where(torch.rand(len(pictures_BCHW), generator=generator) < 0.5, -1.0, 1.0)
    theta_B23 = torch.zeros(len(pictures_BCHW), 2, 3)
    theta_B23[:, 0, 0], theta_B23[:, 1, 1] = scale_B * mirror_B, scale_B
    theta_B23[:, :, 2] = 0.16 * (2 * torch.rand(len(pictures_BCHW), 2, generator=generator) - 1)
    grid = affine_grid(theta_B23, list(pictures_BCHW.shape), align_corners=False)
    return grid_sample(pictures_BCHW, grid, padding_mode="border", align_corners=False)


def _mean(processor: BlipProcessor) -> list[float]:
    return list(processor.image_processor.image_mean)


def _std(processor: BlipProcessor) -> list[float]:
    return list(processor.image_processor.image_std)


def train(
    model: BlipForConditionalGeneration, picture_set: PictureSet, processor: BlipProcessor, settings: Settings
) -> BlipForConditionalGeneration:
    """Train in place; the moving average of the weights is what is returned.

    What the picture's tokens come to on average must tell kind, colour and ground as well: from captions alone it takes
    the picture's side long to learn anything.
    """
    heads = nn.Linear(WIDTH, sum(NUM_CLASSES)).to(settings.device)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=0.02)
    average = WeightAverage([model], max_decay=0.99)
    log = LossLog(max_train_steps=settings.max_train_steps)
    model.train()
    made = batches(picture_set, processor, settings)
    for step in range(settings.max_train_steps):
        factor = learning_rate_factor(step, max_train_steps=settings.max_train_steps, warmup_steps=WARMUP_STEPS)
        optimizer.param_groups[0]["lr"] = settings.learning_rate * factor
        pictures, tokens, classes_B3 = (tensor.to(settings.device) for tensor in next(made))
        labels = tokens.masked_fill(tokens == PAD, -100)
        out = model(pixel_values=pictures, input_ids=tokens, attention_mask=(tokens != PAD).long(), labels=labels)
        guesses = heads(out.image_embeds.mean(dim=1)).split(NUM_CLASSES, dim=1)
        loss = out.loss + HEADS_WEIGHT * sum(map(cross_entropy, guesses, classes_B3.unbind(1)))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, MAX_GRADIENT_NORM)
        optimizer.step()
        average.update()
        log.add(step + 1, loss)
    averaged: BlipForConditionalGeneration = average.averaged_models[0].eval()
    return averaged


def draw_held_out(num_pictures: int, *, seed: int) -> list[ShoePicture]:
    """Pictures that no training saw, on every ground alike, in any pose."""
    rng = random.Random(seed)
    return [draw(rng, ground=GROUNDS[index % len(GROUNDS)]) for index in range(num_pictures)]


@torch.no_grad()
def captions_of(
    model: BlipForConditionalGeneration, processor: BlipProcessor, pictures: Sequence[Image.Image]
) -> list[str]:
    """What the model says of pictures."""
    said: list[str] = []
    for start in range(0, len(pictures), 50):
        inputs = processor(images=list(pictures[start : start + 50]), return_tensors="pt").to(model.device)
        tokens = model.generate(**inputs, max_new_tokens=10, do_sample=False)
        said += processor.batch_decode(tokens, skip_special_tokens=True)
    return said


def report(shoes: Sequence[ShoeAttributes], said: Sequence[str]) -> str:
    """How many colours, kinds and grounds are named right, and how many both colour and kind."""
    pairs = list(zip(shoes, said, strict=True))
    right = {
        "colour": [text.split(" ")[:1] == [shoe.colour] for shoe, text in pairs],
        "kind": [text.partition(",")[0].split()[1:] == [shoe.kind] for shoe, text in pairs],
        "ground": [text.partition(",")[2].strip() == GROUND_WORDS[shoe.ground] for shoe, text in pairs],
    }
    right["colour and kind"] = [a and b for a, b in zip(right["colour"], right["kind"], strict=True)]
    return ", ".join(f"{name} {np.mean(values):.1%}" for name, values in right.items())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train on every drawn picture, and caption others."""
    settings = parse_settings(arguments)
    torch.manual_seed(settings.seed)
    processor = make_processor()
    if settings.start_from:
        model = BlipForConditionalGeneration.from_pretrained(settings.start_from, dtype=torch.float32)
    else:
        model = make_model(len(processor.tokenizer))
    model.to(settings.device)
    model = train(model, load_picture_set(settings.pictures), processor, settings)
    model.half().save_pretrained(settings.output)
    processor.save_pretrained(settings.output)
    print(f"the captioner is in {settings.output}")
    held_out = draw_held_out(settings.num_held_out, seed=settings.seed + 1000)
    said = captions_of(model.float(), processor, [picture.image for picture in held_out])
    print(f"of {len(said)} new pictures right: {report([picture.attributes for picture in held_out], said)}")


if __name__ == "__main__":
    main()
