"""Exporters: one folder per target; each runs in a child process of its own.

In: a file, which is a saved `torch.export` program or the parent target's payload. Out: the payload files of the target
and `Written`, what they hold. Never: model code, bundles, or a runtime.
"""
