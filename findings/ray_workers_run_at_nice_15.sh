#!/usr/bin/env bash
# Ray's workers have a lower priority than the program that starts them.
#
# Expected: processes that a program starts have its priority, as those of multiprocessing have.
# Seen, ray 2.60.0: a worker of a local cluster runs at nice 15 though the driver runs at nice 0, and nothing says so. On an
#   idle machine nothing is lost; beside any other work a worker gets a thirtieth of its share, so that a data-parallel
#   evaluation by two workers takes longer than one process. RAY_worker_niceness=0 in the environment of the driver helps.
# Exits 0 while this holds, 1 when it changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'ray==2.60.0'

cat >"$folder/program.py" <<'PROGRAM'
import os
import sys

import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="critical")


@ray.remote
def niceness():
    return os.getpriority(os.PRIO_PROCESS, 0)


own, found = os.getpriority(os.PRIO_PROCESS, 0), ray.get(niceness.remote())
print("driver", own, "worker", found)
sys.exit(found - own != int(sys.argv[1]))
PROGRAM
cd "$folder"
export RAY_USAGE_STATS_ENABLED=0
venv/bin/python program.py 15
RAY_worker_niceness=0 venv/bin/python program.py 0
echo "a worker runs at nice 15 unless it is asked for 0"
