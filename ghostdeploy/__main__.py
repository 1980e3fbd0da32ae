"""`python -m ghostdeploy`, and what the command `ghostdeploy` starts."""

import sys

INTERRUPTED = 130


def main() -> None:
    """Runs the command line; Ctrl-C while it is still being imported is no traceback either."""
    try:
        from ghostdeploy.cli import main as run
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    run()


if __name__ == "__main__":
    main()
