"""The making of OpenVINO payloads."""
