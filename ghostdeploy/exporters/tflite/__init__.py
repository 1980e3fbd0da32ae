"""The making of TFLite payloads."""
