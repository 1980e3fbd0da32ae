"""What a target is: one frozen record with everything that shared rooms need to know about it.

A row holds import *strings*, so a table of them imports nothing. Whoever adds a target writes a row, an exporter and a
runtime, in ghostdeploy or in its own distribution; docs/adding_a_target.md is the walk.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, NamedTuple

import msgspec

from ghostdeploy.errors import MissingDependency, UsageError
from ghostdeploy.needs import INT8_ON_CPU, Needs

PRECISIONS = ("fp32", "fp16", "int8", "hybrid")
"""Every precision a bundle can have; a row lists the ones its exporter makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """How a finished file of a row's kind is taken as the model, in place of a PyTorch graph."""

    suffix: str
    """Ending of such files."""
    exporter: str
    """Import string of the `Exporter` class that stands in for the row's own."""
    packages: tuple[str, ...]
    """Top-level modules it needs; torch is none of them."""
    requirement: str
    """What pip installs to have them."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One way to quantize, see `deploy.quantize.recipe`."""

    name: str
    activations: Literal["uint8", "int8", "asymmetric int8"]
    int8_gates: bool = True
    """Whether layers inside squeeze-and-excite gates and merge branches are quantized; what joins them is not."""
    quantize_gates: bool = False
    """Whether what joins them is quantized too, the sigmoid and the multiplication of a gate: an engine without float
    leaves no choice."""
    one_scale: tuple[str, ...] = ()
    """Operators whose weights have one scale in place of one per output channel."""
    saturation_safe: bool = False
    """Weights are constrained so that no sum of two products leaves 16 bits."""
    quantize_bias: bool = False
    quantize_shortcuts: bool = False
    """Whether a sum of two layers gets a Q/DQ pair on its shortcut, so that it fuses with the layer before it."""
    final: bool = False
    """Whether the graph is a payload as it is, so that what ONNX Runtime executes is read back from it."""
    op_types: tuple[str, ...] = ()
    """ONNX operators that are quantized; none where the graph is of another format."""
    int8_groups: bool = True
    """Whether convolutions in groups are quantized, depthwise ones among them."""
    int8_transposed: Literal["any", "positive"] = "any"
    """Transposed convolutions that are quantized: all, or only those of data that is never below 0, where the engine
    has no integer kernel with a zero point."""
    rounds_in_layers: bool = False
    """The engine rounds the data of a layer inside it: whatever else reads a tensor, such as a sum, gets its floats."""
    bare_outputs: tuple[str, ...] = ()
    """Operators whose outputs stay float unless an INT8 operator reads them."""

    @property
    def symmetric(self) -> bool:
        """Zero points are zero."""
        return self.activations == "int8"


class Int8Time(NamedTuple):
    """Time of INT8 over time of float on x86 processors, measured with GhostNet 1.0×; see `deploy.export.advice`."""

    without_dot_product: float
    with_dot_product: float | None = None
    """None where it was not measured."""


Setting = bool | str | tuple[str, ...]
"""Value of a target's own option."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option of `export` for a single target: a flag, a choice, or several names separated by commas."""

    name: str
    """Keyword of `ghostdeploy.export`; on the command line with hyphens."""
    help: str
    """One sentence for `--help`."""
    choices: tuple[str, ...] = ()
    """What it may be, the default first; none for a flag or several names."""
    metavar: str | None = None
    """Set for several names: how `--help` shows them."""
    precision: str | None = None
    """The one that it has an effect on; None for all."""

    @property
    def flag(self) -> str:
        """Its spelling on the command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def default(self) -> Setting:
        """Its value where nothing is said."""
        if self.metavar is not None:
            return ()
        return self.choices[0] if self.choices else False


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """How a model server runs a row's payload, with the engine that proved it."""

    form: str
    """The server, by its name in `package --for`."""
    backend: str = ""
    """Its name of the engine."""
    settings: tuple[tuple[str, str], ...] = ()
    """What the engine must be told there to compute as our runtime does."""
    note: str | None = None
    """What it cannot be told, and what follows; a sentence for who packages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One thing ghostdeploy exports to."""

    name: str
    """Name on the command line and in manifests."""
    summary: str
    """One line for tables: its purpose."""
    parent: str | None
    """Target whose artefact this one is made from; None means from the PyTorch graph."""
    payload: str
    """File inside the bundle that the runtime opens."""
    files: tuple[str, ...]
    """Every payload file; each must be listed with its hash in the manifest."""
    precisions: tuple[str, ...]
    """What the exporter can make, the default first."""
    exporter: str
    """Import string of the `Exporter` class."""
    runtime: str
    """Import string of the `Runtime` class."""
    runtimes: tuple[str, ...]
    """Engines that can run the payload, for the manifest."""
    export_packages: tuple[str, ...]
    """Top-level modules the exporter needs (parents' needs are found through the chain)."""
    runtime_packages: tuple[str, ...]
    """Top-level modules the runtime needs; of an alternative `a|b` one is enough."""
    in_place: tuple[str, ...] = ()
    """Payload files that its engine computes with where they lie in memory, at a cache line."""
    distribution: str | None = None
    """What pip installs to have the target, where that is not ghostdeploy itself."""
    recipe: Recipe | None = None
    """How its INT8 graph is made."""
    int8_time: Int8Time | None = None
    """Whether INT8 pays; None where it runs on no CPU, or nothing was measured."""
    needs: tuple[Needs, ...] = INT8_ON_CPU
    """What its payloads need of a processor; rows with a `device` need that."""
    instruction_limit: str | None = None
    """Environment variable that keeps its kernels below what the processor has, by names of oneDNN."""
    environment: tuple[str, ...] = ()
    """Beginnings of names of environment variables that steer its conversion or its engine, up to the underscore."""
    simulation: str | None = None
    """ONNX graph of the payload that may be run in float where the engine cannot run; None where it always can."""
    device: str | None = None
    """Hardware that its engine cannot do without."""
    simulator: Literal["payload", "source"] | None = None
    """Set where its runtime is the vendor's simulator, which gives outputs and has no latency: whether that executes
    the payload itself, or only the graph that the payload was compiled from. None is the engine itself."""
    find_devices: str | None = None
    """Import string of the function that lists that hardware; without it none is found."""
    finisher: str | None = None
    """Import string of the `Finisher` class, where its payload is finished on the device that runs it."""
    rewrites: tuple[str, ...] = ()
    """Passes of `deploy.fold.passes.REWRITES` that make float graphs faster on its engine, some with a parameter behind
    a hyphen, see docs/performance.md."""
    forms: tuple[str, ...] = ()
    """Passes of `deploy.fold.passes.FORMS` that rewrite what its converter cannot handle, or gets wrong, into a form
    that it takes right; at every precision. Only for rows without a parent: they read the PyTorch graph."""
    layout: Literal["nhwc"] | None = None
    """Order of the dimensions of image inputs, where the target has its own; None takes that of the request."""
    keeps_wide_weights: bool = False
    """Its fp16 payload has float32 weights in layers that float16 cannot hold."""
    fixed_batch: bool = False
    """Its payload is built for one batch size."""
    quantizer: str = "ghostdeploy.deploy.quantize.worker:Quantizer"
    """Import string of the worker that makes its INT8 graph."""
    costs: str | None = None
    """Import string of the function (payload, batch) that lists its layers' multiply-accumulates and bytes."""
    probe: str | None = None
    """Import string of the function (bundle) that opens a payload to be looked into, a `runtimes.probe.Probe`."""
    opaque: str | None = None
    """Why nothing inside its payload can be seen, a clause behind its name; where `probe` is None."""
    default_route: str | None = None
    """Import string of the `DefaultConverter` that exports the untouched module in the vendor's usual way."""
    intake: Intake | None = None
    """Set where a finished file of this kind can be the model of an export."""
    options: tuple[Option, ...] = ()
    """Its own options."""
    served: tuple[Served, ...] = ()
    """Model servers that run its payload."""
    check_settings: str | None = None
    """Import string of the function that takes the values of these options, a dictionary by name, and returns them as
    they are spelled, or raises `UsageError`; it imports no vendor library."""

    def needs_of(self, precision: str) -> tuple[Needs, ...]:
        """Returns what its payloads of a precision need of a processor, by architecture; for manifests."""
        return tuple(one for one in self.needs if one.precision == precision) if self.device is None else ()

    @property
    def export_requirement(self) -> str:
        """What pip installs to have exporter and runtime."""
        return self.distribution or f"ghostdeploy[{self.name}]"

    @property
    def runtime_requirement(self) -> str:
        """What pip installs on a device: the runtime alone."""
        return self.distribution or f"ghostdeploy[{self.name}-runtime]"

    @property
    def why_opaque(self) -> str:
        """Returns the sentence that says why nothing inside its payload can be seen."""
        return f"{self.name} {self.opaque or 'shows nothing inside a payload: its row has no probe'}"

    @property
    def how(self) -> Literal["executed", "on a simulator"]:
        """What gives the outputs of its runtime, for the records of a manifest."""
        return "executed" if self.simulator is None else "on a simulator"

    @property
    def not_executed(self) -> str | None:
        """Why the outputs of its runtime leave its payload unverified; None where they are the payload's own."""
        if self.simulator != "source":
            return None
        return f"compiled, not executed: the graph that it was compiled from ran on a simulator, no {self.device} here"


def pip_install(*requirements: str) -> str:
    """Returns the pip command for several requirements; extras of one distribution are joined."""
    extras: dict[str, list[str]] = {}
    for one in dict.fromkeys(requirements):
        name, _, extra = one.rstrip("]").partition("[")
        extras.setdefault(name, []).extend([extra] if extra else [])
    words = [f'"{name}[{",".join(found)}]"' if found else name for name, found in extras.items()]
    return f"pip install {' '.join(words)}"


def require_precision(target: Target, precision: str) -> None:
    """Checks that the row makes `precision`.

    Raises:
        UsageError: It does not; the hint lists what it makes.
    """
    if precision not in target.precisions:
        makes = ", ".join(target.precisions)
        raise UsageError(f"target {target.name} has no precision {precision}", hint=f"{target.name} makes {makes}")


_NEWER_LIBC = re.compile(r"version `GLIBC_([0-9.]+)' not found")
"""What the loader says of a library that is too new for the system."""


def resolve(reference: str, *, requirement: str) -> Any:
    """Imports `package.module:Name`.

    Args:
        reference: An import string of a row.
        requirement: What pip must install for the module.

    Raises:
        MissingDependency: The import failed; the original error is chained, so a broken library shows its real fault.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(import_module(module), name)
    except ImportError as error:
        if wanted := _NEWER_LIBC.findall(str(error)):
            newest = max(wanted, key=lambda text: [int(part) for part in text.split(".")])
            raise MissingDependency(
                f"{requirement} was built for glibc {newest} or newer, this system has {platform.libc_ver()[1]}",
                hint="a newer system, or an older version of the engine",
            ) from error
        absent = isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("ghostdeploy")
        what = f"{error.name} is not installed" if absent else f"importing {module} failed: {error}"
        raise MissingDependency(what, hint=pip_install(requirement)) from error
