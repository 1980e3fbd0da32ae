"""Runs ExecuTorch programs."""
