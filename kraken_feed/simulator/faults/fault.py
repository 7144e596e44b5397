"""Define faults: what can go wrong, with which parameters, and when."""

from typing import Literal

import msgspec
from msgspec import Struct, field

from ..quirks.quirk import nearest

_TRIGGERS = ("at", "every", "first", "on_connect", "on_token", "times")
_PEER = ("account", "dialect", "channel", "after")  # the connections to hit, and how long after their connect

# Every kind and the parameters that it takes besides its trigger.
PARAMETERS: dict[str, tuple[str, ...]] = {
    # at once, on connections
    "drop": (*_PEER, "code", "reason"),
    "half_open": (*_PEER, "for"),
    "silent": (*_PEER, "for"),
    "unsubscribe": _PEER,
    "sequence_skip": (*_PEER, "count", "variant"),
    "duplicate_frame": _PEER,
    "garbage_frame": (*_PEER, "variant"),
    "big_frame": (*_PEER, "bytes"),
    "unknown_frame": (*_PEER, "variant"),
    "split": (*_PEER, "for", "bytes", "variant"),
    "resnapshot": (*_PEER, "for", "variant", "count"),
    # at once, on the whole exchange
    "multi": (),
    "many_orders": ("count",),
    "maintenance": ("maintenance", "cancel_only", "post_only", "variant"),
    # on the next occasion
    "no_greeting": ("dialect", "for"),
    "late_online": ("dialect", "for", "variant", "seconds"),
    "no_pong": ("dialect", "for"),
    "no_ack": ("dialect", "channel", "for", "variant"),
    "no_snapshot": ("dialect", "channel", "for"),
    "refuse_token": ("dialect", "channel", "for", "text"),
    "delay_ack": ("dialect", "channel", "for", "seconds"),
    "early_data": ("dialect", "channel", "for"),
    "msg_rate": ("dialect", "for", "variant"),
    "refuse_order": ("dialect", "for", "text"),
    "no_answer": ("dialect", "for", "variant", "count"),
    "duplicate_answer": ("dialect", "for"),
    "drop_answer": ("dialect", "for", "code", "reason"),
    "upgrade_refused": ("dialect", "for", "status", "retry_after"),
    "expired_token": ("for",),
    "http_502": ("for", "method"),
    "http_429": ("for", "method", "retry_after"),
    "http_403": ("for", "method"),
    "rest_timeout": ("for", "method", "seconds"),
    "rest_error": ("for", "method", "text"),
}
VARIANTS: dict[str, tuple[str, ...]] = {  # the first is the default
    "sequence_skip": ("jump", "lost"),
    "garbage_frame": ("not_json", "not_utf8", "other_shape", "nested"),
    "unknown_frame": ("event", "channel", "type"),
    "resnapshot": ("restart", "continue", "jump"),
    "maintenance": ("told", "untold"),
    "late_online": ("post_only", "cancel_only", "maintenance"),
    "split": ("fragments", "writes"),
    "no_ack": ("ignored", "lost"),
    "no_answer": ("lost", "ignored"),
    "msg_rate": ("error", "status", "bare"),
}
ORDER_KINDS = frozenset({"refuse_order", "no_answer", "duplicate_answer", "drop_answer"})  # they hit only order entry
PEER_KINDS = frozenset(kind for kind, names in PARAMETERS.items() if "after" in names)
EXCHANGE_KINDS = frozenset({"multi", "many_orders", "maintenance"})
REST_KINDS = frozenset(kind for kind, names in PARAMETERS.items() if "method" in names)
TOKEN_KINDS = REST_KINDS | {"expired_token"}
OCCASION_KINDS = frozenset(PARAMETERS) - PEER_KINDS - EXCHANGE_KINDS


class Fault(Struct, frozen=True, forbid_unknown_fields=True):
    """One fault.

    Triggers: `at` seconds after the start; `every` so many seconds, from `first` on; the n-th connection of both
    dialects (`on_connect`); the n-th call for a token (`on_token`). `times` is how often it happens: by default once,
    with `every` without a limit. `for` is how long its effect lasts; a kind that waits for an occasion hits every one
    within that time. Raises ValueError if the parts do not fit together.
    """

    kind: str
    at: float | None = None
    every: float | None = None
    first: float | None = None
    on_connect: int | None = None
    on_token: int | None = None
    times: int | None = None
    duration: float | None = field(default=None, name="for")
    account: int | None = None  # counted from 1; a connection has one from its first valid token on
    dialect: Literal["v1", "v2"] | None = None
    channel: Literal["openOrders", "ownTrades", "executions", "balances"] | None = None
    after: float = 0.0
    code: int | None = None
    reason: str = ""
    count: int | None = None
    bytes: int | None = None
    variant: str | None = None
    text: str | None = None
    seconds: float | None = None
    status: int = 503
    retry_after: int | None = None
    method: str | None = None
    maintenance: float = 5.0
    cancel_only: float = 3.0
    post_only: float = 3.0

    def __post_init__(self) -> None:
        if self.kind not in PARAMETERS:
            raise ValueError(f'unknown kind "{self.kind}"{nearest(self.kind, PARAMETERS)}')
        allowed = VARIANTS.get(self.kind, ())
        if self.variant is not None and self.variant not in allowed:
            raise ValueError(f'unknown variant "{self.variant}"{nearest(self.variant, allowed)}')
        triggers = (self.at, self.every, self.on_connect, self.on_token)
        if sum(trigger is not None for trigger in triggers) > 1:
            raise ValueError("at, every, on_connect and on_token exclude each other")
        if self.on_connect is not None and self.kind in TOKEN_KINDS:
            raise ValueError(f"on_connect does not fit {self.kind}: it happens on REST")
        if self.on_token is not None and self.kind in OCCASION_KINDS - TOKEN_KINDS:
            raise ValueError(f"on_token does not fit {self.kind}: it happens on a connection")
        if self.every is not None and self.every <= 0:
            raise ValueError("every must be above 0")

    @property
    def shape(self) -> str:
        """The variant, or the kind's first one."""
        return self.variant or VARIANTS[self.kind][0]

    @property
    def triggered(self) -> bool:
        """Whether the fault has a trigger; an injected one needs none."""
        return any(value is not None for value in (self.at, self.every, self.on_connect, self.on_token))


def fault(table: dict[str, object]) -> Fault:
    """Read a fault from a table of a scenario file. Raises ValueError that names the wrong key."""
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise ValueError('needs a "kind"')
    if kind in PARAMETERS:
        names = ("kind", *_TRIGGERS, *PARAMETERS[kind])
        for name in table:
            if name not in names:
                raise ValueError(f'unknown key "{name}" for {kind}{nearest(name, names)}')
    made = msgspec.convert(table, Fault)
    if not made.triggered:
        raise ValueError("needs at, every, on_connect or on_token")
    return made
