"""Datasets: layouts, reading, checks, edits, export. No torch."""
