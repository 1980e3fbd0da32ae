"""Reaches a device: how a bundle and the code that proves it get there, and how the answer comes back.

In: the name of a device and what shall run on it. Out: what it answered. Never decides anything about a bundle: that is
done by the same code as at home. `emulator` makes Arm devices out of an x86 machine.
"""
