"""The command, as a script and as ``python -m kraken_feed``. Its first lines see to signals; the rest follows."""

import sys

from . import early

early.receive(sys.argv[1:])

from .cli.main import main  # noqa: E402  # signals first: loading takes long enough for one to come

if __name__ == "__main__":
    main()
