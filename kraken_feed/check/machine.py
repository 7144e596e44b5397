"""Judge what the state of this machine means for a tail: take facts, return one result per item."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from ..config.schema import Config
from ..errors import ConfigError, OutputFailed, StateFailed, Transient
from ..output import descriptors
from ..output.file import whole_lines
from ..records.render import timestamp
from ..state.checkpoint import Checkpoint
from ..state.store import Store, holder, unusable
from ..text import counted
from ..transport.backoff import Budget, limit_if_exceeded
from ..transport.kraken_clock import NS
from .report import CheckResult, failed

# -- our clock compared with Kraken's

DEADLINE_S = 60.0  # the latest deadline that Kraken accepts for an order
TLS_S = 30 * 86400.0  # certificates of Kraken's edge are good for about three months
WARN_S = 2.0  # time synchronisation keeps a machine well below a second


class Offset(NamedTuple):
    """How many seconds our clock is ahead of Kraken's, as a lower and an upper bound."""

    low: float
    high: float

    @property
    def least(self) -> float:
        """The smallest offset that is possible, with its sign; 0 if the clocks may agree."""
        return max(self.low, 0.0) + min(self.high, 0.0)


def offset(wall_ns: int, earliest_ns: int, latest_ns: int) -> Offset:
    """Return the offset, from our clock and the bounds of Kraken's time at the same moment."""
    return Offset((wall_ns - latest_ns) / NS, (wall_ns - earliest_ns) / NS)


def judge(found: Offset) -> CheckResult:
    """Report how far off the clock is, and what that affects."""
    off = found.least
    facts = {"offset_s": [round(found.low, 3), round(found.high, 3)], "uncertainty_s": round(found.high - found.low, 3)}
    bounds = f"offset between {found.low:+.1f} s and {found.high:+.1f} s"
    if abs(off) < WARN_S:
        return CheckResult("OK", "clock", f"agrees with Kraken's: {bounds}", facts=facts)
    about = span(abs(found.low + found.high) / 2)
    what = f"The clock is about {about} {'ahead of' if off > 0 else 'behind'} Kraken's ({bounds})."
    return CheckResult(
        "WARN", "clock", what, " ".join(_suffers(off)),
        "Set the clock, and enable time synchronisation (timedatectl set-ntp true, or chrony).", facts=facts,
    )  # fmt: skip


def _suffers(off: float) -> list[str]:
    """Return the effects of a clock that is ``off`` seconds ahead, in words."""
    said = [
        "A tail loses no events: it keeps outages in Kraken's time. The times of records (ts) are wrong by as much."
    ]
    if off > 0:
        said.append("The key's nonces are ahead, too: Kraken refuses other programs that use the key.")
    else:
        said.append("The key's nonces are behind: Kraken refuses them if the key has used higher ones.")
    if abs(off) >= DEADLINE_S:
        said.append("`call` may refuse valid deadlines, or accept expired ones.")
    if abs(off) >= TLS_S:
        said.append("TLS certificates may count as expired, or as not yet valid.")
    return said


def span(seconds: float) -> str:
    """Return a span of time in words."""
    for unit, name in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes")):
        if seconds >= 1.5 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


# -- the output and the state, checked without changing them

Kind = Literal["file", "missing", "device", "directory"]


class Room(NamedTuple):
    """The free space of a file system: bytes (None: unknown), and whether one more file can be made."""

    free: int | None = None
    more_files: bool = True

    def full(self, *, made: bool) -> bool:
        """Return whether there is no space to write; ``made``: a start creates the file."""
        return (self.free is not None and self.free < FULL_BYTES) or (made and not self.more_files)


class Output(NamedTuple):
    """The file of ``--output``. ``problem`` is why it cannot be written, in the system's words; empty if it can.
    ``torn`` is the length of a last line without a line feed."""

    path: str
    kind: Kind
    problem: str = ""
    size: int = 0
    torn: int = 0
    room: Room = Room()


class State(NamedTuple):
    """The checkpoint's file. ``locked``: another process has it; ``pid``: which one, if that is known.

    ``saved_ns`` (unix time) is when the file was last written; 0: never. ``damaged``: a start would set it aside.
    """

    directory: str
    path: str
    exists: bool = False
    problem: ConfigError | None = None
    locked: bool = False
    pid: str = ""
    saved_ns: int = 0
    checkpoint: Checkpoint | None = None
    damaged: bool = False
    unread: str = ""
    room: Room = Room()


def look_at_output(path: str) -> Output:
    """Return the state of the output. Nothing is created, and only a regular file is opened for writing."""
    try:
        status = os.stat(path)
    except FileNotFoundError as error:
        if not path:
            return Output(path, "missing", str(error.strerror))
        parent = os.path.dirname(path) or "."
        return Output(path, "missing", _cannot_make_in(parent), room=_room(parent))
    except OSError as error:
        return Output(path, "missing", str(error.strerror))
    if stat.S_ISDIR(status.st_mode):
        return Output(path, "directory", os.strerror(errno.EISDIR))
    if not stat.S_ISREG(status.st_mode):  # a FIFO's reader would see our open and close as its end
        return Output(path, "device", "" if _access(path, os.W_OK) else _why_not(path))
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
        whole = whole_lines(path, status.st_size)  # None: the file is not ours
    except OSError as error:
        return Output(path, "file", str(error.strerror), status.st_size)
    torn = 0 if whole is None else status.st_size - whole
    return Output(path, "file", "", status.st_size, torn, _room(path))


def look_at_state(directory: str, name: str, now_ns: int) -> State:
    """Return the state with that name as a start would find it.

    A copy is opened, since SQLite creates files even if it only reads. The lock is tried for microseconds, which only a
    start at the same moment would notice.
    """
    base = os.path.join(directory, name)
    state = State(directory, f"{base}.sqlite3", room=_room(directory))
    problem = _unusable(directory, state.path, f"{base}.lock")
    if problem:
        return state._replace(problem=unusable(state.path, problem))
    locked, pid = _locked_by(f"{base}.lock")
    if not os.path.exists(state.path):
        return state._replace(locked=locked, pid=pid)
    state = state._replace(exists=True, locked=locked, pid=pid, saved_ns=_written(state.path))
    return state if locked else _read(state, name, now_ns)


def _read(state: State, name: str, now_ns: int) -> State:
    """Return the state with the content of the checkpoint added."""
    try:
        with tempfile.TemporaryDirectory(prefix="kraken-feed-") as copy:
            for part in ("", "-wal", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(state.path + part, os.path.join(copy, f"{name}.sqlite3{part}"))
            opened = Store.open(copy, name, now_ns)
            opened.store.close()
    except ConfigError as error:  # it names the copy; the only possible reason is a file of a newer version
        what = error.what.replace(copy, state.directory)
        return state._replace(problem=ConfigError(what, why=error.why, remedy=error.remedy))
    except (StateFailed, OSError) as error:
        return state._replace(unread=str(error))
    if opened.set_aside is not None and _locked_by(f"{state.path.removesuffix('.sqlite3')}.lock")[0]:
        return state._replace(locked=True)  # a tail has started in the meantime, and the copy is inconsistent
    return state._replace(checkpoint=opened.checkpoint, damaged=opened.set_aside is not None)


def _locked_by(path: str) -> tuple[bool, str]:
    """Return whether another process has the lock, and the pid that it wrote there."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False, ""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True, holder(lock)
    finally:
        os.close(lock)
    return False, ""


def _unusable(directory: str, *files: str) -> str:
    """Return why the state cannot be kept there; empty if it can. A start creates missing directories."""
    for path in files:
        if os.path.isfile(path) and not _access(path, os.R_OK | os.W_OK):
            return f"{path}: {_why_not(path)}"
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory) or "."
    problem = _cannot_make_in(directory)
    return problem and f"{directory}: {problem}"


def _cannot_make_in(directory: str) -> str:
    """Return why no file can be created in the directory; empty if one can."""
    if not os.path.isdir(directory):
        return os.strerror(errno.ENOTDIR if os.path.lexists(directory) else errno.ENOENT)
    return "" if _access(directory, os.W_OK | os.X_OK) else _why_not(directory)


def _written(path: str) -> int:
    """Return when the file or its -wal was last written, in unix nanoseconds; 0 if neither exists."""
    times = [os.stat(path + part).st_mtime_ns for part in ("", "-wal") if os.path.exists(path + part)]
    return max(times, default=0)


def _room(path: str) -> Room:
    """Return the free space of a path's file system. The path need not exist."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "."
    try:
        figures = os.statvfs(path)
    except OSError:
        return Room()
    return Room(figures.f_bavail * figures.f_frsize, not figures.f_files or figures.f_favail > 0)


def _access(path: str, mode: int) -> bool:
    """Return whether this process has these rights, with its effective user."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _why_not(path: str) -> str:
    read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if read_only else errno.EACCES)


# -- the limits of this machine and of Kraken for many accounts


def open_files(accounts: int, endpoints: int, *, state: bool, allowed: int | None) -> CheckResult:
    """Judge the file descriptors for ``accounts`` with ``endpoints`` each. ``allowed`` is the hard limit, to which a
    tail raises the soft one; None: no limit."""
    needed = descriptors.needed(accounts, endpoints, state=state)
    facts = {"needed": needed, "allowed": allowed}
    if allowed is not None:
        try:
            descriptors.require(accounts, endpoints, state=state, limit=allowed)
        except ConfigError as error:
            return failed("descriptors", error, facts=facts)
    limit = "any number" if allowed is None else str(allowed)
    return CheckResult("OK", "descriptors", f"{needed} needed at most, {limit} allowed", facts=facts)


def connects(accounts: int, endpoints: int, budget: Budget, *, public: bool) -> CheckResult:
    """Judge whether all accounts can connect at once. ``public`` is whether they connect to Kraken's edge."""
    wanted, most = accounts * endpoints, limit_if_exceeded(accounts * endpoints, budget, public=public)
    facts = {"needed": wanted, "budget": budget.limit, "window_s": budget.window}
    per = f"per {budget.window:g} s"
    if most is None:
        what = f"{wanted} at a start, {budget.limit} {per} allowed (reconnect.budget)"
        return CheckResult("OK", "connects", what, facts=facts)
    allows = "reconnect.budget allows" if most == budget.limit else "Kraken allows"
    return CheckResult(
        "WARN", "connects", f"A start needs {wanted} connects, and {allows} {most} {per}.",
        f"The last account connects after {budget.span(wanted):.0f} s, also after each network outage.",
        "Split the accounts over several addresses: Kraken bans an address for about 150 connects in ten minutes.",
        facts=facts,
    )  # fmt: skip


GIB = 1024**3
MIB = 1024**2

OUTPUT_BYTES = GIB  # two million records: days to act, for most accounts
STATE_BYTES = 64 * MIB  # the checkpoint of a busy account, with SQLite's other files
FULL_BYTES = MIB  # with less, the disk counts as full


# ------------------------------------------------------------------------------------------------ configuration


def configuration(config: Config, path: str | None, overrides: Mapping[str, tuple[object, str]]) -> CheckResult:
    """Report the configuration file, and the values that are not the default, with their sources. ``overrides`` has the
    values that override the file: by key, the value and its option or variable."""
    file = path or "the configuration"
    values = {key: (value, file) for key, value in _differences(config, Config())} | dict(overrides)
    lines = [f"{key} = {_shown(value)}  ({'the file' if origin == path else origin})"
             for key, (value, origin) in values.items()]  # fmt: skip
    facts = {
        "file": path,
        "values": [{"key": key, "value": value, "from": origin} for key, (value, origin) in values.items()],
    }
    return CheckResult("OK", "configuration", path or "no file: the defaults", "\n".join(lines), facts=facts)


def _differences(ours: msgspec.Struct, default: msgspec.Struct, prefix: str = "") -> list[tuple[str, object]]:
    """Return the path and value of all differences. Of an account, return only the kinds of its credential sources:
    a command may contain a secret."""
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


def unreachable(endpoint: str, where: str, phase: str, why: str, *, proxy: str = "") -> CheckResult:
    """Report a host that cannot be reached; ``phase`` is the step that failed."""
    what = {
        "DNS": f"The host name {where} cannot be resolved.",
        "TCP": f"No TCP connection to {where}.",
        "TLS": f"No TLS connection to {where}.",
        "HTTP": f"{where} can be reached, but does not answer correctly.",
    }[phase]
    through = f" {where} is the proxy in {proxy}." if proxy else ""
    return CheckResult(
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
        return f"Check the environment variable {proxy}, and the proxy itself."
    if phase == "DNS":
        return f"Check the network, the name server (/etc/resolv.conf) and endpoints.{endpoint}."
    if phase == "TCP":
        return f"Check the network, the firewall and endpoints.{endpoint}."
    return "Check again in some minutes. https://status.kraken.com reports outages at Kraken."


def _tls_remedy(why: str) -> str:
    if "expired" in why or "not yet valid" in why:
        return "Check this machine's date. If it is right, something on the network answers in Kraken's place."
    if "mismatch" in why:
        return "Something answers in Kraken's place: check for a captive portal, a proxy or a wrong /etc/hosts."
    if "certificate" not in why:
        return "Something on the network closes TLS connections: check for a firewall, or set the proxy (HTTPS_PROXY)."
    return (
        "Install the system's certificates (ca-certificates). If a proxy here decrypts TLS on purpose, trust its "
        "certificate: SSL_CERT_FILE=/path/to/ca.pem. Verification cannot be switched off."
    )


# ------------------------------------------------------------------------------------------------ output and state


def output(found: Output) -> CheckResult:
    path, torn, free, made = found.path, found.torn, found.room.free, found.kind == "missing"
    facts = {"path": path, "size": found.size, "torn": torn, "free": free}
    code = OutputFailed.exit_code
    if found.problem:
        return CheckResult(
            "FAIL", "output", f"{path} cannot be written.", f"{found.problem}.",
            "Check the path and its permissions, or give another with --output.", facts=facts, exit_code=code,
        )  # fmt: skip
    if found.room.full(made=made):
        why = f"{_bytes(free or 0)} are free." if found.room.more_files else "It has no free inode for another file."
        return CheckResult(
            "FAIL", "output", f"The disk of {path} is full.", why, "Free space.", facts=facts, exit_code=code
        )
    if torn:
        return CheckResult(
            "WARN", "output", f"The last line of {path} is torn: {torn} bytes without a line feed.",
            "A kill or a crash left it, unless a tail is writing at this moment.",
            f"Nothing to do: a tail moves it to {path}.torn at its start.", facts=facts,
        )  # fmt: skip
    if free is not None and free < OUTPUT_BYTES:
        return CheckResult(
            "WARN", "output", f"Only {_bytes(free)} are free for {path}.",
            remedy="Free space on this disk. If it is full, a tail waits for output.patience_s, then ends with exit "
            "code 74.", facts=facts,
        )  # fmt: skip
    room = "" if free is None else f", {_bytes(free)} free"
    state = (
        "will be created" if made
        else f"appended to ({_bytes(found.size)})" if free is not None
        else "not a regular file"
    )  # fmt: skip
    return CheckResult("OK", "output", f"{path}: {state}{room}", facts=facts)


def sync(method: str) -> CheckResult:
    """Report the call that syncs records to the disk on this platform: ``fdatasync``, or its substitute."""
    facts = {"method": method}
    if method == "fdatasync":
        return CheckResult(
            "OK", "disk sync", "fdatasync writes records to the disk before each checkpoint", facts=facts
        )
    what = f"This platform has no fdatasync: {method} is used instead"
    if method == "F_FULLFSYNC":
        return CheckResult("OK", "disk sync", what, facts=facts)
    return CheckResult(
        "WARN", "disk sync", f"{what}.", "It may leave records in the disk's own cache, which is lost in a power cut.",
        "Nothing to do if power cuts cannot happen.", facts=facts,
    )  # fmt: skip


NO_TIME = CheckResult(
    "WARN", "clock", "The clock cannot be compared with Kraken's.",
    "The answer came from a cache, so its time is that of an earlier answer.",
    "Look for a proxy that caches REST's answers.",
)  # fmt: skip

NO_STATE = CheckResult("OK", "state", "none is kept (--no-state): events missed between two runs are not recovered")
NO_PLACE = CheckResult(
    "OK", "state", "none yet: a file has one (--output FILE), a pipe with --state DIRECTORY, a terminal never"
)


def state(found: State, now_ns: int) -> CheckResult:
    """Report on the checkpoint of an account."""
    if found.problem is not None:
        return failed("state", found.problem)
    path, free = found.path, found.room.free
    if found.locked:
        who = f"pid {found.pid}" if found.pid else "another process"
        return CheckResult(
            "WARN", "state", f"A tail of this account and output is running ({who}).",
            f"{path}: last saved {since(found.saved_ns, now_ns)} ago. A second tail would end with exit code 75. This "
            "check uses the same key. The running tail may see a refused nonce, and retries.",
            "Nothing to do, unless no tail should run now.",
            facts={"path": path, "pid": int(found.pid) if found.pid else None},
        )  # fmt: skip
    checkpoint = found.checkpoint or Checkpoint()
    outages = [o.channel for channel in checkpoint.channels.values() for o in channel.outages if not o.declared_ns]
    facts: dict[str, object] = {"path": path, "exists": found.exists, "outages": len(outages), "free": free}
    if found.room.full(made=not found.exists):
        return CheckResult(
            "FAIL", "state", f"The disk of {path} is full.", f"{_bytes(free or 0)} are free.",
            "Free space, or give another directory with --state.", facts=facts, exit_code=StateFailed.exit_code,
        )  # fmt: skip
    if found.damaged:
        return CheckResult(
            "WARN", "state", f"{path} is damaged.",
            "A start renames it, and finds the beginning of the outage in the output's last records. Without those, it "
            "declares a gap.",
            "If you have a complete copy, put it in its place before the next start.", facts=facts,
        )  # fmt: skip
    if found.unread:
        return CheckResult("WARN", "state", f"{path} could not be read.", found.unread, "Check again.", facts=facts)
    if free is not None and free < STATE_BYTES:
        return CheckResult(
            "WARN", "state", f"Only {_bytes(free)} are free for {path}.",
            remedy="Free space on this disk: otherwise no checkpoint can be saved.", facts=facts,
        )  # fmt: skip
    if not checkpoint.saved_ns:
        return CheckResult("OK", "state", f"{path}: {'empty' if found.exists else 'will be created'}", facts=facts)
    facts["saved"] = timestamp(checkpoint.saved_ns)
    wait = f", {counted(len(outages), 'outage')} to recover ({', '.join(dict.fromkeys(outages))})" if outages else ""
    return CheckResult("OK", "state", f"{path}: last saved {since(checkpoint.saved_ns, now_ns)} ago{wait}", facts=facts)


def since(then_ns: int, now_ns: int) -> str:
    """Return how long ago a time was, in words."""
    return span(max(now_ns - then_ns, 0) / NS)


def _bytes(count: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (1024, "KiB")):
        if count >= unit:
            return f"{count / unit:.1f} {name}"
    return f"{count} bytes"
