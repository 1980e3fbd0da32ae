"""A static program for devices without Python: ncnn and `runner.cpp`, which replays golden vectors there.

In: a bundle of target ncnn. Out: the program for an architecture, what it reads, and the verification of what it wrote.
Never: an installation on the device, or a network access outside of `python -m ghostdeploy.remote.runner`.
"""
