"""A repository of OpenVINO Model Server: `NAME/VERSION/…` and `config.json`, the list of models.

Entries of other models in `config.json` stay as they are. `plugin_config` holds what our runtime sets: without the
precision hint OpenVINO computes in bfloat16 where the processor can, and the figures are not those that were proven.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ghostdeploy.distribute.forms import Packaged, Wanted, name_of, require_served
from ghostdeploy.distribute.versions import add_version
from ghostdeploy.errors import UsageError
from ghostdeploy.files import is_there, read_limited, write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from ghostdeploy.bundle.folder import Bundle

CONFIG = "config.json"
_LIST = "model_config_list"
_MAX_CONFIG = 4 << 20


def make(bundle: Bundle, wanted: Wanted) -> Packaged:
    """Adds a version to a repository; see `distribute.forms.package`."""
    served = require_served(bundle, "ovms", "OpenVINO Model Server")
    name = name_of(bundle, wanted)
    before = _read(wanted.out / CONFIG)
    version, new = add_version(wanted.out / name, bundle)
    base = (wanted.base_path or str(wanted.out.absolute())).rstrip("/")
    entry = {"name": name, "base_path": f"{base}/{name}", "plugin_config": dict(served.settings)}
    others = [one for one in before[_LIST] if one.get("config", {}).get("name") != name]
    after = before | {_LIST: [*others, {"config": entry}]}
    write_whole(wanted.out / CONFIG, json.dumps(after, indent=2).encode() + b"\n", what="the configuration")
    return Packaged(bundle=str(bundle.path), form="ovms", name=name, version=version.name, path=str(version), new=new)


def _read(path: Path) -> dict[str, Any]:
    """Returns the configuration that is there, or an empty one."""
    if not is_there(path):
        return {_LIST: []}
    try:
        found = json.loads(read_limited(path, _MAX_CONFIG))
        models = found.get(_LIST, [])
        if all(isinstance(one.get("config", {}), dict) for one in models):
            return {**found, _LIST: list(models)}
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        pass
    raise UsageError(f"{path} is no configuration of OpenVINO Model Server, not replaced", hint="choose another --out")
