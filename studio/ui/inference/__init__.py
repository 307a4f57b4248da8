"""The Inference tab."""
