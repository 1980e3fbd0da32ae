"""The running of ncnn payloads."""
