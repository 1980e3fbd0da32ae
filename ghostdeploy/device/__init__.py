"""What runs on a device: what it is, one job per child process, what was seen meanwhile.

In: bundles and a command. Out: the records that the commands give at home, and the device's own. Runs at home too, for
receipts. Never: torch, a converter, an engine in the process that watches the others.
"""
