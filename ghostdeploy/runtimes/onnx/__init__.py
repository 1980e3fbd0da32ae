"""The running of ONNX payloads by ONNX Runtime."""
