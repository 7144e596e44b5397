"""Keep an account's orders, fills, balances and entries, and the record of what truly happened.

There are no connections, requests or faults here, only what an exchange has without clients. Numbers, ids and times are
also written here as Kraken writes them.

Read ``order`` first, then ``book``.
"""
