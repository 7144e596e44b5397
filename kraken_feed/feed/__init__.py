"""Keep channels live, recover outages and write the checkpoint.

The policy of a tail. What Kraken says is in ``protocol``, sockets are in ``transport``.

Read ``endpoint`` first, then ``recovery``.
"""
