"""qsmnet: learned dipole inversion in quantitative susceptibility mapping (QSM)."""

import os

# Transparent huge pages make 256^3 FFTs about twice as fast; torch reads this once, at its first
# import.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
