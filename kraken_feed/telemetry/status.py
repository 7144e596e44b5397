"""Compose the status line that an operator reads first: problems come before the rest."""

from __future__ import annotations

from collections.abc import Sequence

from ..records.render import timestamp
from ..text import counted, printable
from .stats import EndpointFigures, Figures, Output, Program

MAX_LINE = 200  # characters: `systemctl status` shows it on a line of its own
MAX_WORD = 40  # of a cause or an engine's state: normally one word, but a peer may send anything


def state(program: Program) -> dict[str, object]:
    """Return what SIGUSR1 prints: of a single account without a list around it."""
    if not program.accounts:
        return {"held": program.held}
    states = [_state(account, program.output) for account in program.accounts]
    return states[0] if len(states) == 1 else {"accounts": states}


def _state(account: Figures, output: Output) -> dict[str, object]:
    return {
        "account": account.account,
        "stopping": account.stopping or None,
        "connections": [
            {
                "channels": endpoint.channels,
                "live": endpoint.live,
                "connection": endpoint.connection,
                "engine": endpoint.engine,
                "sequences": endpoint.sequences,
                "live_s": endpoint.live_s,
                "last_frame_s": endpoint.last_frame_s,
                "attempts": endpoint.attempts,
                "losses": endpoint.losses,
            }
            for endpoint in account.endpoints
        ],
        "outages": account.outages.open,
        "checkpoint": timestamp(account.checkpoint_ns) if account.checkpoint_ns else None,
        "output": {
            "name": output.name,
            "lines": output.lines,
            "pending_bytes": output.pending_bytes,
            "blocked": output.full,
        },
    }


def program_line(program: Program) -> str:
    """Return the line of a whole process: before its start, what it waits for."""
    if not program.accounts:
        return _cut(f"waiting to start: {printable(program.held)}", MAX_LINE)
    return status_line(program.accounts, program.output)


def status_line(accounts: Sequence[Figures], output: Output) -> str:
    """Return the status line of some accounts, at most :data:`MAX_LINE` characters and without control characters.

    ``live openOrders,ownTrades; 3 open orders; last frame 0.4s; 2 reconnects; output ok``. Several accounts are named;
    those that are not live come first. If they do not all fit, the live ones are only counted.
    """
    end = f"; {_output(output)}"
    if len(accounts) == 1:
        return _cut(_account(accounts[0]), MAX_LINE - len(end)) + end
    down = [f"{account.account}: {_account(account)}" for account in accounts if not account.live]
    live = [f"{account.account}: {_account(account)}" for account in accounts if account.live]
    line = " | ".join([*down, *live])
    if len(line) + len(end) > MAX_LINE and live:
        line = " | ".join([f"{len(live)} of {len(accounts)} live", *down])
    return _cut(line, MAX_LINE - len(end)) + end


def _account(account: Figures) -> str:
    if account.stopped:
        return f"stopped: {_cut(printable(account.stopped), MAX_WORD)}"
    live = [endpoint for endpoint in account.endpoints if endpoint.live]
    parts = [_down(endpoint) for endpoint in account.endpoints if not endpoint.live]
    if live:
        parts.append("live " + ",".join(channel for endpoint in live for channel in endpoint.channels))
        engines = dict.fromkeys(endpoint.engine or "online" for endpoint in live)
        parts += [f"engine {_word(engine)}" for engine in engines if engine != "online"]
    late = [endpoint.late_s for endpoint in live if endpoint.late_s is not None]
    if late:
        parts.append(f"late {span(max(late))}")
    if account.outages.open:
        parts.append(f"{counted(account.outages.open, 'outage')} to recover")
    if account.open_orders:  # each channel has its own view of the same orders
        parts.append(counted(max(account.open_orders.values()), "open order"))
    ages = [endpoint.last_frame_s for endpoint in live if endpoint.last_frame_s is not None]
    if ages:
        parts.append(f"last frame {span(max(ages))}")  # of the channel that was silent for longest
    if account.reconnects:
        parts.append(counted(account.reconnects, "reconnect"))
    return "; ".join(parts)


def _down(endpoint: EndpointFigures) -> str:
    channels, tried = ",".join(endpoint.channels), f"down {span(endpoint.down_s or 0.0)}, attempt {endpoint.attempts}"
    refused = f"{_word(endpoint.refused)} refused" if endpoint.refused else ""
    if endpoint.retry_s is None:
        return f"{f'{refused}, ' if refused else ''}connecting ({tried}): {channels}"
    if refused:
        return f"{refused}, next try in {span(endpoint.retry_s)} ({tried}): {channels}"
    after = f", after {_word(endpoint.cause)}" if endpoint.cause else ""
    return f"next attempt in {span(endpoint.retry_s)}{after} ({tried}): {channels}"


def _output(output: Output) -> str:
    if output.blocked_s is None:
        return "output ok"
    return f"output blocked {span(output.blocked_s)}, {output.pending_bytes / 1e6:.1f} MB waiting"


def span(seconds: float) -> str:
    """Return a span of time in its shortest readable form: ``0.4s``, ``120s``, ``17m``, ``5h``, ``3d``."""
    if seconds < 9.95:
        return f"{max(0.0, seconds):.1f}s"
    for unit, size, last in (("s", 1, 600), ("m", 60, 180), ("h", 3600, 72)):
        if round(seconds / size) < last:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"


def _word(text: str) -> str:
    return _cut(printable(text), MAX_WORD)


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: room - 1] + "…"
