"""A bundle's payload, opened to be looked into: what its layers read of the golden inputs, by its engine.

Here it is what a diagnosis compares. On a device it is all that is needed: the tensors go home and are compared there.
No more images are taken than `HELD_BYTES` of tensors allow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ghostdeploy import targets
from ghostdeploy.errors import BundleError, GhostDeployError, MissingDependency, UsageError
from ghostdeploy.runtimes.base import reason
from ghostdeploy.wheel import is_device_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.runtimes.probe import Probe
    from ghostdeploy.targets import Target

HELD_BYTES = 256 << 20
"""Tensors of one payload held at a time."""


class Payload:
    """A bundle's payload.

    Args:
        bundle: Its hashes are compared.

    Raises:
        UsageError: Its target shows nothing inside.
        BundleError: The engine refuses it.
        MissingDependency: What opens it is not installed.
    """

    def __init__(self, bundle: Bundle) -> None:
        self.bundle, self.manifest = bundle, bundle.manifest
        self.row = targets.find(self.manifest.target)
        if self.row.probe is None:
            raise UsageError(
                f"{bundle.path} cannot be looked into: {self.row.why_opaque}", hint=f"ghostdeploy verify {bundle.path}"
            )
        open_probe = resolve_probe(self.row)
        self.inputs, golden = bundle.golden()
        self.probe: Probe = self.engine(lambda: open_probe(bundle))
        self.golden = _by_tensor(self.probe, golden)

    @property
    def wanted(self) -> list[str]:
        """The tensors that layers read, and the outputs, without the inputs of the payload."""
        reads = (step.reads[0] for step in self.probe.layers)
        return list(dict.fromkeys(name for name in (*reads, *self.golden) if name not in self.probe.inputs))

    def count(self, held: int = HELD_BYTES) -> int:
        """Returns how many golden images are taken.

        Args:
            held: Bytes of tensors at a time.
        """
        own = self.own(1)
        return max(1, min(len(next(iter(self.inputs.values()))), held // sum(a.nbytes for a in own.values())))

    def given(self, count: int) -> Arrays:
        """Returns the first golden inputs."""
        return {name: array[:count] for name, array in self.inputs.items()}

    def own(self, count: int) -> dict[str, NDArray[Any]]:
        """Returns what the layers read, and the outputs, for the first golden images."""
        given: dict[str, NDArray[Any]] = self.given(count)
        return given | dict(self.engine(lambda: self.probe.run(given, self.wanted)))

    def engine(self, work: Callable[[], Any]) -> Any:
        """Returns what work of the engine gives.

        Raises:
            BundleError: The engine fails.
        """
        try:
            return work()
        except (GhostDeployError, MemoryError):
            raise
        except Exception as error:
            raise BundleError(
                f"{self.bundle.path} cannot be looked into: {reason(error)}",
                hint=f"ghostdeploy verify {self.bundle.path}",
            ) from error


def resolve_probe(row: Target) -> Any:
    """Returns the function that opens payloads of a row.

    Raises:
        MissingDependency: A package is absent; it may be one that running needs not.
    """
    assert row.probe is not None  # rows without one were refused
    try:
        return targets.resolve(row.probe, requirement=row.runtime_requirement)
    except MissingDependency as error:
        raise MissingDependency(
            f"looking into {row.name} payloads: {error.message}", hint=_install(row, error.__cause__)
        ) from error


def _install(row: Target, cause: BaseException | None) -> str:
    """Returns what installs a package that is absent; a device needs that one and no exporter."""
    if is_device_wheel() and isinstance(cause, ModuleNotFoundError) and cause.name is not None:
        package = cause.name.partition(".")[0].replace("_", "-")
        return f"there: python3 -m pip install {package}"
    return targets.pip_install(row.export_requirement)


def _by_tensor(probe: Probe, golden: Arrays) -> dict[str, tuple[str, NDArray[Any]]]:
    """Returns name and golden array of each output by its tensor; a file without the names has them in order."""
    known = probe.outputs
    tensors: Iterable[str] = [known[name] for name in golden] if golden.keys() <= known.keys() else known.values()
    return dict(zip(tensors, golden.items(), strict=True))
