"""``python -m icgn``: the command line."""

from icgn.cli import main

if __name__ == "__main__":
    main()
