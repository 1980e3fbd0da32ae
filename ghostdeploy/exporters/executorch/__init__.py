"""Writes ExecuTorch programs for its XNNPACK delegate from ONNX graphs, float or Q/DQ."""
