"""What the premises of a tail mean for it: facts in, one finding an item out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from .clock import span
from .config import Config
from .errors import OutputFailed, StateFailed, Transient
from .findings import Finding
from .record import timestamp

NS = 1_000_000_000
GIB = 1024**3
MIB = 1024**2

OUTPUT_BYTES = GIB  # two million records: days to act, for most accounts
STATE_BYTES = 64 * MIB  # the checkpoint of a busy account, and what SQLite keeps beside it
FULL_BYTES = MIB  # less is no room at all


# ------------------------------------------------------------------------------------------------ configuration


def configuration(config: Config, path: str | None, given: Mapping[str, tuple[object, str]]) -> Finding:
    """The configuration that counts: its file, and every value that is not the default, with where it comes from.

    ``given`` has what wins over the file: by key, the value and the option or variable that said it.
    """
    file = path or "the configuration"
    values = {key: (value, file) for key, value in _differences(config, Config())} | dict(given)
    lines = [f"{key} = {_shown(value)}  ({'the file' if origin == path else origin})"
             for key, (value, origin) in values.items()]  # fmt: skip
    facts = {
        "file": path,
        "values": [{"key": key, "value": value, "from": origin} for key, (value, origin) in values.items()],
    }
    return Finding("OK", "configuration", path or "no file: the defaults", "\n".join(lines), facts=facts)


def _differences(ours: msgspec.Struct, default: msgspec.Struct, prefix: str = "") -> list[tuple[str, object]]:
    """Path and value of everything that differs. Of an account only where its credentials are looked for: a command
    may hold what must not be shown."""
    found: list[tuple[str, object]] = []
    for name, value in msgspec.structs.asdict(ours).items():
        if value == getattr(default, name):
            continue
        if name == "accounts":
            for account, table in value.items():
                keys = [key for key, place in msgspec.structs.asdict(table).items() if place is not None]
                found.append((f"accounts.{account}", keys))
        elif isinstance(value, msgspec.Struct):
            found += _differences(value, getattr(default, name), f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", list(value) if isinstance(value, tuple) else value))
    return found


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "(empty)"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)


# ------------------------------------------------------------------------------------------------ the network


def unreachable(endpoint: str, where: str, phase: str, why: str, *, proxy: str = "") -> Finding:
    """A host that a connection does not get to; ``phase`` is where it failed."""
    what = {
        "DNS": f"The name {where} cannot be looked up.",
        "TCP": f"No connection to {where}.",
        "TLS": f"{where} cannot prove that it is the right one (TLS).",
        "HTTP": f"{where} is reached, but does not answer as it should.",
    }[phase]
    through = f" {where} is the proxy that {proxy} names." if proxy else ""
    return Finding(
        "FAIL",
        endpoint,
        what,
        (f"{phase}: {why}." if why else f"{phase}.") + through,
        _tls_remedy(why) if phase == "TLS" else _network_remedy(endpoint, phase, proxy),
        facts={"phase": phase},
        exit_code=Transient.exit_code,
    )


def _network_remedy(endpoint: str, phase: str, proxy: str) -> str:
    if proxy:
        return f"Look at {proxy} in the environment, and at the proxy."
    if phase == "DNS":
        return f"Is the network up, and the name server right (/etc/resolv.conf)? And endpoints.{endpoint}?"
    if phase == "TCP":
        return f"Is the network up, and does a firewall let it out? And is endpoints.{endpoint} right?"
    return "Wait some minutes and check again; https://status.kraken.com says if it is Kraken."


def _tls_remedy(why: str) -> str:
    if "expired" in why or "not yet valid" in why:
        return "Is this machine's date right? Else a program on the way answers in Kraken's place."
    if "mismatch" in why:
        return "Something else answers in Kraken's place: a captive portal, a proxy, a wrong /etc/hosts?"
    if "certificate" not in why:
        return "Something on the way cuts TLS connections: a firewall, or a proxy that the environment does not name."
    return (
        "Install the system's certificates (ca-certificates). If a proxy here opens TLS on purpose, name its "
        "certificate: SSL_CERT_FILE=/path/to/ca.pem. Trust cannot be switched off."
    )


# ------------------------------------------------------------------------------------------------ the places


def output(path: str, problem: str, *, made: bool, size: int, torn: int, free: int | None, more_files: bool) -> Finding:
    """The file that records go to; ``made`` is whether a start makes it."""
    facts = {"path": path, "size": size, "torn": torn, "free": free}
    code = OutputFailed.exit_code
    if problem:
        return Finding(
            "FAIL", "output", f"{path} cannot be written.", f"{problem}.",
            "Check the path and its permissions, or give another with --output.", facts=facts, exit_code=code,
        )  # fmt: skip
    if (free is not None and free < FULL_BYTES) or (made and not more_files):
        why = f"{_bytes(free or 0)} are free." if more_files else "It has no room for another file (inodes)."
        return Finding("FAIL", "output", f"The disk of {path} is full.", why, "Make room.", facts=facts, exit_code=code)
    if torn:
        return Finding(
            "WARN", "output", f"The last line of {path} is torn: {torn} bytes without an end.",
            "A kill or a crash has left it, unless a tail is writing this moment.",
            f"Nothing to do: a tail moves it to {path}.torn at its start.", facts=facts,
        )  # fmt: skip
    if free is not None and free < OUTPUT_BYTES:
        return Finding(
            "WARN", "output", f"Only {_bytes(free)} are free for {path}.",
            remedy="Make room before it is full: the tail waits for space, as long as output.patience_s, and then ends "
            "(exit code 74).", facts=facts,
        )  # fmt: skip
    room = "" if free is None else f", {_bytes(free)} free"
    state = "will be made" if made else f"appended to ({_bytes(size)})" if free is not None else "is no regular file"
    return Finding("OK", "output", f"{path}: {state}{room}", facts=facts)


def sync(method: str) -> Finding:
    """How records get to the disk on this platform: ``fdatasync``, or what stands in for it."""
    facts = {"method": method}
    if method == "fdatasync":
        return Finding("OK", "disk sync", "fdatasync brings records to the disk before a checkpoint", facts=facts)
    what = f"This platform has no fdatasync: {method} is used instead"
    if method == "F_FULLFSYNC":
        return Finding("OK", "disk sync", what, facts=facts)
    return Finding(
        "WARN", "disk sync", f"{what}.", "It may leave records in the disk's own cache, which a power cut empties.",
        "Nothing to do where power cuts are ruled out.", facts=facts,
    )  # fmt: skip


def no_time() -> Finding:
    """Kraken's time came out of a cache."""
    return Finding(
        "WARN", "clock", "It cannot be compared with Kraken's.",
        "The answer came from a cache on the way, and its times are those of another one.",
        "Look for a proxy that keeps REST's answers.",
    )  # fmt: skip


def no_state() -> Finding:
    """Nobody wants a checkpoint."""
    return Finding("OK", "state", "none is kept (--no-state): what is missed between two runs stays unknown")


def state_held(path: str, pid: str, saved: str) -> Finding:
    """Another process has the state: a tail that runs."""
    who = f"pid {pid}" if pid else "another process"
    return Finding(
        "WARN", "state", f"A tail of this account is running ({who}).",
        f"{path}: last saved {saved} ago. A second one would end with exit code 75. This check makes a few calls with "
        "the same key, which the running tail may notice, and recovers from.",
        "Nothing to do, unless it should not run.",
        facts={"path": path, "pid": int(pid) if pid else None},
    )  # fmt: skip


def state(
    path: str, *, exists: bool, saved_ns: int, now_ns: int, holes: Sequence[str], damaged: bool, unread: str,
    free: int | None, more_files: bool,
) -> Finding:  # fmt: skip
    """The checkpoint, if nobody has it now. ``holes`` are the channels of outages to be recovered."""
    facts: dict[str, object] = {"path": path, "exists": exists, "holes": len(holes), "free": free}
    if (free is not None and free < FULL_BYTES) or not (exists or more_files):
        return Finding(
            "FAIL", "state", f"The disk of {path} is full.", f"{_bytes(free or 0)} are free.",
            "Make room, or give another directory with --state.", facts=facts, exit_code=StateFailed.exit_code,
        )  # fmt: skip
    if damaged:
        return Finding(
            "WARN", "state", f"{path} is damaged.",
            "A start keeps it under another name and begins without it: the output's last records say what was missed "
            "since the last run. If they cannot, that is declared as a gap.",
            "Put a complete copy in its place, if there is one, before the next start.", facts=facts,
        )  # fmt: skip
    if unread:
        return Finding("WARN", "state", f"{path} could not be looked into.", unread, "Check again.", facts=facts)
    if free is not None and free < STATE_BYTES:
        return Finding(
            "WARN", "state", f"Only {_bytes(free)} are free for {path}.",
            remedy="Make room: without it no checkpoint can be saved.", facts=facts,
        )  # fmt: skip
    if not saved_ns:
        return Finding("OK", "state", f"{path}: {'empty' if exists else 'will be made'}", facts=facts)
    facts["saved"] = timestamp(saved_ns)
    count = f"{len(holes)} outage{'s' * (len(holes) != 1)} to recover"
    wait = f", {count} ({', '.join(dict.fromkeys(holes))})" if holes else ""
    return Finding("OK", "state", f"{path}: last saved {since(saved_ns, now_ns)} ago{wait}", facts=facts)


def since(then_ns: int, now_ns: int) -> str:
    """How long ago, in words."""
    return span(max(now_ns - then_ns, 0) / NS)


def _bytes(count: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
