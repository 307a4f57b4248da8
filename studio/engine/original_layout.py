"""The names of Stable Diffusion 1.x's weights in the original layout, which single-file checkpoints have.

What CompVis' code (https://github.com/CompVis/stable-diffusion) calls input_blocks, middle_block and output_blocks are
diffusers' down_blocks, mid_block and up_blocks, counted through: `single_file.py` reads the same names back.
"""

from collections.abc import Mapping

from torch import Tensor

from studio.engine.single_file import TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX

Names = Mapping[str, str]

_RESNET: Names = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS: Names = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "mid_block.attentions.0": "middle_block.1",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_ATTENTION: Names = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def text_name(name: str) -> str:
    """A text encoder's weight with the `text_model.` that every program but transformers 5 itself expects."""
    return f"text_model.{name.removeprefix('text_model.')}"


class OriginalLayout:
    """The original names and shapes of a model whose blocks are built as Stable Diffusion 1.x's.

    Args:
        num_blocks: of the U-Net on its way down, and as many up.
        layers_per_block: the U-Net's resnets in each block on its way down; one more on its way up.
        num_vae_blocks: of the VAE's encoder, and as many in its decoder.
        vae_layers_per_block: the same for the VAE.
        up_attention: for each of the U-Net's blocks on its way up, whether it has attention.
    """

    def __init__(
        self,
        *,
        num_blocks: int,
        layers_per_block: int,
        num_vae_blocks: int,
        vae_layers_per_block: int,
        up_attention: tuple[bool, ...],
    ) -> None:
        self._unet = {**_UNET_ENDS, **_unet_blocks(num_blocks, layers_per_block, up_attention)}
        self._vae = _vae_blocks(num_vae_blocks, vae_layers_per_block)

    def unet(self, name: str) -> str:
        """`down_blocks.0.resnets.0.conv1.weight` -> `model.diffusion_model.input_blocks.1.0.in_layers.2.weight`."""
        return UNET_PREFIX + _renamed(name, self._unet)

    def vae(self, name: str, tensor: Tensor) -> tuple[str, Tensor]:
        """Name and tensor: the original's attention is made of 1 × 1 convolutions."""
        renamed = _renamed(name, self._vae)
        as_convolution = ".attn_1." in renamed and tensor.ndim == 2
        return VAE_PREFIX + renamed, tensor[:, :, None, None] if as_convolution else tensor

    def text_encoder(self, name: str) -> str:
        """`encoder.layers.0.mlp.fc1.weight` -> `cond_stage_model.transformer.text_model.encoder.layers.0…`."""
        return TEXT_PREFIX + text_name(name)


def _renamed(name: str, names: Names) -> str:
    """With its longest known beginning exchanged; names without one are the same in both."""
    pieces = name.split(".")
    for length in range(len(pieces) - 1, 0, -1):
        beginning = ".".join(pieces[:length])
        if beginning in names:
            return ".".join([names[beginning], *pieces[length:]])
    return name


def _unet_blocks(num_blocks: int, layers: int, up_attention: tuple[bool, ...]) -> dict[str, str]:
    names = {**_resnet("mid_block.resnets.0", "middle_block.0"), **_resnet("mid_block.resnets.1", "middle_block.2")}
    for block in range(num_blocks):
        first = block * (layers + 1)
        for layer in range(layers + 1):
            down, up = f"input_blocks.{first + layer + 1}", f"output_blocks.{first + layer}"
            names |= _resnet(f"down_blocks.{block}.resnets.{layer}", f"{down}.0")
            names |= _resnet(f"up_blocks.{block}.resnets.{layer}", f"{up}.0")
            names[f"down_blocks.{block}.attentions.{layer}"] = f"{down}.1"
            names[f"up_blocks.{block}.attentions.{layer}"] = f"{up}.1"
        names[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{first + layers + 1}.0.op"
        # after the resnet and, where there is one, the attention
        place = 2 if up_attention[block] else 1
        names[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{first + layers}.{place}.conv"
    return names


def _resnet(ours: str, theirs: str) -> dict[str, str]:
    return {f"{ours}.{piece}": f"{theirs}.{original}" for piece, original in _RESNET.items()}


def _vae_blocks(num_blocks: int, layers: int) -> dict[str, str]:
    """The original counts the decoder's blocks from the picture, diffusers from the latents."""
    names: dict[str, str] = {}
    for side in ("encoder", "decoder"):
        names[f"{side}.conv_norm_out"] = f"{side}.norm_out"
        for index in (0, 1):
            names[f"{side}.mid_block.resnets.{index}"] = f"{side}.mid.block_{index + 1}"
        for piece, original in _VAE_ATTENTION.items():
            names[f"{side}.mid_block.attentions.0.{piece}"] = f"{side}.mid.attn_1.{original}"
    for block in range(num_blocks):
        down, up = f"encoder.down.{block}", f"decoder.up.{num_blocks - 1 - block}"
        for layer in range(layers + 1):
            for ours, theirs in ((f"encoder.down_blocks.{block}", down), (f"decoder.up_blocks.{block}", up)):
                names[f"{ours}.resnets.{layer}"] = f"{theirs}.block.{layer}"
                names[f"{ours}.resnets.{layer}.conv_shortcut"] = f"{theirs}.block.{layer}.nin_shortcut"
        names[f"encoder.down_blocks.{block}.downsamplers.0"] = f"{down}.downsample"
        names[f"decoder.up_blocks.{block}.upsamplers.0"] = f"{up}.upsample"
    return names
