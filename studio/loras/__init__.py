"""LoRA files: names of tensors, the library, weights files, export settings, blind votes. No torch."""
