"""Commands with several arguments: a bad one is named and does not affect the others.

One argument    its error is the command's error, as everywhere
several         the results of the good ones are printed, in the order of the arguments; then each bad one's error; the
                exit code is that of the worst. In the JSON list a bad one's entry has `error` and `exit_code`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ghostdeploy.errors import GhostDeployError
from ghostdeploy.terminal.console import describe, fail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")


@dataclass(kw_only=True)
class Several(Generic[T]):
    """The result of each argument.

    Attributes:
        results: Of the good ones, by argument, in order.
        errors: Of the bad ones, likewise.
    """

    arguments: Sequence[Path]
    results: list[tuple[Path, T]] = field(default_factory=list)
    errors: list[tuple[Path, GhostDeployError]] = field(default_factory=list)

    def run(self, work: Callable[[Path], T]) -> None:
        """Does `work` for each argument.

        Raises:
            GhostDeployError: There is one argument, and it is a bad one.
        """
        for argument in self.arguments:
            try:
                self.results.append((argument, work(argument)))
            except GhostDeployError as error:
                self.note(argument, error)

    def note(self, argument: Path, error: GhostDeployError) -> None:
        """Keeps an argument's error; raises it where there is no other argument."""
        if len(self.arguments) == 1:
            raise error
        self.errors.append((argument, error))

    def entries(self, entry: Callable[[Path, T], Any], name: str, **empty: object) -> list[Any]:
        """Returns the JSON list.

        Args:
            entry: Makes the entry of a good argument.
            name: Key of the argument in the entries.
            empty: What a bad one's entry has in place of a result.
        """
        good = [(argument, entry(argument, result)) for argument, result in self.results]
        bad = [
            (argument, {name: str(argument), **empty, "error": describe(error), "exit_code": error.exit_code})
            for argument, error in self.errors
        ]
        made: dict[Path, list[Any]] = {}
        for argument, one in [*good, *bad]:
            made.setdefault(argument, []).append(one)
        return [made[argument].pop(0) for argument in self.arguments]

    def leave(self, code: int = 0) -> int:
        """Prints every error; returns the exit code, `code` where there was none."""
        for argument, error in self.errors:
            if str(argument) not in error.message:
                error.message = f"{argument}: {error.message}"
            fail(error)
        return max([error.exit_code for _, error in self.errors], default=code)
