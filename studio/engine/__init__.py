"""PyTorch: precision, attention, models, pipeline, LoRA layers, validation."""
