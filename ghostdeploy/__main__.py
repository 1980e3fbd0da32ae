"""`python -m ghostdeploy`, and what the command `ghostdeploy` starts."""

import sys

from ghostdeploy.terminal import interruption


def main() -> None:
    """Runs the command line; Ctrl-C while it is still being imported is no traceback either."""
    try:
        interruption.heed()
        from ghostdeploy.cli import main as run
        from ghostdeploy.terminal.output import own_process
    except KeyboardInterrupt:
        sys.exit(interruption.exit_code())
    own_process()
    run()


if __name__ == "__main__":
    main()
