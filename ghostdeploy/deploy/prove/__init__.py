"""Whether a payload is still the model: parity, agreement, accuracy, execution, each by one tolerance table.

In: bundles, golden vectors and labelled images. Out: records with a verdict, for manifests and for `verify` and `eval`.
Runs on a device: never torch, never a converter.
"""
