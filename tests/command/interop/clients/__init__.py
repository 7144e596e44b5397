"""One program a client, run in that client's environment: `python -m tests.command.interop.clients.NAME READY`."""
