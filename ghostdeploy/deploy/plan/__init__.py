"""What one export is asked to do, and the steps that follow from it.

In: a caller's words. Out: a frozen `ExportConfig`, and the steps with the file that each reads. Never: a model or an
image; nothing is loaded yet.
"""
