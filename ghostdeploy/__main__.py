"""`python -m ghostdeploy`."""

from ghostdeploy.cli import main

if __name__ == "__main__":
    main()
