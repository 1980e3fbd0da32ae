"""ONNX files as models of an export: read and refused, run as they are, rewritten, handed on. No torch."""
