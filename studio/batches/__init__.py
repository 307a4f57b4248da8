"""Batches without PyTorch: settings, plan, prompts, ledger, report."""
