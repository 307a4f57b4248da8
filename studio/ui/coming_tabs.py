"""The tabs that are still to come, each with one sentence on what will be there."""

import gradio as gr

COMING = {
    "Batch": "Here you will describe a set of pictures, see what it will cost, and find it finished and checked in the "
    "morning.",
}


def build(name: str) -> None:
    """Lay out one of them."""
    gr.HTML(f'<div class="coming"><h2>{name}</h2><p>{COMING[name]}</p></div>')
