"""Makes OpenVINO payloads."""
