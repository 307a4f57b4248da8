"""Trainings without PyTorch: settings, run folder, events, history, report."""
