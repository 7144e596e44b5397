"""One program a client, run in that client's environment: `python -m tests.interop.clients.NAME READY`."""
