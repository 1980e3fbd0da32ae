"""Runs TensorRT engines on a GPU."""
