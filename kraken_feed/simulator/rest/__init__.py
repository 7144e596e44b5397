"""Answer REST calls from the world's state, without HTTP on a socket.

It has the checks in Kraken's order, the methods, and the pages of the history. It does not know connections.

Read ``api`` first.
"""
