"""Exporters: everything that makes a target's payload, one folder each; runs in a child process.

In: a file, which is a saved `torch.export` program or the parent target's payload. Out: the payload files of the target
and `Written`, which describes them. Never: model code, bundles, a runtime, or another target's exporter except its
parent's.
"""
