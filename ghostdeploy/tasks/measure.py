"""The protocol of a measure: what a model scores on a labelled set, and what it lost against another one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

from ghostdeploy.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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
    """Figures of one model on one set; images are added one by one, in any order, here or elsewhere.

    What each image gave is kept apart until all are there, and figures are computed in the order of the set: so it does
    not matter for a single bit which process added which image, or when. `state` gives it as plain data, `absorb` takes
    that of another process.

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

    def partial(self, index: int) -> Any:
        """Returns what image `index` gave, as plain data that JSON keeps bit for bit.

        Raises:
            UsageError: This measure cannot be added up.
        """
        raise UsageError(f"task {self.task.info.name} has a measure that cannot be put together from parts")

    def restore(self, index: int, partial: Any) -> None:
        """Takes what image `index` gave elsewhere.

        Args:
            index: Of the set.
            partial: What `partial` returned there; from outside.

        Raises:
            ValueError: It is something else.
            UsageError: This measure cannot be added up.
        """
        raise UsageError(f"task {self.task.info.name} has a measure that cannot be put together from parts")

    def state(self, images: Iterable[int]) -> dict[int, Any]:
        """Returns what some images gave, by their index."""
        return {index: self.partial(index) for index in images}

    def absorb(self, state: Mapping[int, Any]) -> None:
        """Takes what images gave elsewhere, see `state`.

        Raises:
            DataError: It is not what this measure gives.
        """
        for index, partial in state.items():
            try:
                self.restore(index, partial)
            except ValueError as error:
                raise DataError(f"what image {index} of {self.data.source} gave is damaged: {error}") from error

    @abstractmethod
    def figures(self) -> dict[str, float | None]:
        """Returns all figures by name, once every image was added; None is "not measurable"."""

    @abstractmethod
    def drop(self, reference: Any) -> Drop:
        """Returns the drop of the main figure against the same measure of another model."""
