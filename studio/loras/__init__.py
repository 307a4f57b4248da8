"""LoRA files as files: their names, their metadata, the library. No torch."""
