"""Makes TFLite payloads."""
