"""Place, change and cancel orders over Kraken's authenticated WebSocket: ``kraken-feed call``.

The only package that can change an account. A tail never loads it.

Read ``call`` first.
"""
