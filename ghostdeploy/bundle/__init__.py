"""The bundle: a folder with a payload, the results of its proof, and the hash of every file.

In: records and files of one export, or a folder from elsewhere. Out: `Manifest` and `Bundle`, checked; folders that
appear whole or not at all. Never: an engine, a converter, torch, or a file outside the folder.
"""
