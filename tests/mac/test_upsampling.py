"""A Mac whose nearest upsampling is wrong: it moves to the CPU, and everything around it stays on the GPU."""

import torch
from diffusers.models.upsampling import Upsample2D

from studio.engine.device_policy import upsample_on_cpu
from studio.engine.lora_layers import ConvUpdate
from tests.mac.device import MPS
from tests.mac.simulated_mac import simulated_mac


def test_a_lora_acts_on_the_convolution_of_a_layer_that_upsamples_on_the_cpu() -> None:
    down, up = torch.randn(2, 8, 3, 3), torch.randn(8, 2, 1, 1)
    layer, x = Upsample2D(8, use_conv=True), torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        change = torch.einsum("or,rihw->oihw", up[:, :, 0, 0], down)
        enlarged = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        expected = torch.nn.functional.conv2d(enlarged, layer.conv.weight + change, layer.conv.bias, padding=1)
        with simulated_mac():
            layer.to("mps")
            upsample_on_cpu(layer)
            layer.conv.register_forward_hook(ConvUpdate(down.to("mps"), up.to("mps"), layer.conv))
            found = layer(x.to("mps"))
            assert found.device == layer.conv.weight.device == MPS
    assert torch.allclose(found, expected, atol=1e-4)
