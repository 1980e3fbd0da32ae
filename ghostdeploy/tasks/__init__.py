"""Tasks: what the outputs of a network mean, and how well they say it.

In: outputs as arrays, labelled data. Out: classes, boxes, points, masks in pixels of the image, and measures of them.
Runs on a device: NumPy and Pillow only. Never: an engine, torch, a verdict.
"""
