"""Exporters: everything of a target's making, one folder each; it runs in a child process.

In: a file, which is a saved `torch.export` program or the parent target's payload. Out: the payload files of the target
and `Written`, what they hold. Never: model code, bundles, a runtime, or another target's exporter but its parent's.
"""
