"""The making of ONNX payloads, from PyTorch and from ONNX files."""
