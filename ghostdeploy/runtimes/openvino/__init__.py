"""The running of OpenVINO payloads."""
