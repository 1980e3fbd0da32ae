"""What one export is asked to do, and the steps that follow from it.

In: a caller's words. Out: a frozen `ExportConfig`, the steps with the file that each reads, and `ExportRun`, which all
further stages are given. Never: a model or an image; nothing is loaded yet.
"""
