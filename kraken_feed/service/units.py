"""Print the files that make a service of the command: the unit, its user, the drop-in for newer systemds.

They are shipped as text beside this module, in ``unit/``. The command's path is inserted into the unit.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
from importlib import resources

from ..errors import UsageError
from ..telemetry.stderr import Stderr
from ..text import printable

FILES = {"service": "kraken-feed@.service", "sysusers": "sysusers.conf", "drop-in": "drop-in.conf"}
PLACE = "@command@"  # in the unit, for the command's path

# The directories that ProtectHome= and PrivateTmp= of the unit hide from the service.
HIDDEN = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108  # names to warn of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", nargs="?", choices=tuple(FILES), default="service", metavar="FILE",
        help="service (default): the unit; sysusers: its user; drop-in: a growing wait between restarts, for systemd "
        "254 and newer",
    )  # fmt: skip
    parser.add_argument("--exec", metavar="PATH", help="the command that the service runs (default: this one)")


def compose(arguments: argparse.Namespace) -> str:
    """Return the file that the options of :func:`add_arguments` ask for. Warn if its command could not run."""
    command = arguments.exec or installed_command()
    content = text(arguments.file, command).rstrip("\n")
    unseen = hidden(command) if arguments.exec else hidden(command, sys.executable)
    if arguments.file == "service" and unseen is not None:
        Stderr(sys.stderr).warning(
            f"kraken-feed: the service cannot run {printable(unseen)}: the unit hides that directory from it.\n"
            "  Install into /opt/kraken-feed, with a Python that is not in a home directory."
        )
    return content


def text(file: str, command: str) -> str:
    """Return one of :data:`FILES`, ready to be installed."""
    content = resources.files(__package__).joinpath("unit", FILES[file]).read_text(encoding="utf-8")
    return content.replace(PLACE, exec_word(command))


def exec_word(path: str) -> str:
    """Return an absolute path as the first word of ``ExecStart=``: systemd.service(5), "Command lines".

    Raises:
        UsageError: systemd would not accept it.
    """
    if not path.startswith("/") or not path.isprintable() or any(c in "\"'\\" for c in path):
        raise UsageError(
            f"--exec: systemd would not run {printable(path)}.",
            remedy="Give an absolute path, such as /opt/kraken-feed/bin/kraken-feed.",
        )
    escaped = path.replace("%", "%%")
    return f'"{escaped}"' if " " in escaped else escaped


def installed_command() -> str:
    """Return the path of the installed command, also if the program was started as ``python -m kraken_feed``."""
    script = os.path.join(sysconfig.get_path("scripts"), "kraken-feed")
    return script if os.path.exists(script) else os.path.abspath(sys.argv[0])


def hidden(*paths: str) -> str | None:
    """Return the first of the paths that the service could not see, symbolic links followed; None if it sees all."""
    for path in paths:
        for place in (path, os.path.realpath(path)):
            if place.startswith(HIDDEN):
                return place
    return None
