"""A run: its folder, what it tells, what is decided, what is reported. No torch, no gradio: the page reads it."""
