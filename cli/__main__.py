"""``python -m icgn.cli``: the command line, also under torchrun and accelerate launch."""

from icgn.cli.main import main

if __name__ == "__main__":
    main()
