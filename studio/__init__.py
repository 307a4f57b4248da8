"""LoRA Studio: fine-tune Stable Diffusion 1.5 on your own images, and know that it worked."""

__version__ = "0.1.0"
