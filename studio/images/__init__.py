"""Images on disk: decoding, metadata, A1111's text, prompts, the gallery, grids. No torch."""
