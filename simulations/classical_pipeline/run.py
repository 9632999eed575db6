"""Every stage of the classical pipeline on simulated heads: see README.md."""

from pathlib import Path

from qsmnet.cli.stages import run

if __name__ == "__main__":
    run(Path(__file__).parent, str(__doc__))
