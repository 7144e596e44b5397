"""What each fault does to one connection. A strike says whether there was anything to hit."""

from collections.abc import Callable, Iterable

from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.wire.outgoing import Abort, Close
from kraken_feed.simulator.wire.peer import Peer
from kraken_feed.simulator.wire.subscription import Restart, Subscription

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
    """A reset, or a close code."""
    if fault.code is None:
        peer.close(Abort(), at_once=True)
    else:
        reason = fault.reason or (_RESTARTING if fault.code == 1001 else "")
        peer.close(Close(fault.code, reason), at_once=peer.stalled)
    return True


def half_open(peer: Peer, fault: Fault, now: float) -> bool:
    """Nothing leaves any more, but the socket stays."""
    peer.stalled = True
    if fault.duration is not None:
        peer.stall_ends = now + fault.duration
    return True


def silent(peer: Peer, fault: Fault, now: float) -> bool:
    """Neither data nor heartbeats, but pings are answered."""
    if not peer.subscriptions:
        return False
    peer.silent = True
    if fault.duration is not None:
        peer.silence_ends = now + fault.duration
    return True


def unsubscribe(peer: Peer, fault: Fault, now: float) -> bool:
    """The server ends a subscription unasked."""
    hit = list(_subscriptions(peer, fault))
    for subscription in hit:
        peer.unsubscribe(subscription.channel, now)
        peer.say(peer.speak.unsubscribed(subscription.channel, peer.world.shown_time(now)), now)
    return bool(hit)


def sequence_skip(peer: Peer, fault: Fault, now: float) -> bool:
    """The next frame's number jumps (jump), or the next update itself gets lost (lost)."""
    hit = list(_subscriptions(peer, fault))
    for subscription in hit:
        if fault.shape == "lost":
            subscription.lose = True
        else:
            subscription.sequence += fault.count or 1
    return bool(hit)


def duplicate_frame(peer: Peer, fault: Fault, now: float) -> bool:
    """The last data frame comes once more."""
    frames = [subscription.last for subscription in _subscriptions(peer, fault)]
    known = [frame for frame in frames if frame is not None]
    for frame in known:
        peer.say(frame, now)
    return bool(known)


def garbage_frame(peer: Peer, fault: Fault, now: float) -> bool:
    """A frame that makes no sense."""
    peer.say(_GARBAGE[fault.shape], now)
    return True


def big_frame(peer: Peer, fault: Fault, now: float) -> bool:
    """A frame that makes sense and is huge."""
    peer.say(peer.speak.big(fault.bytes or _BIG), now)
    return True


def unknown_frame(peer: Peer, fault: Fault, now: float) -> bool:
    """A frame of a kind that was not there yesterday; an unknown type (type) counts in its channel's sequence."""
    if fault.shape == "type":
        hit = list(_subscriptions(peer, fault))
        for subscription in hit:
            peer.notice(subscription, now)
        return bool(hit)
    peer.say(peer.speak.unknown(fault.shape), now)
    return True


def split(peer: Peer, fault: Fault, now: float) -> bool:
    """From now on, frames come in small pieces."""
    peer.split = fault
    if fault.duration is not None:
        peer.split_ends = now + fault.duration
    return True


def resnapshot(peer: Peer, fault: Fault, now: float) -> bool:
    """The server restarts behind the socket: updates of some seconds (two) are lost uncounted, then a snapshot comes.

    Its sequence starts again at 1 (restart), goes on without a gap (continue), or jumps (jump).
    """
    hit = [subscription for subscription in _subscriptions(peer, fault) if peer.restarts(subscription)]
    for subscription in hit:
        subscription.restart = Restart(now + (2.0 if fault.duration is None else fault.duration), fault)
    peer.live(now)
    return bool(hit)


STRIKES: dict[str, Callable[[Peer, Fault, float], bool]] = {
    "drop": drop,
    "half_open": half_open,
    "silent": silent,
    "unsubscribe": unsubscribe,
    "sequence_skip": sequence_skip,
    "duplicate_frame": duplicate_frame,
    "garbage_frame": garbage_frame,
    "big_frame": big_frame,
    "unknown_frame": unknown_frame,
    "split": split,
    "resnapshot": resnapshot,
}


def strike(peer: Peer, fault: Fault, now: float) -> bool:
    """Does it, if it concerns this connection."""
    if peer.closed or fault.dialect not in (None, peer.dialect):
        return False
    if fault.account is not None and (peer.account is None or peer.account.number != fault.account):
        return False
    if fault.channel is not None and fault.channel not in peer.subscriptions:
        return False
    return STRIKES[fault.kind](peer, fault, now)


def _subscriptions(peer: Peer, fault: Fault) -> Iterable[Subscription]:
    return [
        subscription for subscription in peer.subscriptions.values() if fault.channel in (None, subscription.channel)
    ]
