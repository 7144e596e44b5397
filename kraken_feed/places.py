"""The places that a tail writes to, its output and its state, looked at without leaving a trace."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import tempfile
from typing import Literal, NamedTuple

from .checkpoint import Checkpoint
from .errors import ConfigError, StateFailed
from .output_file import whole_lines
from .store import Store

BLOCK = 65536  # read at a time, from the end, in search of the last line's beginning

Kind = Literal["file", "missing", "device", "directory"]


class Room(NamedTuple):
    """What a file system has left: bytes, and whether one more file can be made."""

    free: int
    more_files: bool


class Output(NamedTuple):
    """The file of ``--output``. ``problem`` is why it cannot be written, in the system's words; empty if it can.
    ``torn`` are the bytes of a last line that has no end."""

    path: str
    kind: Kind
    problem: str = ""
    size: int = 0
    torn: int = 0
    room: Room | None = None


class State(NamedTuple):
    """The checkpoint's file. ``held`` is whether another process has it, ``pid`` which, if that is known.

    ``saved_ns`` (unix time) is when it was last written; 0: never. ``damaged`` is what a start would say of it.
    """

    directory: str
    path: str
    exists: bool = False
    problem: ConfigError | None = None
    held: bool = False
    pid: str = ""
    saved_ns: int = 0
    checkpoint: Checkpoint | None = None
    damaged: bool = False
    unread: str = ""
    room: Room | None = None


def look_at_output(path: str) -> Output:
    """The output as a tail would find it. Nothing is made, opened for writing only where that changes nothing."""
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
        return Output(path, "directory", os.strerror(errno.EISDIR), room=None)
    if not stat.S_ISREG(status.st_mode):  # a FIFO's reader would take our opening and closing it for an end
        return Output(path, "device", "" if _access(path, os.W_OK) else _why_not(path))
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC))
        torn = _torn(path, status.st_size)
    except OSError as error:
        return Output(path, "file", str(error.strerror), status.st_size)
    return Output(path, "file", "", status.st_size, torn, _room(path))


def _torn(path: str, size: int) -> int:
    """The bytes behind the last line feed; 0 also where there is none at all in a file that is not ours."""
    whole = whole_lines(path, size)
    return 0 if whole is None else size - whole


def look_at_state(directory: str, account: str, now_ns: int) -> State:
    """The account's state as a start would find it.

    A copy is opened, since SQLite writes beside a file even where it only reads. The lock is only looked at: a start
    that happens in the same microseconds would be told that it is held.
    """
    base = os.path.join(directory, account)
    state = State(directory, f"{base}.sqlite3", room=_room(directory))
    problem = _unusable(directory, state.path, f"{base}.lock")
    if problem:
        return state._replace(problem=_state_problem(state.path, problem))
    held, pid = _held(f"{base}.lock")
    if not os.path.exists(state.path):
        return state._replace(held=held, pid=pid)
    state = state._replace(exists=True, held=held, pid=pid, saved_ns=_written(state.path))
    return state if held else _read(state, account, now_ns)


def _read(state: State, account: str, now_ns: int) -> State:
    """With what the checkpoint says."""
    try:
        with tempfile.TemporaryDirectory(prefix="kraken-feed-") as copy:
            for part in ("", "-wal", "-journal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(state.path + part, os.path.join(copy, f"{account}.sqlite3{part}"))
            opened = Store.open(copy, account, now_ns)
            opened.store.close()
    except ConfigError as error:  # it speaks of the copy; a newer version's file is the one thing that it can be
        what = error.what.replace(copy, state.directory)
        return state._replace(problem=ConfigError(what, why=error.why, remedy=error.remedy))
    except (StateFailed, OSError) as error:
        return state._replace(unread=str(error))
    if opened.set_aside is not None and _held(f"{state.path.removesuffix('.sqlite3')}.lock")[0]:
        return state._replace(held=True)  # a tail has started meanwhile, and the copy is half of this and half of that
    saved = opened.checkpoint.saved_ns if opened.checkpoint is not None else 0
    return state._replace(checkpoint=opened.checkpoint, damaged=opened.set_aside is not None, saved_ns=saved)


def _held(path: str) -> tuple[bool, str]:
    """Whether another process has the lock, and the pid that it wrote there."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False, ""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.pread(lock, 32, 0).strip().decode("ascii", "replace")
        return True, pid if pid.isdigit() else ""
    finally:
        os.close(lock)
    return False, ""


def _unusable(directory: str, *files: str) -> str:
    """Why the state cannot be kept there; empty if it can. What is missing of the path will be made."""
    for path in files:
        if os.path.isfile(path) and not _access(path, os.R_OK | os.W_OK):
            return f"{path}: {_why_not(path)}"
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory) or "."
    problem = _cannot_make_in(directory)
    return problem and f"{directory}: {problem}"


def _cannot_make_in(directory: str) -> str:
    """Why no file can be made in the directory; empty if one can."""
    if not os.path.isdir(directory):
        return os.strerror(errno.ENOTDIR if os.path.lexists(directory) else errno.ENOENT)
    return "" if _access(directory, os.W_OK | os.X_OK) else _why_not(directory)


def _state_problem(path: str, why: str) -> ConfigError:
    return ConfigError(
        f"Cannot use the state file {path}.",
        why=f"{why}.",
        remedy="Give a directory that can be written with --state, or do without a checkpoint: --no-state.",
    )


def _written(path: str) -> int:
    """When the file, or what waits beside it, was last written."""
    times = [os.stat(path + part).st_mtime_ns for part in ("", "-wal") if os.path.exists(path + part)]
    return max(times, default=0)


def _room(path: str) -> Room | None:
    """What the file system of a path has left; the path need not exist."""
    while not os.path.exists(path):
        path = os.path.dirname(path) or "."
    try:
        figures = os.statvfs(path)
    except OSError:
        return None
    return Room(figures.f_bavail * figures.f_frsize, not figures.f_files or figures.f_favail > 0)


def _access(path: str, mode: int) -> bool:
    """Whether we may, as who we are now."""
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _why_not(path: str) -> str:
    read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    return os.strerror(errno.EROFS if read_only else errno.EACCES)
