"""Readers of bundles and of what is proven about them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.fuzzing import mixed
from tests.robustness.reading import Reader, archives, bundle_in, command, plain, resealed
from tests.signing import sign_again

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def manifest(folder: Path, precision: str = "fp32") -> Reader:
    """`manifest.json`, its digest right: `inspect` and `verify`."""
    bundle = bundle_in(folder, precision)
    path = bundle / "manifest.json"
    whole = path.read_bytes()

    def attempt(data: bytes) -> int:
        path.write_bytes(data)
        return max(command("inspect", bundle), command("verify", bundle))

    return Reader(whole=whole, damaged=mixed(whole, resealed), attempt=attempt)


def listed(folder: Path, name: str, words: tuple[str, ...], precision: str = "fp32") -> Reader:
    """A file that a manifest lists, size and hash right: a command reads it."""
    bundle = bundle_in(folder, precision)
    whole = (bundle / name).read_bytes()

    def attempt(data: bytes) -> int:
        (bundle / name).write_bytes(data)
        sign_again(bundle)
        return command(*words, bundle)

    damaged = {".npz": archives, ".json": mixed}.get((bundle / name).suffix, plain)
    return Reader(whole=whole, damaged=damaged(whole), attempt=attempt)


def receipts(folder: Path) -> Reader:
    """A file of receipts, digests right: `verify` checks it, `report` shows it."""
    bundle, path = bundle_in(folder), folder / "receipt.json"
    assert command("verify", bundle, "--receipt", path) == 0
    whole = path.read_bytes()

    def again(document: Any) -> bytes:
        try:
            found = [json.loads(resealed(one)) for one in document["receipts"]]
        except (ValueError, TypeError, KeyError, RecursionError):
            return json.dumps(document).encode()
        return json.dumps(document | {"receipts": found}).encode()

    def attempt(data: bytes) -> int:
        path.write_bytes(data)
        return max(
            command("verify", path, bundle),
            command("report", path, bundle, "--markdown"),
        )

    return Reader(whole=whole, damaged=mixed(whole, again), attempt=attempt)


def page(folder: Path) -> Reader:
    """A page of `report`, the digest of its record right: `report --check`."""
    bundle, path = bundle_in(folder), folder / "report.html"
    assert command("report", bundle, "-o", path) == 0
    whole = path.read_bytes()
    from ghostdeploy.deploy.report.page import _RECORD

    found = _RECORD.search(whole)
    assert found is not None
    begin, end = found.span(1)

    def damaged(count: int, seed: int) -> Iterator[bytes]:
        for record in mixed(found[1], resealed)(count, seed):
            yield whole[:begin] + record.replace(b"<", b"\\u003c") + whole[end:]

    def attempt(data: bytes) -> int:
        path.write_bytes(data)
        return command("report", path, "--check")

    return Reader(whole=whole, damaged=damaged, attempt=attempt)


def signatures(folder: Path) -> Reader:
    """`signatures.json`: `verify --require-signature`."""
    bundle, key = bundle_in(folder), folder / "key"
    assert command("sign", "--new-key", key) == 0
    assert command("sign", bundle, "--key", key, "--release", "1.2") == 0
    path = bundle / "signatures.json"
    whole = path.read_bytes()

    def attempt(data: bytes) -> int:
        path.write_bytes(data)
        return command("verify", bundle, "--require-signature", "--key", key.with_name("key.pub"), "--at-least", "1.0")

    return Reader(whole=whole, damaged=mixed(whole), attempt=attempt)
