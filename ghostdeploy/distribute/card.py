"""The text of a model card: what the manifest says of a model, and how to make and check it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ghostdeploy import targets
from ghostdeploy.bundle.figures import figures

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.bundle.manifest import Manifest
    from ghostdeploy.distribute.forms import Wanted

_USES = {
    "classify": "Naming the class of an image, one of those in `labels.txt`.",
    "detect": "Finding and naming objects in an image.",
    "landmarks": "Placing landmarks in an image.",
    "embed": "Telling by the distance of two embeddings whether two images show the same thing.",
    "segment": "Naming the class of every pixel.",
}


def text(bundle: Bundle, wanted: Wanted, name: str) -> str:
    """Returns the card below its head, Markdown."""
    manifest, model = bundle.manifest, bundle.manifest.model
    use = wanted.intended_use or _USES.get(manifest.task.name, "Not stated; the outputs are what the network gives.")
    parts = [
        f"\n# {name}\n",
        f"`{model.name}` ({model.family}, {model.params:,} parameters, {model.macs:,} multiply-accumulates per image) "
        f"for {targets.find(manifest.target).summary}, {manifest.precision}. "
        f"Verdict of its proof: **{manifest.verdict}**.\n",
        *([f"{because}.\n"] if (because := manifest.unverified_because) else []),
        "## Intended use\n",
        f"{use}\n",
        *_licence(wanted),
        "## Figures\n",
        _table(manifest),
        "## Preprocessing\n",
        _preprocessing(manifest),
        "## Use\n",
        _use(manifest, name),
        "## Reproduce and check\n",
        _reproduce(manifest, name),
    ]
    return "\n".join(parts)


def _licence(wanted: Wanted) -> list[str]:
    said = f"`{wanted.license}`." if wanted.license else "Not stated by who packaged this model: ask before you use it."
    return ["## Licence\n", f"{said}\n"]


def _table(manifest: Manifest) -> str:
    rows = [f"| {f.title} | {f.value:.4f} | {f.words or ''} | {f.where} |" for f in figures(manifest)]
    if (parity := manifest.parity) is not None and parity.sqnr_db is not None:
        rows.append(
            f"| SQNR to the float32 model, worst output | {parity.sqnr_db:.1f} dB | | {parity.count} golden images |"
        )
    if not rows:
        return "No labelled images were given when it was made, so nothing was measured.\n"
    return "\n".join(["| figure | value | 95 % interval | measured on |", "|---|---|---|---|", *rows]) + "\n"


def _preprocessing(manifest: Manifest) -> str:
    record = manifest.preprocess
    words = [f"- size: {record.size}", f"- mean: {record.mean}", f"- std: {record.std}", f"- colour: {record.color}"]
    return "\n".join([*words, "", "`manifest.json` has the whole record; `ghostdeploy` applies it."]) + "\n"


def _use(manifest: Manifest, name: str) -> str:
    row = targets.find(manifest.target)
    call = 'model.classify("image.jpg", k=5)' if manifest.task.name == "classify" else 'model.predict("image.jpg")'
    return (
        f'```\npip install "{row.runtime_requirement}"\n```\n\n```python\nimport ghostdeploy as gd\n\n'
        f'with gd.load("{name}") as model:\n    print({call})\n```\n'
    )


def _reproduce(manifest: Manifest, name: str) -> str:
    tools = ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items())
    lines = [f"- weights: {manifest.model.source}, SHA-256 `{manifest.model.weights_sha256 or 'not recorded'}`"]
    if (quantized := manifest.quantization) is not None and (images := quantized.calibration) is not None:
        lines.append(f"- calibration: {images.count} images, SHA-256 `{images.sha256}`")
    flag = "" if manifest.precision == "fp32" else f" --{manifest.precision}"
    return (
        "\n".join([*lines, f"- made with {tools}", f"- digest of the manifest: `{manifest.digest}`"])
        + f"\n\n```\nghostdeploy verify {name}                     # hashes, golden vectors, preprocessing\n"
        f"ghostdeploy export MODEL -t {manifest.target}{flag}   # with the weights and images above\n```\n"
    )
