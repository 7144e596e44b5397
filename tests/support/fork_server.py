"""Processes of the command without the half second that Python and its modules take to start.

One server per test process loads the package once and forks for each command. The child has its own descriptors,
environment, working directory and command line, runs ``kraken_feed.__main__`` from its first line, and ends as it
would; only the interpreter and the modules are there already. What a test says about the start itself (signals while
modules load, Python's own options, the process's name and environment in ``/proc``) needs a fresh process.
"""

from __future__ import annotations

import asyncio
import atexit
import fcntl
import functools
import gc
import importlib
import os
import pkgutil
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping
from typing import Any, NoReturn

import msgspec

LIMIT = 1 << 26  # bytes of one line that a reader takes
NUMBER = struct.Struct("=q")
NOT_LOADED = ("kraken_feed.__main__", "kraken_feed.watch", "kraken_feed.simulator.__main__")
LOADED_LATE = (  # by libraries, when they are used
    "anyio._backends._asyncio", "asyncio.runners", "certifi", "concurrent.futures.thread", "encodings.idna", "getpass",
    "h11", "httpcore", "httpcore._backends.anyio", "prometheus_client", "shlex", "stringprep",
)  # fmt: skip
OF_PYTHON = ("PYTHON", "LC_", "TZ", "LD_", "MALLOC_")  # what only a fresh process reads at its start
READ_LATE = ("PYTHONASYNCIODEBUG",)  # by every new event loop


class Order(msgspec.Struct):
    """What to run."""

    arguments: list[str]
    env: dict[str, str]
    directory: str
    terminal: bool = False  # its standard descriptors are one, which becomes its own


def suits(arguments: tuple[str, ...], env: Mapping[str, str]) -> bool:
    """Return whether a forked process does the same as a fresh one."""
    fresh = [name for name in env if name.startswith(OF_PYTHON) and name not in READ_LATE]
    utf8 = env.get("LANG") == "C.UTF-8" and not fresh
    return utf8 and "watch" not in arguments[:2] and hasattr(os, "pidfd_open")


class Pipe(asyncio.StreamReaderProtocol):
    """The reading end of a pipe. ``closed`` is set when it has been read to its end."""

    def __init__(self) -> None:
        self.reader = asyncio.StreamReader(LIMIT)
        super().__init__(self.reader)
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.closed.set()


class Forked:
    """A forked process, with as much of the interface of :class:`asyncio.subprocess.Process` as tests use."""

    def __init__(self, pid: int, status: Pipe, stdout: Pipe | None, stderr: Pipe | None) -> None:
        self.pid = pid
        self.stdin = None
        self.stdout = None if stdout is None else stdout.reader
        self.stderr = None if stderr is None else stderr.reader
        self.returncode: int | None = None
        self._pipes = [pipe for pipe in (stdout, stderr) if pipe]
        self._ended = asyncio.create_task(self._end(status))

    async def _end(self, status: Pipe) -> None:
        (self.returncode,) = NUMBER.unpack(await status.reader.readexactly(NUMBER.size))
        await status.closed.wait()

    async def wait(self) -> int:
        """Wait for the end, and return how the process ended."""
        await asyncio.shield(self._ended)
        for _ in range(10):  # what is left in the pipes is there, and so are their ends: in this loop's next turns
            if all(pipe.closed.is_set() for pipe in self._pipes):
                break
            await asyncio.sleep(0)
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes | None, bytes | None]:
        """Read both outputs to their ends, and wait for that of the process."""
        out, err = await asyncio.gather(_rest(self.stdout), _rest(self.stderr))
        await self.wait()
        return out, err

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.returncode is not None:
            raise ProcessLookupError
        os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


async def _rest(stream: asyncio.StreamReader | None) -> bytes | None:
    return None if stream is None else await stream.read()


async def fork(arguments: tuple[str, ...], env: Mapping[str, str], stdout: int = PIPE, stderr: int = PIPE) -> Forked:
    """Run the command in a forked process, with nothing on its stdin."""
    return await _fork(_server(), Order(list(arguments), dict(env), os.getcwd()), DEVNULL, stdout, stderr)


async def fork_on_terminal(arguments: tuple[str, ...], env: Mapping[str, str], terminal: int) -> Forked:
    """Run the command, which may be ``watch``, in a forked process that has the terminal for its own."""
    order = Order(list(arguments), dict(env), os.getcwd(), terminal=True)
    return await _fork(_server("watch"), order, terminal, terminal, terminal)


async def _fork(server: socket.socket, order: Order, stdin: int, stdout: int, stderr: int) -> Forked:
    ours: list[int] = []
    theirs: list[int] = []

    def pipe() -> int:
        reader, writer = os.pipe()
        ours.append(reader)
        theirs.append(writer)
        return writer

    def output(wanted: int) -> int:
        if wanted == DEVNULL:
            theirs.append(os.open(os.devnull, os.O_RDWR))
            return theirs[-1]
        return pipe() if wanted == PIPE else wanted

    descriptors = [output(stdin), output(stdout), output(stderr), pipe()]
    try:
        socket.send_fds(server, [msgspec.json.encode(order)], descriptors)
    finally:
        for descriptor in theirs:
            os.close(descriptor)
    pipes = [await _connected(reader) for reader in ours]
    status = pipes.pop()
    (pid,) = NUMBER.unpack(await status.reader.readexactly(NUMBER.size))
    err = pipes.pop() if stderr == PIPE else None
    return Forked(pid, status, pipes.pop() if stdout == PIPE else None, err)


async def _connected(descriptor: int) -> Pipe:
    file = os.fdopen(descriptor, "rb", 0)
    _, pipe = await asyncio.get_running_loop().connect_read_pipe(Pipe, file)
    return pipe


@functools.cache
def _server(*loaded: str) -> socket.socket:
    """Start the server, or the one for ``watch``. It ends with this process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server = subprocess.Popen([sys.executable, "-m", "tests.support.fork_server", *loaded], stdin=theirs.fileno())
    theirs.close()

    def end() -> None:
        ours.close()
        server.wait()

    atexit.register(end)
    return ours


# ------------------------------------------------------------------------------------------------ the server


def serve() -> Order:
    """Fork for each order. Return it in the forked process, and only there: the server ends here."""
    server = socket.socket(fileno=os.dup(0))
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not server:
                pid, status = key.data
                selector.unregister(key.fileobj)
                os.close(key.fd)
                os.write(status, NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
                os.close(status)
                continue
            text, descriptors, *_ = socket.recv_fds(server, 1 << 20, 4)
            if not text:
                sys.exit()
            pid = os.fork()
            if not pid:
                for number, descriptor in enumerate(descriptors[:3]):
                    os.dup2(descriptor, number)
                selector.close()
                server.close()
                os.closerange(3, 1024)  # those of other children
                return msgspec.json.decode(text, type=Order)
            for descriptor in descriptors[:3]:
                os.close(descriptor)
            os.write(descriptors[3], NUMBER.pack(pid))
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, descriptors[3]))


def run(order: Order) -> NoReturn:
    """Be the command."""
    if order.terminal:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    os.chdir(order.directory)
    os.environ.clear()
    os.environ.update(order.env)
    streams: dict[str, Any] = {"encoding": "utf-8", "closefd": False}
    sys.stdin = open(0, errors="surrogateescape", **streams)  # noqa: SIM115  # for its life
    sys.stdout = open(1, "w", errors="surrogateescape", buffering=1 if os.isatty(1) else -1, **streams)  # noqa: SIM115  # for its life
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, **streams)  # noqa: SIM115  # for its life
    sys.argv = ["kraken-feed", *order.arguments]
    gc.enable()
    from kraken_feed.__main__ import main  # type: ignore[attr-defined]  # as the console script does

    main()
    raise AssertionError("the command has not ended")


def load(*further: str) -> None:
    """Import what the command imports, one part or another of it."""
    if "watch" in further:
        importlib.import_module("kraken_feed.watch.app")
    else:
        sys.modules["rich"] = None  # type: ignore[assignment]  # as the command does: structlog would load it
    package = importlib.import_module("kraken_feed")
    for module in pkgutil.walk_packages(package.__path__, "kraken_feed."):
        if not module.name.startswith(NOT_LOADED):
            importlib.import_module(module.name)
    for name in LOADED_LATE:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    load(*sys.argv[1:])
    run(serve())
