"""`--junit FILE.xml`: what `verify` and `eval` found, as continuous integration shows test results.

    testsuite    one per machine: this one, or each device of --on
    testcase     one per bundle and gate; `classname` is the bundle, `name` the gate
    failure      the gate was missed         error      the bundle could not be judged: damaged, or no engine
    skipped      unverified: the figures do not decide

Figures are in `system-out`. The file appears whole, also where the command ends with an error.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ghostdeploy.errors import GhostDeployError, OutputError
from ghostdeploy.files import write_whole
from ghostdeploy.terminal.console import GivenPath
from ghostdeploy.visible import visible, visible_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType
    from xml.etree.ElementTree import Element

    from ghostdeploy.terminal.several import Several

junit_option = click.option(
    "--junit", type=GivenPath(), metavar="FILE.xml", help="Write the results as JUnit XML, for continuous integration."
)
_GATES = ("parity", "preprocessing", "execution", "comparison")
"""Fields of results that have a verdict, or an answer, of their own."""


class Suites:
    """Writes a file of results when its block ends, with or without an error.

    Args:
        file: None writes nothing.
        command: Name of the command.
        home: Results of this machine, filled inside the block.

    Attributes:
        machines: Further suites: name, results and errors by bundle.
    """

    def __init__(self, file: Path | None, command: str, home: Several[Any] | None = None) -> None:
        self._file, self._command, self._home = file, command, home
        self.machines: list[tuple[str, Sequence[tuple[Path, Any]], Sequence[tuple[Path, GhostDeployError]]]] = []

    def __enter__(self) -> Suites:
        """Starts the block."""
        return self

    def __exit__(self, _: object, error: BaseException | None, __: TracebackType | None) -> None:
        """Writes the file.

        Raises:
            OutputError: It cannot be written, and the block ended without an error.
        """
        if self._file is None or (error is not None and not isinstance(error, GhostDeployError)):
            return
        try:
            self._write(self._file, error)
        except OutputError:
            if error is None:
                raise

    def _write(self, file: Path, error: GhostDeployError | None) -> None:
        from xml.etree.ElementTree import Element, indent, tostring

        root = Element("testsuites", name=f"ghostdeploy {self._command}")
        if self._home is not None:
            own = [one for path, some in self._home.results for one in _each(path, some)]
            self.machines[:0] = [("home", own, self._home.errors)] if own or self._home.errors else []
        for name, results, errors in self.machines:
            root.append(_suite(name, results, errors))
        if error is not None:
            names = ", ".join(map(str, self._home.arguments)) if self._home is not None else "devices"
            case = Element("testcase", classname=_text(names), name="bundle")
            _mark(case, "error", error.message)
            root.append(_counted(Element("testsuite", name="command"), [case]))
        indent(root)
        write_whole(file, tostring(root, encoding="utf-8", xml_declaration=True) + b"\n", what="the results")


def _each(path: Path, found: Any) -> Iterator[tuple[Path, Any]]:
    """Yields the results of an argument: a receipt has several."""
    yield from ((path, one) for one in (found if isinstance(found, list) else [found]))


def _suite(name: str, results: Iterable[tuple[Path, Any]], errors: Iterable[tuple[Path, GhostDeployError]]) -> Element:
    from xml.etree.ElementTree import Element

    cases = [case for path, one in results for case in _cases(path, one)]
    for path, error in errors:
        case = Element("testcase", classname=_text(str(path)), name="bundle")
        _mark(case, "error", error.message)
        cases.append(case)
    return _counted(Element("testsuite", name=_text(name)), cases)


def _counted(suite: Element, cases: list[Element]) -> Element:
    suite.extend(cases)
    suite.set("tests", str(len(cases)))
    for kind, plural in (("failure", "failures"), ("error", "errors"), ("skipped", "skipped")):
        suite.set(plural, str(sum(case.find(kind) is not None for case in cases)))
    return suite


def _cases(path: Path, found: Any) -> Iterator[Element]:
    """Yields a case for each gate of a result, and one for its verdict."""
    from xml.etree.ElementTree import Element, SubElement

    import msgspec

    for gate in _GATES:
        record = getattr(found, gate, None)
        if record is not None:
            case = Element("testcase", classname=_text(str(path)), name=gate)
            word = getattr(record, "verdict", None) or getattr(record, "answer", None)
            if word == "failed":
                _mark(case, "failure", f"{gate} failed")
            SubElement(case, "system-out").text = visible(msgspec.json.encode(record).decode())
            yield case
    for one in getattr(found, "replay", ()):
        case = Element("testcase", classname=_text(str(path)), name=_text(f"replay of {one.output}"))
        if one.verdict == "failed":
            _mark(case, "failure", f"{one.output} differs from the {one.against} by more than {one.required_db:.1f} dB")
        yield case
    case = Element("testcase", classname=_text(str(path)), name="verdict")
    if found.verdict == "failed":
        _mark(case, "failure", found.failed_because or "failed")
    elif found.verdict == "unverified":
        _mark(case, "skipped", getattr(found, "unverified_because", None) or "unverified")
    yield case


def _mark(case: Element, kind: str, message: str) -> None:
    from xml.etree.ElementTree import SubElement

    SubElement(case, kind, message=_text(message))


def _text(text: str) -> str:
    """Returns text that XML can hold."""
    return visible_line(text).encode("utf-8", "backslashreplace").decode()
