"""How events of the page are wired where nobody outside is to call them."""

from typing import Any, Final

# No entry in the page's API, and no spinner over what it changes: for Gradio's event listeners, as `**QUIET`.
QUIET: Final[dict[str, Any]] = {"api_visibility": "private", "show_progress": "hidden"}
