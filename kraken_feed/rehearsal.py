"""A tail's beginning and nothing more: connected, subscribed, live, closed again. Nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from .config import DIALECTS, ConnectionConfig
from .connection import Connection, Dial, Mask
from .session import Event, Failure, Live, Records, Session, Timing


class Scene(msgspec.Struct):
    """What came of one connection: by channel the seconds until it was live, and the items of its snapshot.

    ``failure`` is why not all of them are live; None if they are.
    """

    live: dict[str, float] = msgspec.field(default_factory=dict)
    items: dict[str, int] = msgspec.field(default_factory=dict)
    engine: str | None = None
    failure: Failure | None = None


class _Bin:
    """An output that takes everything, and keeps none of it."""

    full = False

    async def room(self) -> None:
        return


async def rehearse(
    url: str,
    dialect: str,
    channels: Sequence[str],
    token: Callable[[], Awaitable[str]],
    config: ConnectionConfig,
    dial: Dial,
    mask: Mask,
) -> Scene:
    """Bring the channels live on one connection, as a tail does, and close it.

    Every step has the session's deadlines. ``mask`` takes secrets out of the words of others.

    Raises:
        Transient, ConfigError: the socket cannot be opened.
        FeedError: whatever ``token`` raises.
    """
    scene, stop, now = Scene(), asyncio.Event(), asyncio.get_running_loop().time
    session = Session(DIALECTS[dialect], channels, Timing(config.ack_timeout_s, config.silence_s), mask)
    connection = Connection(url, session, config, dial=dial, mask=mask)
    begun = now()

    def deliver(events: Sequence[Event]) -> None:
        for event in events:
            if isinstance(event, Records) and event.type == "snapshot":
                scene.items[event.channel] = len(event.items)
            elif isinstance(event, Live):
                scene.live.setdefault(event.channel, round(now() - begun, 3))
        if session.live:
            stop.set()

    try:
        await connection.run(token, deliver, _Bin(), stop)
    finally:
        await connection.close()
    scene.engine = session.engine
    if len(scene.live) < len(set(channels)):
        scene.failure = session.failure
    return scene
