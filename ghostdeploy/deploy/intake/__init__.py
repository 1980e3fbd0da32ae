"""What a model may be: a PyTorch module or an ONNX file.

In: MODEL as the caller gave it. Out: `Facts`, the same for both: interface, golden vectors, evidence for the quantizer,
and the program file of the first converter. Never: a conversion, or a verdict.
"""
