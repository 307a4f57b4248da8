"""Trainings with PyTorch: data, adapters, loss, loop, checkpoints, validation, run."""
