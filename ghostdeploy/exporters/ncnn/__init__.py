"""The making of ncnn payloads."""
