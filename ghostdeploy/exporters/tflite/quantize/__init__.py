"""Static INT8 for TFLite: AI Edge Quantizer writes the file, with our ranges, weights and choice of layers."""
