"""``python -m qsmnet.cli``."""

import sys

from qsmnet.cli import main

sys.exit(main())
