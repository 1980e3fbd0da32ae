"""Starts a child process: `python start_child.py IMPORT_PATH MODULE …`, written by `ghostdeploy.isolation`.

The import path is set before anything is imported from it. The package itself comes from this file's folder, so a child
runs the code of its parent however that was found.
"""

import sys

_OURS = not (getattr(sys.flags, "safe_path", False) or sys.flags.isolated)
"""Python put this file's folder on the import path."""

if __name__ == "__main__":
    if _OURS:
        del sys.path[0]

    import importlib
    import importlib.util
    import json
    from pathlib import Path

    sys.path[:] = json.loads(sys.argv[1])
    home = Path(__file__).resolve().parent
    spec = importlib.util.spec_from_file_location(
        "ghostdeploy", home / "__init__.py", submodule_search_locations=[str(home)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules["ghostdeploy"] = package
    spec.loader.exec_module(package)
    name = sys.argv[2]
    sys.argv[:] = [name, *sys.argv[3:]]
    sys.exit(importlib.import_module(name).main())
