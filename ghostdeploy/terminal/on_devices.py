"""Commands on devices: the tables and documents of home, with the device."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from ghostdeploy.errors import UsageError
from ghostdeploy.terminal.console import Bars, GivenPath, describe, fail
from ghostdeploy.terminal.junit import Suites
from ghostdeploy.terminal.layout import note
from ghostdeploy.terminal.output import print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ghostdeploy.device.records import Device
    from ghostdeploy.errors import GhostDeployError
    from ghostdeploy.remote.commands import Found


_PYTHON = "python3"


@dataclass(frozen=True, slots=True)
class There:
    """Devices that a command works on, and what it prints of them."""

    wheres: tuple[str, ...]
    python: str
    receipt: Path | None = None
    junit: Path | None = None

    @property
    def _ways(self) -> Any:
        from ghostdeploy.remote.fleet import Ways

        return Ways(python=self.python)

    def verify(self, bundles: Sequence[Path], *, as_json: bool, **empty: str) -> int:
        """Does `verify`; returns the exit code. `empty` is what a bad bundle has in place of a result."""
        from ghostdeploy.remote import commands
        from ghostdeploy.terminal import proof_tables

        with Suites(self.junit, "verify") as suites, Bars() as bars:
            found = commands.verify(bundles, self.wheres, ways=self._ways, listener=bars)
            suites.machines = [_machine(one) for one in found]
        return self._show(found, proof_tables.verified, as_json=as_json, empty=empty)

    def evaluate(self, bundles: Sequence[Path], *, as_json: bool, **options: Any) -> int:
        """Does `eval`; returns the exit code."""
        from ghostdeploy.remote import commands
        from ghostdeploy.terminal import proof_tables

        with Suites(self.junit, "eval") as suites, Bars() as bars:
            prove = self.receipt is not None
            found = commands.evaluate(bundles, self.wheres, prove=prove, ways=self._ways, listener=bars, **options)
            suites.machines = [_machine(one) for one in found]
        return self._show(found, proof_tables.evaluated, as_json=as_json)

    def bench(self, bundles: Sequence[Path], *, as_json: bool, **options: Any) -> int:
        """Does `bench`; returns the exit code."""
        from ghostdeploy.remote import commands
        from ghostdeploy.terminal import proof_tables

        with Bars() as bars:
            prove = self.receipt is not None
            found = commands.bench(bundles, self.wheres, prove=prove, ways=self._ways, listener=bars, **options)
        return self._show(found, lambda one: proof_tables.benched(one[0]), as_json=as_json, alone=True)

    def diagnose(
        self, bundle: Path, other: Path | None, top: int, *, recorded: bool, as_json: bool, **model: Any
    ) -> int:
        """Does `diagnose`; returns the exit code."""
        from ghostdeploy.bundle.folder import open_bundle
        from ghostdeploy.terminal import diagnosis_tables

        if recorded or any(value is not None for value in model.values()):
            raise UsageError(
                "diagnose --on holds a bundle against what a device computes, and takes no other reference",
                hint="leave out --recorded, --model and --weights",
            )
        from ghostdeploy.remote import looking_inside

        with Bars() as bars:
            found = looking_inside.diagnose(bundle, self.wheres, other=other, ways=self._ways, listener=bars)
        wrong = any(one.live.wrong for each in found for _, one in each.results if one.live is not None)
        outputs = open_bundle(bundle, check_hashes=False).manifest.outputs

        def table(results: list[Any]) -> None:
            diagnosis_tables.diagnosed(results[0], top, outputs)

        return max(int(wrong), self._show(found, table, as_json=as_json, alone=True))

    def doctor(self, *, as_json: bool) -> int:
        """Does `doctor`; returns the exit code."""
        from ghostdeploy.remote import commands
        from ghostdeploy.terminal import tables

        found = commands.doctor(self.wheres, ways=self._ways)
        return self._show(found, lambda one: tables.doctor(one[0]), as_json=as_json, alone=True)

    def _show(
        self,
        found: Sequence[Found[Any]],
        table: Callable[[list[Any]], None],
        *,
        as_json: bool,
        alone: bool = False,
        empty: dict[str, str] | None = None,
    ) -> int:
        receipts = [receipt for one in found for receipt in one.receipts]
        if self.receipt is not None and receipts:
            from ghostdeploy.device.receipt import write

            write(self.receipt, receipts)
        return show(found, table, as_json=as_json, alone=alone, empty=empty)


def _machine(found: Found[Any]) -> tuple[str, list[tuple[Path, Any]], list[tuple[Path, GhostDeployError]]]:
    """Returns what a device gave as a suite of JUnit."""
    lost = [] if found.error is None else [(Path(found.where), found.error)]
    return found.where, found.results, [*found.errors, *lost]


def device_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options of a command that can work on devices; the callback gets `there`, None for this machine."""

    @functools.wraps(command)
    def reaching(*args: Any, wheres: tuple[str, ...], device_python: str, **kwargs: Any) -> Any:
        _require_python(wheres, device_python)
        there = There(wheres, device_python, kwargs.get("receipt"), kwargs.get("junit")) if wheres else None
        return command(*args, there=there, **kwargs)

    named = click.option(
        "--device-python",
        default=_PYTHON,
        metavar="PATH",
        show_default=True,
        help="With --on ssh://HOST: Python of the device.",
    )(reaching)
    return click.option(
        "--on",
        "wheres",
        multiple=True,
        metavar="WHERE",
        help="Work on a device: ssh://[user@]host[:port], adb://SERIAL, qemu://cortex-a72; may be repeated.",
    )(named)


def _require_python(wheres: tuple[str, ...], python: str) -> None:
    """Refuses a Python that no device would use.

    Raises:
        UsageError: It was named, and Android devices have none.
    """
    if wheres and python != _PYTHON and all(where.startswith("adb://") for where in wheres):
        raise UsageError(
            f"{wheres[0]} runs without Python, so --device-python names nothing there", hint="leave it out"
        )


receipt_option = click.option(
    "--receipt", type=GivenPath(), metavar="FILE.json", help="Write what was proven, on which device, in what state."
)


def show(
    found: Sequence[Found[Any]],
    table: Callable[[list[Any]], None],
    *,
    as_json: bool,
    alone: bool = False,
    empty: dict[str, str] | None = None,
) -> int:
    """Prints what devices gave.

    Args:
        found: By device.
        table: Prints the results of one.
        as_json: Print one document: a list, one entry per bundle and device.
        alone: There is one result per device: with a single device the document is that entry.
        empty: What the entry of a bad bundle has in place of a result.

    Returns:
        The exit code.

    Raises:
        GhostDeployError: There is one device and it gave nothing.
    """
    if len(found) == 1 and not found[0].results and len(only := _errors(found[0])) == 1:
        raise only[0]
    if as_json:
        documents = [document for one in found for document in _documents(one, empty or {})]
        print_json(documents[0] if alone and len(documents) == 1 else documents)
    for one in found if not as_json else ():
        if one.device is not None:
            note(f"on {one.where}: {said(one.device)}")
            if one.results:
                table([result for _, result in one.results])
    errors = {error.message: error for one in found for error in _errors(one)}  # a bad bundle is bad for all
    missed = any(getattr(result, "verdict", "") == "failed" for one in found for _, result in one.results)
    return max([int(missed), *map(fail, errors.values())])


def said(device: Device) -> str:
    """Returns a device in a few words."""
    words = [device.model, device.processor or device.architecture, device.system, f"Python {device.python}"]
    if device.emulator is not None:
        words.append(f"emulated by {device.emulator}: times mean nothing")
    return ", ".join(word for word in words if word)


def _document(result: Any) -> Any:
    """Returns a result as the same command prints it at home."""
    return msgspec.to_builtins(result.document() if hasattr(result, "document") else result)


def _errors(found: Found[Any]) -> list[GhostDeployError]:
    return [*(error for _, error in found.errors), *([found.error] if found.error is not None else [])]


def _documents(found: Found[Any], empty: dict[str, str]) -> list[dict[str, Any]]:
    device = {"where": found.where} if found.device is None else msgspec.to_builtins(found.device)
    entries = [_document(result) for _, result in found.results]
    entries += [
        {"bundle": str(path), **empty, "error": describe(error), "exit_code": error.exit_code}
        for path, error in found.errors
    ]
    if found.error is not None:
        entries.append({"error": describe(found.error), "exit_code": found.error.exit_code})
    return [entry | {"device": device} for entry in entries]
