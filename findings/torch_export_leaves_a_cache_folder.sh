#!/usr/bin/env bash
# torch.export leaves a compiler's cache folder in TMPDIR, and a variable in the environment that points to it.
#
# Expected: torch.export.export records a graph and compiles nothing, so it leaves TMPDIR and os.environ as they were.
# Seen: torch 2.13.0, CPU. After the export of one convolution TMPDIR holds an empty `torchinductor_<user>`, and
#   TORCHINDUCTOR_CACHE_DIR is set for this process and all children it starts later. A later change of TMPDIR has no
#   effect on them; a service whose TMPDIR must stay empty, or is read-only afterwards, finds a folder it never asked for.
# Exits 0 while this holds, 1 when any part of it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6 torch==2.13.0

mkdir "$folder/tmp"
cd "$folder"
env -u TORCHINDUCTOR_CACHE_DIR TMPDIR="$folder/tmp" "$folder/venv/bin/python" - <<'PROGRAM'
import os
import sys
import tempfile

import torch

place = tempfile.gettempdir()
imported = sorted(os.listdir(place)), sorted(os.environ)
torch.export.export(torch.nn.Conv2d(3, 8, 3), (torch.rand(1, 3, 8, 8),))
left = [name for name in sorted(os.listdir(place)) if name not in imported[0]]
added = [name for name in sorted(os.environ) if name not in imported[1]]

print("torch", torch.__version__.split("+")[0])
print("after the import:", imported[0] or "nothing")
print("left by the export:", [name.split("_")[0] + "_<user>" for name in left], "holding", os.listdir(f"{place}/{left[0]}") if left else None)
print("variables set:", added)
as_seen = [name.split("_")[0] for name in left] == ["torchinductor"] and "TORCHINDUCTOR_CACHE_DIR" in added
print("as seen before" if as_seen else "CHANGED: not what was seen before")
sys.exit(not as_seen)
PROGRAM
