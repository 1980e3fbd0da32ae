"""How fast a bundle is on this machine, and what this machine has.

In: bundles. Out: latencies of all in one run, as ratios to each other and to what the machine can do. Runs on a device:
never torch, never a converter.
"""
