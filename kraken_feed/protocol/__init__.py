"""Know what Kraken says, without I/O.

Frames, the session of one connection, error strings, signatures, an API key's settings and permissions. Pure: no
socket, no disk, and no clock or randomness of its own.

Read ``session`` first: it is the program.
"""
