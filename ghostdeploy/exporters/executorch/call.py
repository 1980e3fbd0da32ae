"""One operator to be written: what it reads, and its attributes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ghostdeploy.convert.base import RefusedError

if TYPE_CHECKING:
    import onnx
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One node of an ONNX graph."""

    node: onnx.NodeProto
    given: list[Any]
    """Tensors it reads; None for one that is left out."""
    static: list[NDArray[Any] | None]
    """Values of those that are constant."""
    attributes: dict[str, Any]

    @property
    def data(self) -> torch.Tensor:
        """The first tensor."""
        found: torch.Tensor = self.given[0]
        return found

    def optional(self, place: int) -> torch.Tensor | None:
        """Returns a tensor that may be left out."""
        return self.given[place] if len(self.given) > place else None

    def numbers(self, name: str, place: int) -> list[int] | None:
        """Returns whole numbers that are an attribute in older opsets, and an input in newer ones.

        Raises:
            RefusedError: They are computed from the data.
        """
        if name in self.attributes:
            found = self.attributes[name]
            return [int(one) for one in found] if isinstance(found, (list, tuple)) else [int(found)]
        values = self.value(place)
        return None if values is None else [int(one) for one in values.reshape(-1)]

    def value(self, place: int) -> NDArray[Any] | None:
        """Returns the values of a constant input, None where it is left out.

        Raises:
            RefusedError: It is no constant.
        """
        if len(self.given) <= place or not self.node.input[place]:
            return None
        found = self.static[place]
        if found is None:
            raise self.refused("has sizes that depend on the data")
        return found

    def text(self, name: str, default: str) -> str:
        """Returns an attribute that is a word."""
        found = self.attributes.get(name, default)
        return found.decode() if isinstance(found, bytes) else str(found)

    def refused(self, why: str) -> RefusedError:
        """Returns the error for a form of the operator that cannot be written.

        Args:
            why: The rest of the sentence.
        """
        return RefusedError(f"{self.node.op_type} at {self.node.name or self.node.output[0]} {why}: not for ExecuTorch")
