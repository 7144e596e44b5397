"""Know what Kraken says, without I/O.

Frames, the session of one connection, error strings, signatures, the key, the clock. Pure: no socket, no disk, and no
clock or randomness of its own.

Read ``session`` first: it is the program.
"""
