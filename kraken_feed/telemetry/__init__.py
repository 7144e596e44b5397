"""Report the program's condition: loggers, stderr, the status line and the figures.

The home of structlog. Nothing here is a record.

Read ``loggers`` first.
"""
