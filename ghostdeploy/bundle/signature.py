"""Signatures of a bundle: `signatures.json` beside the manifest, and when one of them is trusted.

    signed    the line "ghostdeploy signature 1" ‖ canonical JSON of {digest, release, signed_at}, see `bundle.digest`
    digest    of the manifest, which has the SHA-256 of every file: one signature covers the whole bundle
    scheme    Ed25519 (RFC 8032), by `cryptography`

The first line keeps a signature that was made for something else from counting here, and this one from counting there.
A key is trusted because the caller names its file, never because a bundle holds it. Releases are compared as numbers,
so that an older bundle, however validly signed, can be refused: a rollback.

The file is not listed in the manifest, which it signs. It may hold several signatures, as of a key and its successor;
one right one of a trusted key is enough, whatever the others are.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.arguments import require_paths
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.record import Record
from ghostdeploy.errors import BadInput, BundleError, MissingDependency, UsageError
from ghostdeploy.files import is_there, read_limited
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle

SIGNATURES = "signatures.json"
MOST = 16
"""Signatures of a bundle."""
MAX_FILE = 64 << 10
"""Bytes of the largest `signatures.json`."""
_MAX_KEY = 16 << 10
_SCHEMA = 1
_CONTEXT = b"ghostdeploy signature 1\n"
_RELEASE = re.compile(r"(0|[1-9]\d{0,8})(\.(0|[1-9]\d{0,8})){0,3}")
_SIGN = "ghostdeploy sign BUNDLE --key FILE"


class Statement(Record, frozen=True, kw_only=True):
    """What is signed."""

    digest: str
    """Of the manifest, hexadecimal."""
    release: str | None
    """Such as `1.4.0`: one to four numbers; None where the signer gave none."""
    signed_at: str
    """UTC, ISO 8601, by the signer's clock."""


class Signature(Record, frozen=True, kw_only=True):
    """A statement and its proof."""

    statement: Statement
    key: str
    """SHA-256 of the raw public key, hexadecimal."""
    ed25519: str
    """64 bytes, base64."""


class Signatures(Record, frozen=True, kw_only=True):
    """`signatures.json`."""

    schema: int
    signatures: tuple[Signature, ...]


@dataclass(frozen=True)
class Trust:
    """Whose signatures count, and how old a release may be.

    Args:
        keys: Files of public keys, or one: PEM, or a line of OpenSSH (`ssh-ed25519 …`). A right signature by one of
            them is enough.
        at_least: The oldest release that is accepted; None accepts any, and signatures without one.
    """

    keys: Sequence[str | os.PathLike[str]] | str | os.PathLike[str]
    at_least: str | None = None

    def require(self, bundle: Bundle) -> Signature:
        """Returns the trusted signature of a bundle, that of the newest release.

        Raises:
            BadInput: A key file cannot be used.
            BundleError: No signature of these keys, one over another manifest, a wrong one, or an older release.
            MissingDependency: `cryptography` is not installed.
            UsageError: `at_least` is no release, or there is no key.
        """
        oldest = None if self.at_least is None else numbers(self.at_least)
        files = require_paths("key", self.keys)
        if not files:
            raise UsageError("a required signature needs a key to check it", hint="add --key FILE, the public key")
        keys = {key_id(raw): raw for raw in map(public_key, files)}
        where = visible_line(str(bundle.path))
        found = [one for one in read(bundle.path) if one.key in keys]
        if not found:
            raise BundleError(
                f"{where} has no signature by {_named(keys)}", hint=f"have it signed with: {_SIGN}, or give another key"
            )
        errors = [_error(one, keys[one.key], bundle) for one in found]
        right = [one for one, error in zip(found, errors, strict=True) if error is None]
        if not right:
            raise next(error for error in errors if error is not None)
        newest = max(right, key=lambda one: numbers(one.statement.release or "0"))
        if oldest is not None and (newest.statement.release is None or numbers(newest.statement.release) < oldest):
            release = newest.statement.release
            what = "no release" if release is None else f"release {release}"
            raise BundleError(
                f"{where} is signed as {what}, expected at least {self.at_least}", hint="take the newer bundle"
            )
        return newest

    def require_all(self, paths: Sequence[Path]) -> None:
        """Requires a signature of each bundle, before any is sent to a device; errors as of `require`."""
        for path in paths:
            self.require(open_bundle(path))


def numbers(release: str) -> tuple[int, ...]:
    """Returns a release as numbers, so that 1.10 is newer than 1.9 and the same as 1.10.0.

    Raises:
        UsageError: It is none.
    """
    if not _RELEASE.fullmatch(release):
        raise UsageError(f"{visible_line(release)!r} is no release, expected one to four numbers", hint="such as 1.4.0")
    found = [int(part) for part in release.split(".")]
    return (*found, *[0] * (4 - len(found)))


def signed_bytes(statement: Statement) -> bytes:
    """Returns what the key signs."""
    fields = msgspec.to_builtins(statement)
    return _CONTEXT + json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def key_id(raw: bytes) -> str:
    """Returns the name of a raw public key, 32 bytes."""
    return hashlib.sha256(raw).hexdigest()


def read(folder: Path) -> tuple[Signature, ...]:
    """Returns the signatures of a bundle's folder, unchecked; none where the file is absent.

    Raises:
        BundleError: The file is damaged, too large, or no regular file.
    """
    path = folder / SIGNATURES
    where = visible_line(str(path))
    if not is_there(path) and not path.is_symlink():
        return ()
    hint = f"sign the bundle again: {_SIGN}"
    try:
        data = read_limited(path, MAX_FILE)
        found = msgspec.json.decode(data, type=Signatures)
    except OSError as error:
        raise BundleError(f"{where} cannot be read: {error.strerror or error}", hint=hint) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where} holds no signatures: {error}", hint=hint) from error
    if found.schema != _SCHEMA:
        raise BundleError(f"{where} has schema {found.schema}, expected {_SCHEMA}", hint="update ghostdeploy")
    if len(found.signatures) > MOST:
        raise BundleError(f"{where} has {len(found.signatures)} signatures, expected at most {MOST}", hint=hint)
    for one in found.signatures:
        if one.statement.release is not None and not _RELEASE.fullmatch(one.statement.release):
            raise BundleError(f"{where} names a release {visible_line(one.statement.release)!r}", hint=hint)
    return found.signatures


def public_key(path: Path) -> bytes:
    """Returns a raw public key, 32 bytes, from a file.

    Raises:
        BadInput: It cannot be read, holds a private key, or no Ed25519 key.
        MissingDependency: `cryptography` is not installed.
    """
    data = key_bytes(path)
    where = visible_line(str(path))
    if b"PRIVATE KEY" in data:
        raise BadInput(f"{where} is a private key, expected the public one", hint="give the file that ends in .pub")
    ed25519, serialization = cryptography()
    try:
        load = serialization.load_ssh_public_key if data.startswith(b"ssh-") else serialization.load_pem_public_key
        key = load(data)
    except Exception as error:  # ValueError, UnsupportedAlgorithm, and what the parsers raise of damaged ones
        raise no_key(path, "public") from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise no_key(path, "public")
    raw: bytes = key.public_bytes_raw()
    return raw


def key_bytes(path: Path) -> bytes:
    """Returns the content of a key file."""
    try:
        return read_limited(path, _MAX_KEY)
    except FileNotFoundError as error:
        hint = "make a pair: ghostdeploy sign --new-key FILE"
        raise BadInput(f"key {visible_line(str(path))} does not exist", hint=hint) from error
    except OSError as error:
        raise BadInput(f"key {visible_line(str(path))} cannot be read: {error.strerror or error}") from error


def cryptography() -> tuple[Any, Any]:
    """Returns the modules of Ed25519 and of key files.

    Raises:
        MissingDependency: Not installed, or broken.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingDependency(
            "signatures need cryptography, not installed here", hint='pip install "ghostdeploy[sign]"'
        ) from error
    return ed25519, serialization


def _error(one: Signature, raw: bytes, bundle: Bundle) -> BundleError | None:
    """Returns what is wrong with a signature; None where it is right."""
    where, digest = visible_line(str(bundle.path)), bundle.manifest.digest
    ed25519, _ = cryptography()
    from cryptography.exceptions import InvalidSignature

    try:
        proof = b64decode(one.ed25519, validate=True)
        ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(proof, signed_bytes(one.statement))
    except (binascii.Error, InvalidSignature, ValueError):
        return BundleError(
            f"{where} has a wrong signature by key {one.key[:12]}…: {SIGNATURES} was altered",
            hint="take the bundle from a trusted place",
        )
    if digest is not None and one.statement.digest == digest:
        return None
    found = "no digest" if digest is None else f"digest {digest[:12]}…"
    return BundleError(
        f"{where} was changed after it was signed: its manifest has {found}, the signature is over "
        f"{visible_line(one.statement.digest)[:12]}…",
        hint=f"take it from a trusted place, or have it signed again: {_SIGN}",
    )


def _named(keys: dict[str, bytes]) -> str:
    return " or ".join(f"key {one[:12]}…" for one in keys)


def no_key(path: Path, kind: str) -> BadInput:
    """Returns the error of a file that holds no `kind` (public, private) key."""
    return BadInput(
        f"{visible_line(str(path))} holds no Ed25519 {kind} key, in PEM or as OpenSSH writes it",
        hint="make a pair: ghostdeploy sign --new-key FILE",
    )
