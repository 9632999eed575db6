"""What each part of the unrolled network, and of its training data, is worth: see README.md."""

from pathlib import Path

from qsmnet.cli.ablations import run

if __name__ == "__main__":
    run(Path(__file__).parent, str(__doc__))
