"""The commands of a release: signatures, bills of materials, packages, a server; the device wheel has none of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from ghostdeploy.errors import UsageError
from ghostdeploy.files import write_whole
from ghostdeploy.terminal.console import GivenPath, common
from ghostdeploy.terminal.output import print_json, say
from ghostdeploy.terminal.several import Several
from ghostdeploy.terminal.trust_options import trust_options

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.bundle.signature import Signature, Trust
    from ghostdeploy.distribute.forms import Form, Packaged
    from ghostdeploy.serving.server import Listening


@click.command()
@click.argument("bundles", nargs=-1, type=GivenPath())
@click.option("--key", type=GivenPath(), metavar="FILE", help="The private key, Ed25519; PEM or OpenSSH, mode 0600.")
@click.option("--release", metavar="RELEASE", help="Such as 1.4.0; `verify --at-least` refuses older ones.")
@click.option("--new-key", type=GivenPath(), metavar="FILE", help="Make a pair first: FILE, and FILE.pub to hand out.")
@common
def sign(
    bundles: tuple[Path, ...], key: Path | None, release: str | None, new_key: Path | None, *, as_json: bool
) -> int:
    """Sign BUNDLES with an Ed25519 key.

    The signature covers the manifest, and with it every file; it is kept in signatures.json. `verify
    --require-signature --key FILE.pub` checks it.
    """
    from ghostdeploy.supply import sign as signing

    if (private := key or new_key) is None:
        raise UsageError("sign needs --key", hint="add --key FILE, or make one: ghostdeploy sign --new-key FILE")
    if key is not None and new_key is not None:
        raise UsageError("--key and --new-key exclude each other", hint="leave one of them out")
    if new_key is not None:
        public, name = signing.make_key(new_key)
        say(f"key {name[:12]}…: keep {new_key} secret, hand out {public}")
    elif not bundles:
        raise UsageError("sign needs a bundle", hint="ghostdeploy sign BUNDLE --key FILE")
    several: Several[Signature] = Several(arguments=bundles)
    several.run(lambda path: signing.sign(path, private, release=release))
    if as_json:
        print_json(several.entries(lambda path, one: {"bundle": str(path), "signature": one}, "bundle"))
    else:
        for path, one in several.results:
            what = "" if one.statement.release is None else f", release {one.statement.release}"
            say(f"{path} is signed by key {one.key[:12]}…{what}")
    return several.leave()


@click.command()
@click.argument("bundle", type=GivenPath())
@click.option("-o", "--out", type=GivenPath(), metavar="FILE", help="Where it goes; standard output without it.")
@common
def sbom(bundle: Path, out: Path | None, *, as_json: bool) -> None:
    """Write the bill of materials of a bundle: CycloneDX 1.6, JSON.

    Files and hashes, the trained model, the libraries that made it, the engine that runs it, and a model card with the
    measured figures.
    """
    from ghostdeploy.bundle.folder import open_bundle
    from ghostdeploy.supply.bill import bill

    found = bill(open_bundle(bundle))
    if out is None:
        print_json(found)
        return
    data = json.dumps(found, indent=2, ensure_ascii=False).encode() + b"\n"
    write_whole(out, data, what="the bill of materials")
    print_json({"bundle": str(bundle), "sbom": str(out)}) if as_json else say(f"{out} is written")


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=GivenPath())
@click.option(
    "--for",
    "form",
    type=click.Choice(["triton", "ovms", "huggingface", "oci"]),
    required=True,
    help="Triton's or OpenVINO Model Server's repository, a folder for the Hugging Face Hub, an OCI layout.",
)
@click.option("-o", "--out", type=GivenPath(), required=True, metavar="DIR", help="The repository; made when absent.")
@click.option("--name", metavar="NAME", help="Name of the model there, or the tag; default is the bundle's folder.")
@click.option("--license", "license_", metavar="SPDX", help="Licence of the model, for its card and annotations.")
@click.option("--intended-use", metavar="TEXT", help="A sentence for the model card.")
@click.option("--base-path", metavar="PATH", help="With --for ovms: where the server sees DIR.")
@common
def package(
    bundles: tuple[Path, ...],
    form: Form,
    out: Path,
    name: str | None,
    license_: str | None,
    intended_use: str | None,
    base_path: str | None,
    *,
    as_json: bool,
) -> int:
    """Hand BUNDLES over to a model server, a hub or a registry.

    Whole bundles, so that `verify` works on what was handed over. A version that is there is never overwritten, and the
    server's configuration is written last.
    """
    from ghostdeploy.distribute.forms import Wanted
    from ghostdeploy.distribute.forms import package as hand_over

    if name is not None and len(bundles) > 1:
        raise UsageError("--name is for one bundle, got several", hint="package them one by one")
    if base_path is not None and form != "ovms":
        raise UsageError("--base-path is for --for ovms", hint="leave it out")
    wanted = Wanted(out=out, name=name, license=license_, intended_use=intended_use, base_path=base_path)
    several: Several[Packaged] = Several(arguments=bundles)
    several.run(lambda path: hand_over(path, form, wanted))
    if as_json:
        print_json(several.entries(lambda _, one: one, "bundle"))
    else:
        for _, one in several.results:
            version = "" if one.version in {None, one.name} else f" version {one.version}"
            say(f"{one.path}: {one.name}{version}" + ("" if one.new else ", there already"))
        for note in dict.fromkeys(one.note for _, one in several.results if one.note):
            say(f"note: {note}")
    return several.leave()


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=GivenPath())
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Address to listen on.")
@click.option("--http-port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 is a free one.")
@click.option("--grpc-port", type=click.IntRange(0, 65535), default=8081, show_default=True, help="0 is a free one.")
@click.option("--no-grpc", is_flag=True, help="HTTP alone.")
@click.option("--threads", type=click.IntRange(1), metavar="N", help="Threads of each engine; default one per core.")
@click.option("--max-batch", type=click.IntRange(1), default=32, show_default=True, help="Images of a request.")
@click.option("--max-body", type=click.IntRange(1, 2047), default=16, show_default=True, help="MiB of a request.")
@click.option("--queue", type=click.IntRange(1), default=64, show_default=True, help="Requests under way or waiting.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.01),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="From a request to its answer.",
)
@click.option(
    "--grace",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="For requests under way at the end.",
)
@trust_options
@common
def serve(
    bundles: tuple[Path, ...],
    threads: int | None,
    max_body: int,
    trust: Trust | None,
    *,
    no_grpc: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Serve BUNDLES over the Open Inference Protocol v2, REST and gRPC.

    Until SIGTERM or Ctrl-C. Nobody is asked who they are: read SECURITY.md before giving another --host.
    """
    from ghostdeploy.serving.request import Limits, Place
    from ghostdeploy.serving.server import serve as answer

    http, grpc = options["http_port"], None if no_grpc else options["grpc_port"]
    if http and http == grpc:
        raise UsageError(f"--http-port and --grpc-port are both {http}", hint="give another --grpc-port, or --no-grpc")
    answer(
        bundles,
        Place(host=options["host"], http_port=http, grpc_port=grpc),
        Limits(
            batch=options["max_batch"],
            body=max_body << 20,
            queue=options["queue"],
            seconds=options["timeout"],
            grace=options["grace"],
        ),
        threads=threads,
        trust=trust,
        told=print_json if as_json else _listening,
    )


def _listening(found: Listening) -> None:
    for one in found.models:
        what = f"{one.target} {one.precision}, {one.task}, {one.engine}"
        say(f"{one.name} version {one.version}: {what}, digest {(one.digest or 'none')[:12]}")
    say(f"{found.http}" + (f", gRPC {found.grpc}" if found.grpc else "") + "; SIGTERM or Ctrl-C ends it")
