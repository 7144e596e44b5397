"""The exchange's state without its connections: accounts, keys, tokens, the schedule of faults, the ledger."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from .access.key import NO_LIMITS, READ_PERMISSIONS, ApiKey, Limits
from .access.token import LIFETIME_S, Tokens
from .faults.scenario import Scenario
from .faults.schedule import Schedule
from .market.account import Account
from .market.book import Book
from .market.counter import TIERS, Counter
from .market.engine import Engine
from .market.ident import public_key, secret
from .market.ledger import Ledger
from .market.pair import Asset, Pair


@dataclass(eq=False, repr=False)
class World:
    """The state that REST, the connections and the faults read and change. It does not know them.

    The same seed gives the same keys, ids and flow of orders. Clients do not change them.
    """

    started: float
    seed: int
    rate: float
    scenario: Scenario
    open_orders: int
    past_trades: int
    account_count: int
    ledger: Ledger  # the first account's; it also records the faults

    def __post_init__(self) -> None:
        now, scenario = self.started, self.scenario
        self.quirks = scenario.quirks
        self.refused_ids: set[str] = set()  # order ids that spoil a batch of QueryOrders
        self.rest_lag = scenario.rest_lag
        self.key_info_style: Literal["snake", "camel"] = "snake"  # as recorded, or as documented
        self.clock_offset_s = 0.0  # seconds by which the clock that clients see is ahead
        self.untold = False  # events are not published until the engine is online again
        self.tier = TIERS[scenario.tier]
        self.schedule = Schedule(generator(self.seed, "faults"), scenario.random, now)
        self.tokens = Tokens(generator(self.seed, "tokens"))
        self.token_calls = 0
        self.keys: dict[str, ApiKey] = {}
        self._key_rng = generator(self.seed, "keys")
        self.accounts: list[Account] = []
        for number in range(1, self.account_count + 1):
            ledger = self.ledger if number == 1 else replace(self.ledger, account=number)
            book = Book(self._rng(number, "ids"), self.tier, self.quirks)
            engine = Engine(book, self._rng(number, "flow"), self.rate, now)
            account = Account(number, ledger, book, engine, scenario.mixed_frames)
            self.accounts.append(account)
            self.add_key(account=account, now=now)
            account.begin(self.past_trades, self.open_orders, now)
        for fault in scenario.faults:
            self.schedule.add(fault, now)

    def _rng(self, number: int, purpose: str) -> Random:
        """Return a generator for one purpose. The first account's are those of an exchange with only one."""
        return generator(self.seed, purpose if number == 1 else f"{purpose}:{number}")

    @property
    def status(self) -> str:
        """The engine's state: online, maintenance, cancel_only or post_only."""
        return self.accounts[0].engine.status

    def set_status(self, state: str) -> None:
        """Set the engine's state for every account."""
        self.untold = self.untold and state != "online"
        for account in self.accounts:
            account.engine.status = state

    @property
    def assets(self) -> Sequence[Asset]:
        """The assets of the exchange, which all accounts share."""
        return self.accounts[0].book.assets

    @property
    def pairs(self) -> Sequence[Pair]:
        return self.accounts[0].book.pairs

    def shown_time(self, now: float) -> float:
        """Return the time that clients are shown: in REST's Time and SystemStatus, in Date headers, in v2's answers."""
        return now + self.clock_offset_s

    # Keys and tokens.

    def add_key(
        self,
        *,
        account: Account | None = None,
        permissions: Sequence[str] = READ_PERMISSIONS,
        otp: str | None = None,
        limits: Limits = NO_LIMITS,
        now: float | None = None,
    ) -> ApiKey:
        """Make another API key of an account, by default of the first one."""
        at = self.started if now is None else now
        key = ApiKey(
            key=public_key(self._key_rng),
            secret=secret(self._key_rng),
            counter=Counter(self.tier.rest_decay, at),
            account=self.accounts[0] if account is None else account,
            permissions=tuple(permissions),
            otp=otp,
            limits=limits,
            created=at,
        )
        self.keys[key.key] = key
        return key

    def first_key(self, account: Account) -> ApiKey:
        """Return the API key that the account has had from the start."""
        return next(key for key in self.keys.values() if key.account is account)

    def issue_token(self, key: ApiKey, now: float) -> str:
        """Return a new WebSocket token. A fault can make it expired from the start."""
        stale = self.schedule.take("expired_token", now, token=self.token_calls)
        if stale is not None:
            self.ledger.struck("expired_token", now)
        return self.tokens.issue(key, now, LIFETIME_S if stale is None else -1.0)


def generator(seed: int, purpose: str) -> Random:
    """Return a random generator for one purpose, so that a client's actions cannot change the flow of orders."""
    return Random(f"{seed}:{purpose}")
