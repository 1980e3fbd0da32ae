"""How other machines are reached: over ssh, by adb, in an emulator; what is sent there and what comes back.

In: bundles, a command, where. Out: the records that the command gives at home, and the device. Never: an installation
on the device, or anything left there that was not asked for.
"""
