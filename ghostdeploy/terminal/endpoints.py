"""`verify http://…`: servers among the arguments, and the options that belong to them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import click

from ghostdeploy.errors import UsageError
from ghostdeploy.terminal.console import GivenPath
from ghostdeploy.terminal.junit import Suites
from ghostdeploy.terminal.output import print_json
from ghostdeploy.terminal.several import Several

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ghostdeploy.bundle.signature import Trust
    from ghostdeploy.deploy.prove.served import EndpointVerification

_SCHEMES = ("http://", "https://")


class BundleOrEndpoint(GivenPath):
    """A path, or the URL of a model on a server, which stays text."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click."""
        is_url = isinstance(value, str) and value.lower().startswith(_SCHEMES)
        return value if is_url else super().convert(value, param, ctx)


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Servers whose answers are verified."""

    urls: tuple[str, ...]
    reference: Path
    seconds: float

    def verify(self, junit: Path | None, trust: Trust | None, *, as_json: bool, **empty: str) -> int:
        """Does `verify`; returns the exit code. `empty` is what a bad server has in place of a result."""
        from ghostdeploy.deploy.prove.served import verify_endpoint
        from ghostdeploy.terminal import proof_tables

        several: Several[EndpointVerification] = Several(arguments=cast("tuple[Path, ...]", self.urls))
        with Suites(junit, "verify", several):
            several.run(lambda url: verify_endpoint(str(url), self.reference, seconds=self.seconds, trust=trust))
        found = [one for _, one in several.results]
        if as_json:
            print_json(several.entries(lambda _, one: one, "bundle", **empty))
        elif found:
            proof_tables.verified(found)
            proof_tables.served(found)
        return several.leave(int(any(one.verdict == "failed" for one in found)))


def endpoint_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets `endpoints`, an `Endpoints` or None."""

    @functools.wraps(command)
    def asking(
        *args: Any, bundles: tuple[Path | str, ...], bundle: Path | None, timeout: float | None, **kwargs: Any
    ) -> Any:
        urls = tuple(one for one in bundles if isinstance(one, str))
        if not urls:
            if bundle is not None or timeout is not None:
                raise UsageError("--bundle and --timeout are for http://…/v2/models/NAME", hint="leave them out")
            return command(*args, bundles=bundles, endpoints=None, **kwargs)
        if len(urls) < len(bundles):
            raise UsageError("verify takes bundles or servers, got both", hint="verify them one by one")
        if bundle is None:
            raise UsageError(
                f"{urls[0]} needs the bundle that is served there, whose golden vectors are replayed",
                hint="add --bundle DIR",
            )
        from ghostdeploy.deploy.prove.endpoint import SECONDS

        endpoints = Endpoints(urls, bundle, SECONDS if timeout is None else timeout)
        return command(*args, bundles=bundles, endpoints=endpoints, **kwargs)

    for option in (
        click.option(
            "--timeout",
            type=click.FloatRange(0.01),
            metavar="SECONDS",
            help="With a URL: time limit of each answer; default 60.",
        ),
        click.option("--bundle", type=GivenPath(), metavar="DIR", help="With a URL: the bundle that is served there."),
    ):
        asking = option(asking)
    return asking
