"""Run the command, as a script or as ``python -m kraken_feed``. The first lines install signal handlers."""

import sys

from . import early

early.receive(sys.argv[1:])

from .cli.main import main  # noqa: E402  # signals first: loading takes long enough for one to come

if __name__ == "__main__":
    main()
