"""`history`: what happened in a period, from Kraken's REST history, as records of type ``backfill``.

It needs no WebSocket, no token and no state. Kraken's pages are newest first and the records are oldest first, so
everything is read into a spool before anything is written. Read :mod:`kraken_feed.query.reader` first.
"""
