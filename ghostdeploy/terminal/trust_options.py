"""Options of `verify` that require a signature."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

from ghostdeploy.bundle.signature import Trust
from ghostdeploy.errors import UsageError
from ghostdeploy.terminal.console import GivenPath

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def trust_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options; the command gets `trust`, a `Trust` or None."""

    @functools.wraps(command)
    def trusting(
        *args: Any, require_signature: bool, key: tuple[Path, ...], at_least: str | None, **kwargs: Any
    ) -> Any:
        if not require_signature and (key or at_least is not None):
            raise UsageError("--key and --at-least need --require-signature", hint="add --require-signature")
        if require_signature and not key:
            raise UsageError("--require-signature needs --key", hint="add --key FILE, the public key of the signer")
        return command(*args, trust=Trust(key, at_least) if require_signature else None, **kwargs)

    for option in (
        click.option("--at-least", metavar="RELEASE", help="With --require-signature: refuse an older release."),
        click.option(
            "--key",
            type=GivenPath(),
            multiple=True,
            metavar="FILE",
            help="A public key that is trusted; may be repeated, a signature by one is enough.",
        ),
        click.option("--require-signature", is_flag=True, help="Refuse bundles that no trusted key has signed."),
    ):
        trusting = option(trusting)
    return trusting
