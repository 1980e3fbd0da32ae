"""A folder for the Hugging Face Hub: the bundle, a model card, and what git has to keep as large files.

The card says only what the manifest says, and what the command line added: a licence that nobody gave is said to be
missing. Its head is YAML that the Hub reads: results are in `model-index`, a result per figure.
"""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from ghostdeploy.bundle.figures import figures
from ghostdeploy.bundle.staging import staging
from ghostdeploy.distribute.card import text
from ghostdeploy.distribute.forms import Packaged, Wanted, contents, name_of

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle

CARD = "README.md"
ATTRIBUTES = ".gitattributes"
_TEXT = {".json", ".txt", ".md", ".xml", ".param"}
_TAGS = {
    "classify": "image-classification",
    "detect": "object-detection",
    "landmarks": "keypoint-detection",
    "embed": "image-feature-extraction",
    "segment": "image-segmentation",
}
"""The Hub's name of each task; others are named as they are among the tags."""


def make(bundle: Bundle, wanted: Wanted) -> Packaged:
    """Makes the folder; see `distribute.forms.package`."""
    name = name_of(bundle, wanted)
    files = contents(bundle)
    large = sorted({PurePosixPath(path).suffix for path in files} - _TEXT)
    files[ATTRIBUTES] = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in large).encode()
    files[CARD] = (_head(bundle, wanted, name) + text(bundle, wanted, name)).encode()
    with staging(wanted.out, name) as folder:
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
    final = wanted.out / name
    return Packaged(bundle=str(bundle.path), form="huggingface", name=name, version=None, path=str(final), new=True)


def _head(bundle: Bundle, wanted: Wanted, name: str) -> str:
    """Returns the YAML at the beginning: JSON, which is YAML, by line."""
    manifest = bundle.manifest
    tag = _TAGS.get(manifest.task.name)
    fields: dict[str, Any] = {
        "license": (wanted.license or "unknown").lower(),
        "library_name": "ghostdeploy",
        "tags": ["ghostdeploy", manifest.target, manifest.precision, manifest.model.family, manifest.task.name],
    }
    if tag is not None:
        fields["pipeline_tag"] = tag
    measured = figures(manifest)
    results = [
        {
            "type": one.kind,
            "value": one.value,
            "name": f"{one.title}, 95 % {one.words}" if one.words else one.title,
        }
        for one in measured
    ]
    if results and tag is not None:
        data = {"type": "labelled-images", "name": measured[0].where}
        result = {"task": {"type": tag}, "dataset": data, "metrics": results}
        fields["model-index"] = [{"name": name, "results": [result]}]
    return (
        "---\n"
        + "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in fields.items())
        + "---\n"
    )
