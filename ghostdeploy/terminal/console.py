"""Shared parts of the command line: the one error exit, `--json`, progress bars.

Data goes to stdout, messages to stderr. `NO_COLOR` is honoured (by rich), and no bar is drawn when stderr is not a
terminal.
"""

from __future__ import annotations

import functools
import importlib
import logging
import sys
import warnings
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ghostdeploy.errors import (
    ExportFailed,
    GhostDeployError,
    OutputError,
    UnsupportedHardware,
    UsageError,
    did_you_mean,
)
from ghostdeploy.telemetry import silence_process
from ghostdeploy.terminal import interruption
from ghostdeploy.terminal.output import answer_alone, answers, make_printable, print_json, say, say_lines
from ghostdeploy.visible import shortened, visible_line
from ghostdeploy.wheel import is_device_wheel, not_on_device

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rich.progress import Progress, TaskID

BUG = 70
_verbose: list[bool] = []
"""Not empty if tracebacks of errors are wanted."""


def is_verbose() -> bool:
    """Returns whether `-v` was given."""
    return bool(_verbose)


class GivenPath(click.Path):
    """A path: an empty one, from an unset shell variable, is refused, because it would be the working folder."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        if value == "":
            self.fail("the path is empty; is a variable empty?", param, ctx)
        return super().convert(value, param, ctx)


class CommandGroup(click.Group):
    """A click group that suggests commands and turns every error into a sentence, a hint and an exit code.

    Args:
        elsewhere: Commands by the module that holds them, imported on use.
        kwargs: See click.
    """

    def __init__(self, *, elsewhere: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._elsewhere = elsewhere

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands that are installed."""
        return sorted({*self.commands, *(name for name, module in self._elsewhere.items() if find_spec(module))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command; None where there is none of that name."""
        if (module := self._elsewhere.get(cmd_name)) is None:
            return super().get_command(ctx, cmd_name)
        command: click.Command = getattr(importlib.import_module(module), cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggests the nearest command for an unknown one."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            hint = did_you_mean(name, known, otherwise=f"commands are {', '.join(known)}")
            raise UsageError(f"unknown command {name!r}", hint=hint)
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs a command and leaves with the contract's exit code."""
        arguments = list(kwargs.pop("args", None) or (args[0] if args else None) or sys.argv[1:])
        as_json = "--json" in arguments
        _verbose[:] = [True] if {"-v", "--verbose"} & set(arguments) else []
        silence_process()
        make_printable()
        _show_warnings()
        warnings.filterwarnings("ignore", module=r"PIL\.")  # Pillow's errors say more than its warnings
        try:
            code = super().main(arguments, standalone_mode=False, **kwargs)
            answers().flush()
        except GhostDeployError as error:
            code = fail(error, as_json=as_json)
        except ImportError as error:
            absent = not_on_device(f"what `ghostdeploy {next(iter(arguments), '')}` needs")
            ours = (error.name or "").startswith("ghostdeploy") and is_device_wheel()
            code = fail(absent, as_json=as_json) if ours else fail_bug(error, as_json=as_json)
        except MemoryError:
            code = fail(
                UnsupportedHardware("out of memory", hint="free some memory, or raise the limit"), as_json=as_json
            )
        except click.ClickException as error:
            code = fail_usage(error, as_json=as_json)
        except (click.exceptions.Abort, KeyboardInterrupt):
            code = interruption.exit_code()
        except Exception as error:
            code = fail_bug(error, as_json=as_json)
        sys.exit(code if isinstance(code, int) else 0)


def fail(error: GhostDeployError, *, as_json: bool = False) -> int:
    """Prints an error of ours; returns its exit code."""
    if _verbose or error.exit_code == BUG:
        _traceback(error)
    complain(error.message, error.hint)
    if as_json:
        _print_error({"error": describe(error), "exit_code": error.exit_code})
    return error.exit_code


def describe(error: GhostDeployError) -> dict[str, str | None]:
    """Returns an error of ours as `--json` shows it."""
    log = str(error.log) if isinstance(error, ExportFailed) and error.log else None
    hint = None if error.hint is None else shortened(error.hint)
    return {"kind": type(error).__name__, "message": shortened(error.message), "hint": hint, "log": log}


def fail_usage(error: click.ClickException, *, as_json: bool) -> int:
    """Prints a usage error found by click; returns exit code 2."""
    ctx = getattr(error, "ctx", None)
    message = error.format_message().rstrip(".")
    hint = f"{ctx.command_path} --help" if ctx else "ghostdeploy --help"
    complain(message[:1].lower() + message[1:], hint)
    if as_json:
        _print_error({"error": {"kind": "UsageError", "message": message, "hint": hint, "log": None}, "exit_code": 2})
    return 2


def fail_bug(error: Exception, *, as_json: bool) -> int:
    """Prints an unexpected error with its traceback; returns exit code 70."""
    _traceback(error)
    message = f"ghostdeploy has a bug: {type(error).__name__}: {error}"
    hint = "please report it with the traceback above and `ghostdeploy doctor --json`"
    complain(message, hint)
    if as_json:
        _print_error({"error": {"kind": "Bug", "message": message, "hint": hint, "log": None}, "exit_code": BUG})
    return BUG


def _print_error(document: dict[str, Any]) -> None:
    """Prints the JSON of an error; where standard output cannot be written the exit code stays that of the error."""
    with suppress(OutputError):  # reported on standard error, and often the error itself
        print_json(document)


def common(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the two options every command takes, and reserves standard output for its result."""

    @functools.wraps(command)
    def answering(*args: Any, **kwargs: Any) -> Any:
        answer_alone()
        return command(*args, **kwargs)

    answering = click.option("--json", "as_json", is_flag=True, help="Print one JSON document to stdout.")(answering)
    return click.option(
        "-v", "--verbose", is_flag=True, expose_value=False, help="Show tracebacks of errors.", is_eager=True
    )(answering)


class Bars:
    """Draws one bar per stage on stderr; a plain line per finished stage when stderr is not a terminal."""

    def __init__(self) -> None:
        from ghostdeploy.terminal.layout import SafeConsole

        self._console = SafeConsole(stderr=True)
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Bars:
        """Starts drawing."""
        if self._console.is_terminal:
            from rich.progress import (
                BarColumn,
                Progress,
                TaskProgressColumn,
                TextColumn,
                TimeElapsedColumn,
                TimeRemainingColumn,
            )

            columns = (
                TextColumn("{task.description:<36}", markup=False),
                BarColumn(30),
                TaskProgressColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(elapsed_when_finished=False),
            )
            self._progress = Progress(*columns, console=self._console)
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stops drawing."""
        if self._progress is not None:
            self._progress.stop()

    def started(self, stage: str) -> None:
        """See `Listener`; a lost signal ends the command here."""
        interruption.insist()
        if self._progress is not None:
            self._tasks[stage] = self._progress.add_task(visible_line(stage), total=None)

    def advanced(self, stage: str, done: int, total: int) -> None:
        """See `Listener`."""
        if self._progress is not None:
            self._progress.update(self._tasks[stage], completed=done, total=total)

    def finished(self, stage: str, seconds: float) -> None:
        """See `Listener`."""
        if self._progress is not None:
            self._progress.update(self._tasks[stage], completed=1, total=1)
        else:
            say(f"{stage:<36} {seconds:6.1f} s", error=True)


class _Warnings(logging.Handler):
    """Prints the library's own messages to stderr, each once: a search exports the same set many times."""

    def __init__(self) -> None:
        super().__init__()
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        line = f"{'warning' if record.levelno >= logging.WARNING else 'note'}: {record.getMessage()}"
        if line not in self._said:
            self._said.add(line)
            say(line, error=True)


def _show_warnings() -> None:
    """Sends ghostdeploy's log messages to stderr as `warning: …` or `note: …`; other loggers are left alone."""
    logger = logging.getLogger("ghostdeploy")
    for handler in [handler for handler in logger.handlers if isinstance(handler, _Warnings)]:
        logger.removeHandler(handler)  # of a command before this one in the same process
    logger.addHandler(_Warnings())
    logger.setLevel(logging.INFO)


def complain(message: str, hint: str | None) -> None:
    """Prints an error and what to do next to stderr."""
    say(f"error: {message}", error=True)
    if hint:
        say(f"hint: {hint}", error=True)


def _traceback(error: Exception) -> None:
    import traceback

    say_lines("".join(traceback.format_exception(error)), error=True)
