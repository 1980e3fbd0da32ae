"""Classes and functions of ExecuTorch's C++ libraries, as ctypes calls them.

Called are `extension::Module`, which loads a program and plans its memory, and `runtime::Method`, which runs it:

    std::string const &            address of {char *, size, 16 bytes}
    unique_ptr, vector by value    address of an empty one: the caller's, as of every class with a destructor
    Result<T>                      {T or error, bool}, written where a hidden argument says; ctypes passes that argument
                                   for structures of more than 16 bytes, so this one is larger
    EValue                         {8 bytes, u32 tag}; of tag 1, a tensor, the 8 bytes are the address of a TensorImpl
    TensorImpl                     {sizes, order, strides, data, dimensions, elements, most elements, i8 type, …}

That is the Itanium C++ ABI with the GNU C++ library, the same on x86-64 and aarch64. A symbol holds the types of its
arguments, so one with others is not found.
Source: ExecuTorch 1.5, `extension/module/module.h`, `runtime/executor/method.h`, and in `runtime/core` `evalue.h`,
`result.h` and `portable_type/tensor_impl.h`; Itanium C++ ABI, 3.1.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
    byref,
    c_bool,
    c_char,
    c_char_p,
    c_int8,
    c_int32,
    c_size_t,
    c_ssize_t,
    c_uint8,
    c_uint32,
    c_void_p,
)
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

MODULE_BYTES = 4096
"""Room for a Module, which takes some hundred."""
FILE, CONSISTENT, TENSOR = 0, 1, 1
"""Of `Module::LoadMode`, `Program::Verification` and `Tag`."""
ERRORS = {
    0x01: "internal error",
    0x02: "invalid state",
    0x10: "not supported",
    0x12: "invalid argument",
    0x13: "invalid type",
    0x14: "operator missing",
    0x20: "not found",
    0x21: "no memory",
    0x22: "no access",
    0x23: "invalid program",
    0x30: "the delegate is of another version",
    0x31: "no memory for the delegate",
}
"""Of `runtime/core/error.h`."""
_LIBRARIES = ("kernels_optimized", "backend_xnnpack")
"""They register what they have when they are loaded."""
_STRING = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
_RUNTIME, _EXTENSION = "10executorch7runtime", "10executorch9extension"
_MODULE = f"_ZN{_EXTENSION}6module6Module"
_CONSTRUCT = (
    f"{_MODULE}C1ERK{_STRING}NS2_8LoadModeESt10unique_ptrINS_7runtime11EventTracerESt14default_deleteISE_EESC_INSD_"
    "15MemoryAllocatorESF_ISI_EESK_b"
)
_LOAD_METHOD = (
    f"{_MODULE}11load_methodERK{_STRING}PNS_7runtime21HierarchicalAllocatorEPNSB_11EventTracerEPKNSB_"
    "21LoadBackendOptionsMapESt6vectorINSB_6KernelESaISK_EE"
)
_TENSOR = f"_ZN{_RUNTIME}7etensor10TensorImplC1ENS1_10ScalarTypeElPiPvPhS4_NS0_19TensorShapeDynamismENS1_10DeviceTypeEa"


class String(ctypes.Structure):
    """`std::string`, to be read."""

    _fields_ = (("start", c_char_p), ("size", c_size_t), ("rest", c_char * 16))


class Result(ctypes.Structure):
    """`Result` of a pointer."""

    _fields_ = (("value", c_void_p), ("has_value", c_bool), ("room", c_char * 48))


class Value(ctypes.Structure):
    """`EValue`."""

    _fields_ = (("payload", c_void_p), ("tag", c_uint32))


class Tensor(ctypes.Structure):
    """`TensorImpl`, with more room than it takes."""

    _fields_ = (
        ("sizes", POINTER(c_int32)),
        ("order", c_void_p),
        ("strides", c_void_p),
        ("data", c_void_p),
        ("dimensions", c_ssize_t),
        ("elements", c_ssize_t),
        ("most", c_size_t),
        ("type", c_int8),
        ("room", c_char * 64),
    )


class Functions:
    """The functions, by what they do.

    Args:
        folder: Where the libraries are.

    Raises:
        OSError: One is not there.
        AttributeError: It has no such function.
    """

    def __init__(self, folder: Path) -> None:
        core = ctypes.CDLL(str(folder / "libexecutorch.so"))
        pool = ctypes.CDLL(str(folder / "libexecutorch_threadpool.so"))
        self._libraries = [ctypes.CDLL(str(folder / f"libexecutorch_{name}.so")) for name in _LIBRARIES]
        self._declare_module(core)
        self._declare_method(core)
        self._declare_pool(pool)
        _function(core, f"_ZN{_RUNTIME}12runtime_initEv")()

    def _declare_module(self, core: ctypes.CDLL) -> None:
        at, text = c_void_p, POINTER(String)
        self.construct = _function(core, _CONSTRUCT, at, text, c_int32, at, at, at, c_bool)
        self.destroy = _function(core, f"{_MODULE}D1Ev", at)
        verify = f"{_MODULE}4loadENS_7runtime7Program12VerificationE"
        self.load = _function(core, verify, at, c_uint8, gives=c_uint32)
        self.load_method = _function(core, _LOAD_METHOD, at, text, at, at, at, at, gives=c_uint32)
        self.method = _function(core, f"{_MODULE}6methodERK{_STRING}", at, text, gives=Result)

    def _declare_method(self, core: ctypes.CDLL) -> None:
        at, place, value = c_void_p, c_size_t, POINTER(Value)
        changes, reads = f"_ZN{_RUNTIME}6Method", f"_ZNK{_RUNTIME}6Method"
        self.input_count = _function(core, f"{reads}11inputs_sizeEv", at, gives=c_size_t)
        self.output_count = _function(core, f"{reads}12outputs_sizeEv", at, gives=c_size_t)
        self.input = _function(core, f"{reads}9get_inputEm", at, place, gives=value)
        self.output = _function(core, f"{reads}10get_outputEm", at, place, gives=value)
        self.set_input = _function(core, f"{changes}9set_inputERKNS0_6EValueEm", at, value, place, gives=c_uint32)
        self.execute = _function(core, f"{changes}7executeEv", at, gives=c_uint32)
        arguments = at, c_int8, c_ssize_t, at, at, at, at, c_uint8, c_int8, c_int8
        self.construct_tensor = _function(core, _TENSOR, *arguments)

    def _declare_pool(self, pool: ctypes.CDLL) -> None:
        name, at = f"{_EXTENSION}10threadpool", c_void_p
        self.pool = _function(pool, f"_ZN{name}14get_threadpoolEv", gives=at)
        self.thread_count = _function(pool, f"_ZNK{name}10ThreadPool16get_thread_countEv", at, gives=c_size_t)
        reset = f"_ZN{name}10ThreadPool24_unsafe_reset_threadpoolEj"
        self.reset_pool = _function(pool, reset, at, c_uint32, gives=c_bool)


def string(text: str) -> Any:
    """Returns a reference to a `std::string`; the library copies what it keeps."""
    return byref(String(text.encode(), len(text.encode())))


def _function(library: ctypes.CDLL, symbol: str, *takes: Any, gives: Any = None) -> Any:
    found = library[symbol]
    found.argtypes, found.restype = takes, gives
    return found
