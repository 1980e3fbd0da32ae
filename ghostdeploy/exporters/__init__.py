"""Exporters: one file per target, each run in a child process of its own.

An exporter takes a file (a saved `torch.export` program, or the parent target's payload) and writes the payload files
of its target. It knows nothing of models, bundles' manifests or runtimes.
"""
