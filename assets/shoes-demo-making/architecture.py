"""The three networks of the model: Stable Diffusion 1.5's, made small."""

import copy
from pathlib import Path
from typing import TypeVar

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

TEXT_WIDTH = 128

Network = TypeVar("Network", bound=nn.Module)


def make_autoencoder(*, start_from: Path | None = None) -> AutoencoderKL:
    """Build the autoencoder of 128 × 128 pictures and 4 × 16 × 16 latents.

    The weights are those of the autoencoder saved in start_from, else random.
    """
    autoencoder = AutoencoderKL(
        sample_size=128,
        latent_channels=4,
        block_out_channels=(16, 32, 64, 96),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=8,
    )
    # Weights are copied into a network built here, never is the loaded one used: diffusers would note in its
    # configuration, and so in what is saved, the folder it was read from on this machine.
    if start_from:
        autoencoder.load_state_dict(AutoencoderKL.from_pretrained(start_from).state_dict())
    return autoencoder


def make_unet(*, start_from: Path | None = None) -> UNet2DConditionModel:
    """Build the U-Net, with the weights of the model saved in start_from, else random."""
    unet = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=4,
        block_out_channels=(64, 128, 192),
        layers_per_block=1,
        norm_num_groups=16,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    if start_from:
        unet.load_state_dict(UNet2DConditionModel.from_pretrained(start_from, subfolder="unet").state_dict())
    return unet


def make_text_encoder(tokenizer: CLIPTokenizer, *, start_from: Path | None = None) -> CLIPTextModel:
    """Build the text encoder for a vocabulary, with the weights of the model saved in start_from, else random."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=TEXT_WIDTH,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=TEXT_WIDTH,
        hidden_act="quick_gelu",
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    text_encoder = CLIPTextModel(config)
    if start_from:
        text_encoder.load_state_dict(CLIPTextModel.from_pretrained(start_from, subfolder="text_encoder").state_dict())
    return text_encoder


def rounded_copy(network: Network, dtype: torch.dtype) -> Network:
    """Return a copy on the CPU with weights of the dtype, laid out plainly."""
    rounded = copy.deepcopy(network)
    for parameter in rounded.parameters():
        parameter.data = parameter.data.to("cpu", dtype, memory_format=torch.contiguous_format)
    return rounded
