"""What a model may be: a PyTorch module or an ONNX file.

In: MODEL as the caller gave it. Out: `Folded`, the same for both: what the reference said (`ReferenceRun`), what the
passes did, and the program file of the first converter. Never: a conversion, or a verdict.
"""
