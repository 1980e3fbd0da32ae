"""Conversion: one job in a child process, and what every exporter and quantizer shares.

In: an `ExportJob`. Out: an `ExportResult`, cached by the hash of everything it depends on. Never: a vendor's library in
the parent's process, or anything that only one target needs.
"""
