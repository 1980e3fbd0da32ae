"""Proves that a payload still is the model: parity, agreement, accuracy, execution, each judged by one tolerance table.

In: bundles, golden vectors and labelled images. Out: records with a verdict, for manifests and for `verify` and `eval`.
Runs on a device: never torch, never a converter.
"""
