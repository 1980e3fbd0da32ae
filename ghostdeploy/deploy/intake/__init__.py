"""The kinds of model: a PyTorch module or an ONNX file.

In: MODEL as the caller gave it. Out: `Folded`, the same for both: the reference outputs (`ReferenceRun`), the results
of the passes, and the program file of the first converter. Never: a conversion, or a verdict.
"""
