"""Answer REST calls out of the world's state, without HTTP on a socket.

Checks in Kraken's order, methods, pages of the history. It knows no connections.

Read ``api`` first.
"""
