"""Keep an account's orders, fills, balances and entries, and the truth about all of them.

No connection, no request, no fault: what an exchange would have if nobody were connected to it. Numbers, ids and times
are also written here as Kraken writes them.

Read ``order`` first, then ``book``.
"""
