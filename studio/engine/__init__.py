"""The room of torch: precision, memory, models, the pipeline and its validation."""
