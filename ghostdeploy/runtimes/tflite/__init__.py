"""Runs TFLite payloads with LiteRT, or the older tflite-runtime."""
