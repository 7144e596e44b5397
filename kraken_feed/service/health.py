"""Say whether the program is alive and ready, and if not, why: for probes, load balancers and the person on call."""

from __future__ import annotations

from collections.abc import Iterator

from ..telemetry.stats import EndpointFigures, Output, Program

BLOCKED_S = 1.0  # a reader may be behind for moments; one that reads nothing for a second has stalled

Reason = dict[str, str]


def dead(program: Program) -> Reason | None:
    """Return why the program should be restarted; None if it is alive. The call proves that the event loop runs."""
    return {"status": "overdue", "part": program.overdue} if program.overdue else None


def unready(program: Program, fresh_s: float) -> list[Reason]:
    """Return why frames of Kraken may not reach the output within moments; nothing if they do.

    Every channel of every account must be live, and its connection's last frame at most ``fresh_s`` seconds old. The
    output must accept what is written, and the program must not be stopping.
    """
    reasons = [
        {"account": account.account, "channel": channel, "reason": reason}
        for account in program.accounts
        if not account.stopped
        for endpoint in account.endpoints
        for reason in _of_endpoint(endpoint, fresh_s)
        for channel in endpoint.channels
    ]
    reasons += [
        {"account": account.account, "reason": f"stopped: {account.stopped}"}
        for account in program.accounts
        if account.stopped
    ]
    reasons += [{"output": program.output.name, "reason": reason} for reason in _of_output(program.output)]
    if program.held:
        reasons.append({"reason": f"waiting to start: {program.held}"})
    if program.stopping:
        reasons.append({"reason": f"stopping: {program.stopping}"})
    if program.overdue:
        reasons.append({"reason": f"overdue: {program.overdue}"})
    return reasons


def _of_endpoint(endpoint: EndpointFigures, fresh_s: float) -> Iterator[str]:
    if not endpoint.live:
        yield ", ".join(_absence(endpoint))
    elif endpoint.last_frame_s is None or endpoint.last_frame_s > fresh_s:
        age = "never" if endpoint.last_frame_s is None else f"{endpoint.last_frame_s:.0f} s ago"
        yield f"stale: the last frame came {age}"


def _absence(endpoint: EndpointFigures) -> Iterator[str]:
    yield "not live" if endpoint.down_s is None else f"not live for {endpoint.down_s:.0f} s"
    if endpoint.refused:
        yield f"{endpoint.refused} refused by Kraken"
    elif endpoint.cause:
        yield f"last cause: {endpoint.cause}"
    if endpoint.retry_s is not None:
        yield f"next attempt in {endpoint.retry_s:.0f} s"


def _of_output(output: Output) -> Iterator[str]:
    if output.full or (output.blocked_s is not None and output.blocked_s >= BLOCKED_S):
        yield f"blocked for {output.blocked_s or 0:.0f} s: {output.pending_bytes} bytes are not written yet"
