"""Decide where the checkpoint of an output is kept, and under which name.

A checkpoint says what one output holds. So each output has a file of its own for each account, and its name has both:
``main@%var%log%fills.jsonl.sqlite3`` belongs to the account ``main`` and to ``/var/log/fills.jsonl``,
``main@stdout.sqlite3`` to a pipe. What only looks at the feed (a terminal, ``--once``) has none.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from typing import Literal
from zlib import crc32

import msgspec

STDOUT = "stdout"  # the name of a pipe or socket, which has none of its own
LONGEST = 150  # bytes of an output's name: with the account (64) and the suffixes, a file's name has at most 255

Kind = Literal["file", "stream", "terminal"]


class Place(msgspec.Struct, frozen=True):
    """Where the checkpoints of one output are: the directory, and the output's name in the names of the files.

    ``of_service``: the directory is a service's own, so an earlier version's file there belongs to this output.
    """

    directory: str
    output: str
    of_service: bool = False

    def name(self, account: str) -> str:
        """Return the name of the account's files, without their suffixes."""
        return f"{account}@{self.output}"


def kind_of(path: str, fd: int = 1) -> Kind:
    """Return what ``path`` is: a regular file (also one that does not exist yet), a terminal, or a pipe, a socket or
    another device (``stream``). ``-`` is the descriptor ``fd``."""
    try:
        mode = (os.fstat(fd) if path == "-" else os.stat(path)).st_mode
    except OSError:  # it will be made, or opening it says what is wrong
        return "file"
    if stat.S_ISREG(mode):
        return "file"
    return "terminal" if stat.S_ISCHR(mode) and _is_terminal(path, fd) else "stream"


def _is_terminal(path: str, fd: int) -> bool:
    if path == "-":
        return os.isatty(fd)
    try:
        opened = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.isatty(opened)
    finally:
        os.close(opened)


def output_name(path: str, fd: int = 1) -> str:
    """Return the name of an output in the names of its state files. It is unique, and says which output it is.

    A file's name is its absolute path with ``%`` instead of ``/``. A symbolic link keeps its own name, since it may
    lead to another file after a rotation; one of the system's, like /dev/stdout, does not.
    """
    if kind_of(path, fd) != "file":
        return STDOUT if path == "-" or _is_alias(path) else _escaped(_absolute(path))
    if path == "-":
        return _escaped(found) if (found := _path_of(fd)) else f"{STDOUT}-{_identity(fd)}"
    return _escaped(os.path.realpath(path) if _is_alias(path) else _absolute(path))


def place_for(
    path: str, *, asked: str | None, configured: str, environ: Mapping[str, str], fd: int = 1
) -> Place | None:
    """Return where the checkpoint of an output is kept; None if it has none.

    A regular file always has one. A pipe or a socket has one only if a directory is named: by ``--state`` (``asked``),
    in the configuration, or by a service manager. A terminal has none.
    """
    kind, service = kind_of(path, fd), _of_service(environ)
    named = asked or configured or service
    if kind == "terminal" or (kind == "stream" and not named):
        return None
    directory = os.path.expanduser(named or _of_user(environ))
    return Place(directory, output_name(path, fd), of_service=bool(service) and directory == service)


def program_place(directory: str | None, name: str, *, configured: str, environ: Mapping[str, str]) -> Place | None:
    """Return where the checkpoint of a program that iterates over records is kept; None if no directory is named."""
    named = directory or configured or _of_service(environ)
    return Place(os.path.expanduser(named), name) if named else None


def default_directory(environ: Mapping[str, str]) -> str:
    """Return the directory of the state if none is named: systemd's, or the user's."""
    return _of_service(environ) or _of_user(environ)


def names_in(directory: str, account: str) -> list[str]:
    """Return the names of the account's states in a directory, without their suffixes."""
    with contextlib.suppress(OSError):
        files = sorted(os.listdir(directory))
        return [f.removesuffix(".sqlite3") for f in files if f.startswith(f"{account}@") and f.endswith(".sqlite3")]
    return []


def _of_service(environ: Mapping[str, str]) -> str:
    """Return the directory that systemd has made for a service, of several the first; empty if there is none."""
    return environ.get("STATE_DIRECTORY", "").partition(":")[0]


def _of_user(environ: Mapping[str, str]) -> str:
    home = environ.get("XDG_STATE_HOME") or os.path.join(environ.get("HOME", "/var/lib"), ".local", "state")
    return os.path.join(home, "kraken-feed")


def _absolute(path: str) -> str:
    directory, name = os.path.split(os.path.abspath(path))
    return os.path.join(os.path.realpath(directory), name)


def _is_alias(path: str) -> bool:
    """Return whether the path is the system's name for an open file: /dev/stdout, /dev/fd/1, /proc/self/fd/1."""
    return os.path.abspath(path).startswith(("/dev/std", "/dev/fd/", "/proc/"))


def _path_of(fd: int) -> str:
    """Return the path of an open file; empty if it has none any more, or the system does not tell."""
    try:
        path = os.path.realpath(f"/dev/fd/{fd}")
        here, there = os.fstat(fd), os.stat(path)
    except OSError:
        return ""
    return path if os.path.samestat(here, there) and path != f"/dev/fd/{fd}" else ""


def _identity(fd: int) -> str:
    status = os.fstat(fd)
    return f"{status.st_dev}-{status.st_ino}"


def _escaped(path: str) -> str:
    """Return a path as part of a file's name. One that is too long, or has other than printable characters, is
    shortened at its beginning, and gets a checksum."""
    name = path.replace("%", "%%").replace("/", "%")
    raw = os.fsencode(name)
    if name.isprintable() and len(raw) <= LONGEST:
        return name
    shown = "".join(c if c.isprintable() else "?" for c in raw.decode("utf-8", "replace"))
    tail = shown.encode()[-(LONGEST - 10) :].decode("utf-8", "ignore")
    return f"%…{tail}~{crc32(raw):08x}"
