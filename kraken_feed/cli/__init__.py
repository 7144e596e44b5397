"""Turn argv into an exit code.

The command line and what its commands print. Nothing heavy is imported before the arguments are parsed.

Read ``main`` first.
"""
