"""ONNX graphs as exporters and quantizers hand them on: read, named, simplified, checked, written."""
