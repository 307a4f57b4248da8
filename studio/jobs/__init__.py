"""Long work: queue, worker, launcher, device lock. Knows neither trainings nor batches."""
