"""The running of TensorRT engines on a GPU."""
