"""The page: one folder a tab, and the shell around them. The one room that imports Gradio."""
