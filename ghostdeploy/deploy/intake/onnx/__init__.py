"""ONNX files as models of an export: read, checked, run unchanged as the reference, rewritten, passed on. No torch."""
