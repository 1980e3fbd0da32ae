"""`plan.json`: what was compiled, step by step, and which library runs on which processor."""

from collections.abc import Collection, Iterable

import msgspec

PLAN, WEIGHTS = "plan.json", "weights.bin"
SCHEMA = 1
WASM = "wasm32"
"""WebAssembly with SIMD128, for browsers; no processor has it, so no library of it is loaded here."""
_AVX2 = ("avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_AVX512 = (*_AVX2, "avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")
LEVELS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86-64": {
        "x86-64-v4-vnni": (*_AVX512, "avx512_vnni"),
        "x86-64-v4": _AVX512,
        "x86-64-v3-vnni": (*_AVX2, "avx_vnni"),
        "x86-64-v3": _AVX2,
        "x86-64": (),
    },
    "aarch64": {"aarch64-dotprod": ("asimddp",), "aarch64": ()},
    WASM: {WASM: ()},
}
"""By architecture: names for `--arch`, the best first, and the flags that a processor must have.

The names of x86-64 are those of its psABI, those with `-vnni` and `-dotprod` have INT8 dot products besides. abm is not
asked for, because kernels spell it in two ways.
"""


DOT_PRODUCT = ("-vnni", "-dotprod")
"""Ends of names that only layers of integers gain from."""


class Port(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An input or output, of one image."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class PlannedMap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One tensor of one image: what the caller gives or gets, or what a step makes or reads."""

    name: str
    """Its own; of what the caller gives and gets that of the port."""
    values: tuple[str, ...]
    """Tensors of the ONNX graph that it is the place of, the last one what it holds: what is fused away before."""
    shape: tuple[int, int, int]
    """Height, width, channels."""
    root: str
    """The map whose channels it is; itself where it has memory of its own."""
    channel: int
    """Its first channel there."""
    stride: int
    """Values from one pixel to the next."""
    scale: float = 0.0
    """Of a map of bytes: they stand for scale · (byte − zero). 0 where values are floats."""
    zero: int = 0


class PlannedStep(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One kernel over one map."""

    name: str
    """The PyTorch module, or the node."""
    kind: str
    reads: tuple[str, ...]
    """Maps."""
    added: str | None
    """The map that its epilogue adds."""
    scaled_by: str | None
    """The map with its weights, where a gate multiplies them first."""
    writes: str
    second: str | None
    """The map that gets the sum with `added`, where `writes` gets it without."""
    group: int
    """Steps of one group pass over their maps together."""
    output: tuple[int, int, int]
    """Height, width, channels."""
    rows: int
    """Rows of the output that are kept."""
    arena: int | None
    """Bytes from the beginning of the arena; None is the caller's memory."""
    macs: int
    weight_bytes: int
    activation_bytes: int
    bits: int
    """Of a weight; 0 where there are none."""
    data_bits: int
    """Of a value that it reads: 8 of a map of bytes, else 32."""


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A compiled network."""

    schema: int = SCHEMA
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    arena_bytes: int
    weights_bytes: int
    most_threads: int
    """That can compute one image together: the rings of rows are long enough for so many shares."""
    identity: str
    """SHA-256 of the tables and the weights, which the libraries tell."""
    libraries: dict[str, str]
    """File of each instruction set."""
    maps: tuple[PlannedMap, ...]
    steps: tuple[PlannedStep, ...]


def read(data: bytes) -> Program:
    """Returns the plan of a payload.

    Raises:
        ValueError: It is none, or of another version.
    """
    found = msgspec.json.decode(data, type=Program)
    if found.schema != SCHEMA:
        raise ValueError(f"{PLAN} has schema {found.schema}, expected {SCHEMA}")
    return found


def chosen(libraries: Iterable[str], architecture: str, flags: Collection[str]) -> str | None:
    """Returns the best instruction set of a payload that a processor has, None where it has none of them.

    Args:
        libraries: Those of the payload.
        architecture: As `machine.architecture` spells it.
        flags: Of the processor, as the Linux kernel spells them; none where they are unknown.
    """
    known = LEVELS.get(architecture, {})
    return next((name for name, needed in known.items() if name in set(libraries) and set(needed) <= set(flags)), None)
