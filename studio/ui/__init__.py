"""The page: gradio lives here, torch never does."""
