"""Report the program's condition: loggers, stderr, the status line and the figures.

Only this package imports structlog; the others use its types. Nothing here is a record.

Read ``loggers`` first.
"""
