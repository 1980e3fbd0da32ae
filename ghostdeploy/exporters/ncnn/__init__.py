"""Makes ncnn payloads."""
