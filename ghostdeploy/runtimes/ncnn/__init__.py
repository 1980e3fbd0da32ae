"""Runs ncnn payloads."""
