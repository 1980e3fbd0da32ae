"""Makes Ed25519 keys and signs bundles with them; what is signed is in `bundle.signature`.

A private key is PEM (PKCS #8), made here or by `openssl genpkey -algorithm ed25519`, or as `ssh-keygen -t ed25519`
writes it. Its file is readable by its owner alone, or it is refused. An encrypted one is opened with the text in the
environment variable GHOSTDEPLOY_KEY_PASSWORD: a prompt would hang a build server.
"""

from __future__ import annotations

import os
from base64 import b64encode
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import msgspec

from ghostdeploy.bundle import signature as sg
from ghostdeploy.bundle.folder import open_bundle
from ghostdeploy.bundle.staging import workspace
from ghostdeploy.errors import BadInput, BundleError, OutputError, UsageError
from ghostdeploy.files import write_failure
from ghostdeploy.visible import visible_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle

PASSWORD = "GHOSTDEPLOY_KEY_PASSWORD"
_OTHERS = 0o077


def make_key(path: Path) -> tuple[Path, str]:
    """Makes a pair: `path` with mode 0600, and `path.pub`; both PEM.

    Returns:
        The public file, and the key's name.

    Raises:
        OutputError: They cannot be written.
        UsageError: One of them exists: a key is never replaced.
    """
    ed25519, serialization = sg.cryptography()
    key = ed25519.Ed25519PrivateKey.generate()
    public = path.with_name(f"{path.name}.pub")
    for one in (path, public):
        if os.path.lexists(one):
            raise UsageError(
                f"{visible_line(str(one))} exists already, and a key is never replaced", hint="choose another name"
            )
    encoding, kinds = serialization.Encoding.PEM, serialization
    private = key.private_bytes(encoding, kinds.PrivateFormat.PKCS8, kinds.NoEncryption())
    _write_new(path, private, 0o600)
    try:
        _write_new(public, key.public_key().public_bytes(encoding, kinds.PublicFormat.SubjectPublicKeyInfo), 0o644)
    except OutputError:
        path.unlink(missing_ok=True)  # made above, and useless without the public one
        raise
    return public, sg.key_id(key.public_key().public_bytes_raw())


def sign(path: Path, key: Path, *, release: str | None = None) -> sg.Signature:
    """Signs a bundle whose files were checked; a signature of the same key is replaced, those of others stay.

    Args:
        path: The bundle.
        key: File of the private key.
        release: One to four numbers, by which a rollback is refused later.

    Raises:
        BadInput: The key cannot be used, or others may read it.
        BundleError: The bundle is damaged, or so old that its manifest has no digest.
        MissingDependency: `cryptography` is not installed.
        OutputError: The signature cannot be written.
        UsageError: `release` is none.
    """
    if release is not None:
        sg.numbers(release)
    private = _private_key(key)
    bundle = open_bundle(path)
    if bundle.manifest.digest is None:
        raise BundleError(f"{path} is of an early version: its manifest has no digest to sign", hint="export it again")
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    statement = sg.Statement(digest=bundle.manifest.digest, release=release, signed_at=now)
    made = sg.Signature(
        statement=statement,
        key=sg.key_id(private.public_key().public_bytes_raw()),
        ed25519=b64encode(private.sign(sg.signed_bytes(statement))).decode(),
    )
    _add(bundle, made)
    return made


def _add(bundle: Bundle, made: sg.Signature) -> None:
    """Writes the signatures with a new one, in one step: whoever is killed leaves the old file or the new one."""
    with workspace(bundle.path.absolute().parent, bundle.path.absolute().name) as folder, _alone(bundle.path):
        others = [one for one in sg.read(bundle.path) if one.key != made.key]
        if len(others) >= sg.MOST:
            raise UsageError(f"{bundle.path} has {len(others)} signatures, the most", hint=f"remove {sg.SIGNATURES}")
        whole = sg.Signatures(schema=1, signatures=(*others, made))
        file = folder / sg.SIGNATURES
        file.write_bytes(msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n")
        file.replace(bundle.path / sg.SIGNATURES)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Waits until no other process signs this bundle."""
    try:
        import fcntl  # POSIX only
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _private_key(path: Path) -> Any:
    data, where = sg.key_bytes(path), visible_line(str(path))
    if path.stat().st_mode & _OTHERS and os.name == "posix":
        mode = f"{path.stat().st_mode & 0o777:04o}"
        raise BadInput(f"{where} has mode {mode}, expected 0600: others may read it", hint=f"chmod 600 {where}")
    ed25519, serialization = sg.cryptography()
    password = os.environ.get(PASSWORD, "").encode() or None
    openssh = data.startswith(b"-----BEGIN OPENSSH")
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key = load(data, password=password)
    except TypeError as error:  # encrypted without a password, or the reverse
        why = "is encrypted" if password is None else "is not encrypted"
        hint = f"{'set' if password is None else 'unset'} {PASSWORD}"
        raise BadInput(f"{where} {why}", hint=hint) from error
    except Exception as error:  # ValueError, UnsupportedAlgorithm, and what the parsers raise of damaged ones
        if password is not None:
            raise BadInput(f"{where} cannot be opened with {PASSWORD}", hint="check the password") from error
        if b"ENCRYPTED" in data or openssh:
            raise BadInput(f"{where} cannot be opened; is it encrypted?", hint=f"set {PASSWORD}") from error
        raise sg.no_key(path, "private") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise sg.no_key(path, "private")
    return key


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Writes a file that must not exist yet; one that cannot be written to its end is removed."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
        except OSError:
            path.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"{visible_line(str(path))} cannot be written: {write_failure(error)}") from error
