"""Datasets: read in any layout, checked, edited, kept as a recipe and a snapshot, exported. No torch, no gradio."""
