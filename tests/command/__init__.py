"""Tests of the installed command and of programs: processes, real sockets, signals, tools of the system."""
