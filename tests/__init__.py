"""The tests, sorted by what they cost; inside a directory they mirror the packages.

- :mod:`tests.unit`: pure functions, and files of their own; all together take seconds.
- :mod:`tests.virtual`: the feed through hours of virtual time.
- :mod:`tests.command`: the installed command, real sockets, signals.
- :mod:`tests.stress`: long on purpose: chaos, attacks, soak, rotate, storm, full disks.
- :mod:`tests.support`: what several of them need.
- ``tests/frames``: Kraken's frames, from public sources.
"""
