"""Define what each fault does to one connection. Each function returns whether there was anything to hit."""

from collections.abc import Callable

from .faults.fault import Fault
from .wire.outgoing import Abort, Close
from .wire.peer import Peer
from .wire.subscription import Restart, Subscription

_RESTARTING = "CloudFlare WebSocket proxy restarting"  # the reason that comes with 1001 in the field
_BIG = 40 * 1024 * 1024
_DEPTH = 100_000
_GARBAGE = {
    "not_json": b'[[{"OAAAAA-BBBBB-CCCCCC":{"status":',
    "not_utf8": b'{"event":"\xff\xfe\xc3("}',
    "other_shape": b'["surprise",[1,2,{"sequence":"three"}],null]',
    "nested": b"[" * _DEPTH + b"]" * _DEPTH,
}


def drop(peer: Peer, fault: Fault, now: float) -> bool:
    """End the connection with a reset, or with a close code."""
    if fault.code is None:
        peer.close(Abort(), at_once=True)
    else:
        reason = fault.reason or (_RESTARTING if fault.code == 1001 else "")
        peer.close(Close(fault.code, reason), at_once=peer.stalled)
    return True


def half_open(peer: Peer, fault: Fault, now: float) -> bool:
    """Let nothing leave the connection any more, but keep the socket open."""
    peer.stalled = True
    if fault.duration is not None:
        peer.stall_ends = now + fault.duration
    return True


def silent(peer: Peer, fault: Fault, now: float) -> bool:
    """Stop data and heartbeats, but still answer pings."""
    if not peer.subscriptions:
        return False
    peer.silent = True
    if fault.duration is not None:
        peer.silence_ends = now + fault.duration
    return True


def unsubscribe(peer: Peer, fault: Fault, now: float) -> bool:
    """End a subscription without a request."""
    hit = _subscriptions(peer, fault)
    for subscription in hit:
        peer.unsubscribe(subscription.channel, now)
        peer.say(peer.speak.unsubscribed(subscription.channel, peer.world.shown_time(now)), now)
    return bool(hit)


def sequence_skip(peer: Peer, fault: Fault, now: float) -> bool:
    """Let the next frame's number jump (jump), or lose the next update (lost)."""
    hit = _subscriptions(peer, fault)
    for subscription in hit:
        if fault.shape == "lost":
            subscription.lose = True
        else:
            subscription.sequence += fault.count or 1
    return bool(hit)


def duplicate_frame(peer: Peer, fault: Fault, now: float) -> bool:
    """Send the last data frame again."""
    frames = [subscription.last for subscription in _subscriptions(peer, fault)]
    known = [frame for frame in frames if frame is not None]
    for frame in known:
        peer.say(frame, now)
    return bool(known)


def garbage_frame(peer: Peer, fault: Fault, now: float) -> bool:
    """Send a frame that makes no sense."""
    peer.say(_GARBAGE[fault.shape], now)
    return True


def big_frame(peer: Peer, fault: Fault, now: float) -> bool:
    peer.say(peer.speak.big(fault.bytes or _BIG), now)
    return True


def unknown_frame(peer: Peer, fault: Fault, now: float) -> bool:
    """Send a frame of a new kind; an unknown type (type) counts in its channel's sequence."""
    if fault.shape == "type":
        hit = _subscriptions(peer, fault)
        for subscription in hit:
            peer.notice(subscription, now)
        return bool(hit)
    peer.say(peer.speak.unknown(fault.shape), now)
    return True


def split(peer: Peer, fault: Fault, now: float) -> bool:
    """Send frames in small pieces from now on."""
    peer.split = fault
    if fault.duration is not None:
        peer.split_ends = now + fault.duration
    return True


def resnapshot(peer: Peer, fault: Fault, now: float) -> bool:
    """Restart the server behind the socket: updates of some seconds (two) are lost uncounted, then a snapshot comes.

    The snapshot's sequence starts again at 1 (restart), continues (continue), or jumps (jump).
    """
    hit = [subscription for subscription in _subscriptions(peer, fault) if peer.restarts(subscription)]
    for subscription in hit:
        subscription.restart = Restart(now + (2.0 if fault.duration is None else fault.duration), fault)
    peer.live(now)
    return bool(hit)


_HITS: tuple[Callable[[Peer, Fault, float], bool], ...] = (
    drop, half_open, silent, unsubscribe, sequence_skip, duplicate_frame, garbage_frame, big_frame, unknown_frame,
    split, resnapshot,
)  # fmt: skip
STRIKES = {hit.__name__: hit for hit in _HITS}


def strike(peer: Peer, fault: Fault, now: float) -> bool:
    """Apply a fault to a connection that it concerns, and return whether there was anything to hit."""
    if peer.closed or fault.dialect not in (None, peer.dialect):
        return False
    if fault.account is not None and (peer.account is None or peer.account.number != fault.account):
        return False
    if fault.channel is not None and fault.channel not in peer.subscriptions:
        return False
    return STRIKES[fault.kind](peer, fault, now)


def _subscriptions(peer: Peer, fault: Fault) -> list[Subscription]:
    return [one for one in peer.subscriptions.values() if fault.channel in (None, one.channel)]
