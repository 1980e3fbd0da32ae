"""The weights of a captured program that has been converted."""

from __future__ import annotations

import torch


def drop_weights(program: torch.export.ExportedProgram) -> None:
    """Frees the memory of a program's weights, which nobody may use afterwards.

    Dropping the program itself does not: torch keeps the captured graph in a table of its own, weights and all.
    """
    for tensor in (*program.state_dict.values(), *program.constants.values()):
        if isinstance(tensor, torch.Tensor):
            tensor.data = tensor.new_empty(0)
