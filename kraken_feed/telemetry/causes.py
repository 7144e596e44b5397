"""Why a channel is lost, an outage begins or a feed stops: the words on records and in metrics, and what they mean.

docs/errors.md is generated from these tables. The reasons of ``feed.gap`` are in feed/gap_reasons.py.
"""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """What a cause means, and what to do first. Both texts are Markdown."""

    means: str
    first: str


# Why connections end or attempts fail. The last one ends no connection: the channel starts over on it.
LOSS_CAUSES = {
    "closed": Meaning(
        "Kraken or the network closed the connection. The `detail` has the close code and reason, or the error of "
        "WebSocket, TCP or TLS",
        "nothing; Kraken closes connections when it deploys. If it repeats every few minutes, check proxies and NAT",
    ),
    "silence": Meaning(
        "no byte of a frame came for `connection.silence_s`: the network path is dead",
        "nothing; if it repeats, check the network",
    ),
    "sequence": Meaning("a sequence number is missing: a frame was lost", "nothing: it is recovered"),
    "unsubscribed": Meaning("Kraken ended a subscription", "nothing; if it repeats, check the key's permissions"),
    "frame_too_big": Meaning("a frame is larger than `connection.max_frame_bytes`", "raise the limit"),
    "no_ack": Meaning(
        "a subscription was not acknowledged within `connection.ack_timeout_s`",
        "nothing; if it repeats, raise the limit",
    ),
    "no_snapshot": Meaning(
        "the subscription was acknowledged, but its snapshot did not begin within `connection.ack_timeout_s`, or "
        "paused for so long",
        "nothing; if it repeats with very many orders, raise the limit",
    ),
    "refused": Meaning(
        "Kraken refused the subscription or the token, and may accept it later",
        "see [What Kraken says](#what-kraken-says)",
    ),
    "maintenance": Meaning(
        "Kraken's engine is online again. The program reconnects to get a fresh snapshot", "nothing"
    ),
    "connect": Meaning("DNS, TCP or TLS of the WebSocket failed", "`kraken-feed check`"),
    "upgrade": Meaning(
        "the WebSocket's edge answered with an HTTP status: 403 is a challenge, 5xx a fault at Kraken",
        "nothing for minutes; then `kraken-feed check`. With 403, look for what else connects from this address",
    ),
    "token": Meaning("REST did not return a token", "nothing for minutes; then `kraken-feed check`"),
    "throttled": Meaning(
        "HTTP 429 (too many requests from the address), or Kraken's words for too many calls. The `detail` says which",
        "look for other programs that use the key or the address",
    ),
    "locked_out": Meaning(
        "Kraken refused too many calls. The program makes no call for a quarter of an hour",
        "stop other programs that use the key; do not restart this one",
    ),
    "resnapshot": Meaning(
        "the channel got a second snapshot on the same connection. What came between may be missing. The connection "
        "stays, and `feed.live` follows at once",
        "nothing: it is recovered",
    ),
}

# Why an outage begins, if no channel was lost.
OUTAGE_CAUSES = {
    "restart": Meaning("the time between two runs, since the checkpoint last knew the channel as complete", "nothing"),
    "since": Meaning("`--since` asked for it", "nothing"),
    "maintenance": Meaning("Kraken's engine was not online: orders can end without a message", "nothing"),
    "unreadable": Meaning("a frame was not JSON, so it is unknown which records it had", "nothing"),
    "state_missing": Meaning(
        "the channel has no checkpoint, but the output has records of it. The outage begins a quarter of an hour "
        "before the newest record that shows the channel live, or before an earlier outage that has no "
        "`feed.backfilled` or `feed.gap`",
        "find out where the state went",
    ),
    "state_lost": Meaning(
        "the checkpoint was lost, and the output does not show when the channel was last live",
        "see the `feed.gap` that follows",
    ),
    "output_removed": Meaning(
        "the output file was removed, and its last records could not be read", "find out what removes it"
    ),
    "state_replaced": Meaning(
        "the state files were replaced by older ones while the program ran", "find out what replaces them"
    ),
}

# The `reason` of feed.stopped. An error's reason is "error: " and the error's words.
STOP_REASONS = {
    "SIGTERM": "a supervisor or `kill` asked for the stop",
    "SIGINT": "Ctrl-C",
    "SIGHUP": "the terminal was closed",
    "once": "`--once`: the snapshot is written",
    "count": "`--count` items are written",
    "duration": "`--duration` is over",
    "stop": "a program called `stop()`",
    "left": "a program left the context of its tail; it does not see this record",
    "defect": "a bug in kraken-feed; its traceback is on stderr",
}
