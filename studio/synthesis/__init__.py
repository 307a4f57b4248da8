"""Making a batch's pictures, one after the other, so that nothing is lost at any moment. Torch, no gradio."""
