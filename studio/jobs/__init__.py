"""Long work and who may use the device. No torch, no gradio."""
