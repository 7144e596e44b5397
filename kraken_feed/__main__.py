"""``python -m kraken_feed``: the command, where its script is not on the path."""

from .cli import main

main()
