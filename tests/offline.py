"""Runs a program that dies of SIGSYS as soon as it, or a child of it, asks the kernel for an internet socket.

    python -m tests.offline PROGRAM ARGUMENTS…

A seccomp filter, which needs no privileges and which children inherit. Let through are local sockets (AF_UNIX), and the
one that libuuid opens for no message, to ask for the address of the network card: AF_INET and SOCK_DGRAM without a
flag, which neither resolvers nor HTTP libraries open.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Of each architecture its audit number, and the number of its system call `socket`."""
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _MODE_FILTER = 22, 38, 2
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_AF_INET, _AF_INET6, _SOCK_DGRAM = 2, 10, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def forbid_internet_sockets() -> None:
    """Sets the filter for this process and all that come of it."""
    architecture, socket = MACHINES[os.uname().machine]
    steps = (  # the numbers after an operation: steps to skip where it holds, and where it does not
        (_LOAD, 0, 0, 4),
        (_IF_EQUAL, 0, 7, architecture),
        (_LOAD, 0, 0, 0),
        (_IF_EQUAL, 0, 5, socket),
        (_LOAD, 0, 0, 16),
        (_IF_EQUAL, 4, 0, _AF_INET6),
        (_IF_EQUAL, 0, 2, _AF_INET),
        (_LOAD, 0, 0, 24),
        (_IF_EQUAL, 0, 1, _SOCK_DGRAM),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL_PROCESS),
    )
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = _Program(len(steps), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    for words in ((_PR_SET_NO_NEW_PRIVS, 1, 0), (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program))):
        if libc.prctl(*words, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    forbid_internet_sockets()
    os.execv(sys.argv[1], sys.argv[1:])
