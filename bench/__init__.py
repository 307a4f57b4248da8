"""Figures against named peers, in one run. Not in the wheel: `python -m studio bench` works from a checkout."""
