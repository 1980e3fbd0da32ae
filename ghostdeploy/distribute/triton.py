"""A repository of NVIDIA's Triton Inference Server: `NAME/config.pbtxt`, `NAME/labels.txt`, `NAME/VERSION/…`.

The configuration is protobuf text, message `ModelConfig` of Triton's `model_config.proto`. Dimensions are those of the
payload, batch included (`max_batch_size: 0`), where it is built for one batch; a payload that takes any batch leaves
Triton to gather requests (`dynamic_batching`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from ghostdeploy.distribute.forms import Packaged, Wanted, name_of, require_served
from ghostdeploy.distribute.versions import add_version
from ghostdeploy.errors import UsageError
from ghostdeploy.files import write_whole

if TYPE_CHECKING:
    from ghostdeploy.bundle.folder import Bundle
    from ghostdeploy.bundle.manifest import Manifest, TensorSpec
    from ghostdeploy.target import Served

CONFIG = "config.pbtxt"
_LABELS = "labels.txt"
_MOST_TOGETHER = 16
"""Requests that Triton may gather for one call."""
_TYPES = {
    "bool": "TYPE_BOOL",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "uint8": "TYPE_UINT8",
}


def make(bundle: Bundle, wanted: Wanted) -> Packaged:
    """Adds a version to a repository; see `distribute.forms.package`."""
    served = require_served(bundle, "triton", "Triton")
    name = name_of(bundle, wanted)
    folder = wanted.out / name
    text = config(name, bundle.manifest, served)
    version, new = add_version(folder, bundle)
    if bundle.manifest.model.num_classes:
        write_whole(folder / _LABELS, "".join(f"{label}\n" for label in bundle.labels()).encode(), what="the labels")
    write_whole(folder / CONFIG, text.encode(), what="the configuration")
    return Packaged(
        bundle=str(bundle.path),
        form="triton",
        name=name,
        version=version.name,
        path=str(version),
        new=new,
        note=served.note,
    )


def config(name: str, manifest: Manifest, served: Served) -> str:
    """Returns `config.pbtxt`."""
    together = manifest.inputs[0].shape[0] is None
    lines = [
        f"name: {_quoted(name)}",
        f"backend: {_quoted(served.backend)}",
        f"default_model_filename: {_quoted(manifest.payload)}",
        f"max_batch_size: {_MOST_TOGETHER if together else 0}",
        *(line for spec in manifest.inputs for line in _tensor("input", spec, together=together)),
    ]
    for number, spec in enumerate(manifest.outputs):
        labels = [f"  label_filename: {_quoted(_LABELS)}"] if number == 0 and manifest.model.num_classes else []
        lines += _tensor("output", spec, together=together, more=labels)
    lines += ["instance_group {", "  kind: KIND_CPU", "  count: 1", "}"]
    if together:
        lines += ["dynamic_batching {", "}"]
    for key, value in served.settings:
        lines += ["parameters {", f"  key: {_quoted(key)}", f"  value {{ string_value: {_quoted(value)} }}", "}"]
    return "\n".join(lines) + "\n"


def _tensor(kind: str, spec: TensorSpec, *, together: bool, more: list[str] | None = None) -> list[str]:
    shape = spec.shape[1:] if together else spec.shape
    dims = ", ".join("-1" if size is None else str(size) for size in shape)
    if spec.dtype not in _TYPES:
        raise UsageError(f"Triton has no data type {spec.dtype}, which {spec.name!r} has", hint="use another form")
    body = [f"  name: {_quoted(spec.name)}", f"  data_type: {_TYPES[spec.dtype]}", f"  dims: [ {dims} ]"]
    return [f"{kind} {{", *body, *(more or []), "}"]


def _quoted(text: str) -> str:
    """Returns a string of protobuf text, whose escapes are those of JSON; other characters stand for themselves."""
    return json.dumps(text, ensure_ascii=False)
