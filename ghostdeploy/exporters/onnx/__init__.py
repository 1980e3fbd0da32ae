"""Makes ONNX payloads, from PyTorch and from ONNX files."""
