"""Parts of the page that change while something runs: its own script writes them, from one small request.

Of every component that an event of Gradio's is about, changed or not, Gradio makes a new one on the server and looks
for it in the whole page: at one look a second that costs a training a tenth of its pace.
"""

import gradio as gr

from studio.paths import assets_folder

_MOUNTED = 'document.dispatchEvent(new Event("studio:live-part"));'


def live_html(name: str, *, js_on_load: str = "", min_width: int | None = None) -> gr.HTML:
    """A place that the page's script keeps true, known by `name` to `Polling` and as an id to everything else."""
    place = f'<div class="live" data-live="{name}"></div>'
    return gr.HTML(place, elem_id=name, padding=False, min_width=min_width, js_on_load=js_on_load + _MOUNTED)


def follower(elem_id: str) -> gr.HTML:
    """The script itself, in a hidden component: Gradio gives it what each refresh brought."""
    script = (assets_folder() / "live.js").read_text(encoding="utf-8")
    return gr.HTML(elem_id=elem_id, visible="hidden", padding=False, js_on_load=script)
