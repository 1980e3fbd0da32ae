"""Sets the emulator up, for tests and for machines that shall have it before they lose the network.

python -m ghostdeploy.remote.emulator                           fetches what is missing
python -m ghostdeploy.remote.emulator --pin constraints.txt     pins the wheels anew
"""

from __future__ import annotations

import sys
from pathlib import Path

from ghostdeploy.errors import GhostDeployError
from ghostdeploy.remote.emulator import CORES, prepare
from ghostdeploy.remote.emulator.wheels import regenerate


def main() -> int:
    """Returns the exit code."""
    try:
        if sys.argv[1:2] == ["--pin"]:
            regenerate(Path(sys.argv[2]))
        else:
            sys.stdout.write(f"{prepare(next(iter(CORES))).folder}\n")
    except GhostDeployError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
