"""The bundle: a folder that holds a payload, what was proven of it, and the hash of every file.

In: records and files of one export, or a folder that somebody gave. Out: `Manifest` and `Bundle`, checked; folders that
appear whole or not at all. Never: an engine, a converter, torch, or a file outside the folder.
"""
