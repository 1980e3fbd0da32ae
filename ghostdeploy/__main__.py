"""Entry point of `python -m ghostdeploy` and of the command `ghostdeploy`."""

import sys

from ghostdeploy import waiting
from ghostdeploy.terminal import interruption


def main() -> None:
    """Runs the command line; Ctrl-C during the import does not print a traceback either."""
    try:
        interruption.heed()
        waiting.wait_asleep()
        from ghostdeploy.cli import main as run
        from ghostdeploy.terminal.output import own_process
    except KeyboardInterrupt:
        sys.exit(interruption.exit_code())
    own_process()
    run()


if __name__ == "__main__":
    main()
