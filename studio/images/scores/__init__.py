"""Images measured: background, position, colour, sharpness, likeness. No torch."""
