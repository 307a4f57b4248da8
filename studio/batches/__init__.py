"""Batches: thousands of pictures from one plan."""
