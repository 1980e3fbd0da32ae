"""Runs ONNX payloads with ONNX Runtime."""
