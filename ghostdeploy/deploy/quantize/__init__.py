"""Static INT8 of ONNX graphs: ranges, Q/DQ, bias correction, fallback; one recipe per kind of processor.

In: a folded graph and the image set that `deploy/intake` opened: some calibrate, others are held out to judge. Out: the
same graph with Q/DQ pairs, and what was measured on the way. A target whose file is no ONNX graph has its quantizer in
`exporters/<target>/` and takes ranges and conditioning from here. Never: a verdict.
"""
