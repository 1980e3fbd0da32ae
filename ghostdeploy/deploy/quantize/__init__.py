"""Static INT8: calibration stream, ranges, Q/DQ graph, bias correction, fallback; one recipe per kind of processor."""
