#!/usr/bin/env bash
# ncnn's source package cannot be taken from the package index by its version: setup.py gives the day of the build.
#
# Expected: `pip download --no-binary ncnn ncnn==1.0.20261020` gives ncnn-1.0.20261020.tar.gz, as for any source package.
# Seen, pip 23.2.1 with ncnn 1.0.20261020: pip fetches the file, asks it for its metadata, gets the version 1.0.YYYYMMDD of
#   today, and discards it: "Requested ncnn==1.0.20261020 from … has inconsistent version". So a pinned build from
#   source works on the day of the release alone. The address that pip prints, given to pip in place of the version, works.
# Exits 0 while this holds, 1 when any part of it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
pip=(venv/bin/python -m pip --disable-pip-version-check)

echo "pip $(venv/bin/python -c 'import pip; print(pip.__version__)'), ncnn 1.0.20261020"
if "${pip[@]}" download --no-deps --no-binary ncnn --dest by_version ncnn==1.0.20261020 >said 2>&1; then
    echo "changed: pip takes it by its version"
    exit 1
fi
today=$(date +%Y%m%d)
grep -E "inconsistent version|$today" said | head -3 | sed -E 's#(https?|file)://[^ ]*/#…/#g'
grep -q "inconsistent version" said || { echo "changed: pip refuses it for another reason"; tail -5 said; exit 1; }

address=$(grep -oE '(https?|file)://[^ ]+ncnn-1\.0\.20261020\.tar\.gz[^ ),]*' said | head -1)
"${pip[@]}" download --no-deps --no-binary ncnn --dest by_address "$address" >/dev/null 2>&1 && [ -e by_address/ncnn-1.0.20261020.tar.gz ] ||
    { echo "changed: its address does not help"; exit 1; }
echo "as seen before: refused by its version, taken by its address"
