"""What gives the outputs of a fresh payload: its engine, or its own graph in float where the engine cannot run here."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.batches import as_batch, by_name
from ghostdeploy.errors import UnsupportedHardware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ghostdeploy.batches import Batch
    from ghostdeploy.bundle.folder import Arrays, Bundle
    from ghostdeploy.bundle.manifest import How
    from ghostdeploy.targets import Target

SIMULATED: How = "simulated in float"


class Executor:
    """Whatever gives the outputs of a payload: its runtime, or the float simulation of its graph.

    Attributes:
        infer: Arrays by input name → arrays by output name.
        run: A batch → arrays by output name.
        unverified_because: Why the engine did not run, or not the payload itself; None when it did.
        how: What gives the outputs, for the manifest's records.
    """

    def __init__(
        self,
        infer: Callable[[Arrays], Arrays],
        run: Callable[[Batch], Arrays],
        unverified_because: str | None = None,
        *,
        how: How = "executed",
    ) -> None:
        self.infer = infer
        self.run = run
        self.unverified_because = unverified_because
        self.how = how

    @property
    def executes(self) -> bool:
        """Whether an engine, or its simulator, computes in the payload's own numbers."""
        return self.how != SIMULATED


@contextmanager
def executor(bundle: Bundle, row: Target) -> Iterator[Executor]:
    """Gives the bundle's runtime, or its simulation where the hardware is missing and the row allows it."""
    from ghostdeploy.runtimes import load

    try:
        runtime = load(bundle.path)
    except UnsupportedHardware as error:
        if row.simulation is None:
            raise
        missing = error.message if targets.has_device(row) else f"no {row.device}"
        yield simulation(bundle, row.simulation, f"built, not executed: {missing}")
        return
    with runtime:
        names = [spec.name for spec in bundle.manifest.inputs]
        yield Executor(runtime.infer, lambda batch: runtime.infer(by_name(batch, names)), row.not_executed, how=row.how)


def simulation(bundle: Bundle, graph: str, unverified_because: str) -> Executor:
    """Returns the executor that runs an ONNX graph of the bundle as it is written, without fusion."""
    import onnx

    from ghostdeploy.bundle.external_data import refuse_external_data
    from ghostdeploy.deploy.quantize.simulate import GraphRunner

    data = bundle.read(graph)
    refuse_external_data(data, str(bundle.path))
    runner = GraphRunner(onnx.load_model_from_string(data))

    def run(batch: Batch) -> Arrays:
        return dict(zip(runner.outputs, runner(batch), strict=True))

    return Executor(lambda inputs: run(as_batch(inputs)), run, unverified_because, how=SIMULATED)
