"""The running of TFLite payloads by LiteRT, or the older tflite-runtime."""
