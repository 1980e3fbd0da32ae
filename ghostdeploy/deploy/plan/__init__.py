"""The request of one export, and its conversion steps.

In: a caller's options. Out: a frozen `ExportConfig`, the steps with the file that each reads, and `ExportRun`, which is
passed to all further stages. Never: a model or an image; nothing is loaded yet.
"""
