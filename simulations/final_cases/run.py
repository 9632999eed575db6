"""Learned against classical inversion on heads and shapes that none has seen: see README.md."""

from pathlib import Path

from qsmnet.cli.cases import run

if __name__ == "__main__":
    run(Path(__file__).parent, str(__doc__))
