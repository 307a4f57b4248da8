"""Batches with PyTorch: the images of a plan, made, checked and noted one by one."""
