"""The protocol of a measure: what a model scores on a labelled set, and what it lost against another one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ghostdeploy.tasks.base import Arrays, Seen, Task


class Labelled(Protocol):
    """A labelled set, whatever its labels are."""

    @property
    def source(self) -> str:
        """For messages."""
        ...

    @property
    def images(self) -> Sequence[Any]:
        """File paths, or uint8 arrays (H, W, …)."""
        ...

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Height and width of each upright image, (N, 2)."""
        ...


class Drop(NamedTuple):
    """What was lost against a reference on the same images; negative where something was won."""

    value: float
    ci95: tuple[float, float]


class Measure(ABC):
    """Figures of one model on one set; images are added one by one, in any order.

    Args:
        task: What the outputs mean.
        data: The set.
        classes: Classes of the model; None where there are none.

    Raises:
        DataError: The set does not fit the model.
    """

    main: ClassVar[str]
    """The figure that decides."""
    max_drop: ClassVar[float] = 0.01
    """Largest allowed drop of it by default."""
    relative: ClassVar[bool] = False
    """The drop is a share of the reference's figure."""

    def __init__(self, task: Task, data: Any, classes: int | None) -> None:
        self.task, self.data, self.classes = task, data, classes

    @abstractmethod
    def add(self, index: int, outputs: Arrays, seen: Seen) -> None:
        """Takes the outputs (1, …) for image `index` of the set."""

    @abstractmethod
    def figures(self) -> dict[str, float | None]:
        """Returns all figures by name, once every image was added; None is "not measurable"."""

    @abstractmethod
    def drop(self, reference: Any) -> Drop:
        """Returns the drop of the main figure against the same measure of another model."""
