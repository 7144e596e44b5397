"""Represent a private REST call: its key, its time and its parameters."""

import math
from collections.abc import Mapping

from msgspec import Struct

from ..access.key import ApiKey
from ..market.book import Book
from ..quirks.quirk import Quirks, share
from ..world import World
from .history import Pager, Span, View


class RestError(Exception):
    """An error of Kraken's: the text is what goes on the wire."""


class Call(Struct, frozen=True):
    """An authenticated request to a private method."""

    world: World
    key: ApiKey
    name: str
    params: Mapping[str, str]
    now: float

    @property
    def view(self) -> View:
        lag = self._lag()
        return View(self.book, self.now - lag if lag else math.inf, self.key.limits, self.quirks.late_orders)

    def _lag(self) -> float:
        """Return the lag of a source: each source can have its own."""
        quirks = self.quirks
        own = {
            "QueryOrders": quirks.query_lag,
            "OpenOrders": quirks.orders_lag,
            "ClosedOrders": quirks.orders_lag,
            "TradesHistory": quirks.trades_lag,
            "QueryTrades": quirks.trades_lag,
            "Ledgers": quirks.ledger_lag,
        }.get(self.name)
        return self.world.rest_lag if own is None else own

    @property
    def pager(self) -> Pager:
        asked = (self.params.get(name) for name in ("start", "end", "ofs", "aclass"))
        return Pager(self.quirks, f"{self.world.seed} {self.name} {' '.join(map(str, asked))}", self.now)

    @property
    def quirks(self) -> Quirks:
        return self.world.quirks

    @property
    def book(self) -> Book:
        return self.key.account.book

    def need(self, permission: str) -> None:
        if permission not in self.key.permissions:
            raise RestError("EGeneral:Permission denied")

    def flag(self, name: str) -> bool:
        return self.params.get(name, "false").lower() in ("true", "1")

    def offset(self) -> int:
        text = self.params.get("ofs", "0")
        if not (text.isascii() and text.isdigit()):
            raise RestError("EGeneral:Invalid arguments:ofs")
        return int(text)

    def span(self) -> Span:
        """Return the bounds of a query. Raises RestError for bad ones, and if a key limited in time may have none."""
        span = Span(self._bound("start"), self._bound("end"))
        limits, how = self.key.limits, self.quirks.key_span
        start = -math.inf if span.start is None else span.start
        end = self.now if span.end is None else span.end
        least, most = limits.query_from, limits.query_to or math.inf
        outside = end < least or start >= most
        overlapping = (least > 0 and start < least) or end > most
        if (how != "silent" and outside) or (how == "overlap" and overlapping):
            raise RestError("EGeneral:Invalid arguments")
        return span

    def _bound(self, name: str) -> float | None:
        try:
            return self.view.moment(self.params.get(name) or None)
        except ValueError as exc:
            raise RestError(f"EGeneral:Invalid arguments:{name}") from exc

    def refuses(self, order_id: str) -> bool:
        """Return whether this id spoils a batch of QueryOrders."""
        world = self.world
        return order_id in world.refused_ids or share(world.quirks.refused_ids, "refused id", order_id)

    def check_outside(self, order_id: str) -> None:
        """Raise RestError if the order is outside of the key's span and the quirk makes that an error."""
        if self.quirks.key_span != "silent" and order_id in self.book.states:
            raise RestError("EGeneral:Invalid arguments")

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.params.get(name, default)
        if value not in choices:
            raise RestError(f"EGeneral:Invalid arguments:{name}")
        return value

    def txids(self, most: int) -> list[str]:
        ids = [ident.strip() for ident in self.params.get("txid", "").split(",") if ident.strip()]
        if not 0 < len(ids) <= most:
            raise RestError("EGeneral:Invalid arguments:txid")
        return ids
