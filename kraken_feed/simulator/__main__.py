"""Run the simulator as ``python -m kraken_feed.simulator``."""

import sys

from .main import main

if __name__ == "__main__":
    sys.exit(main())
