"""Training LoRAs: caches, batches, loss, loop, checkpoints, pictures on the way, and what comes out."""
