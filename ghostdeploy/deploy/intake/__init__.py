"""ONNX files as models of an export: read and refuse, run as they are, rewrite, hand over to the converters. No torch."""
