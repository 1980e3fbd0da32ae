"""Runs OpenVINO payloads."""
