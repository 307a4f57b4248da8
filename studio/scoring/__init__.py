"""Scores of pictures: ground, place, colour, sharpness, and how near they come to training pictures. No torch."""
