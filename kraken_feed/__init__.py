"""Tail an account's private Kraken feeds as JSON lines, through reconnects, byte for byte.

Programs use :func:`tail` and :func:`history`; names that are not in ``__all__`` are private.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's takes ten milliseconds to load, and a signal may come in that time
if TYPE_CHECKING:
    from .api import History, Records, history, tail
    from .errors import (
        ConfigError,
        CredentialsRefused,
        FeedError,
        HistoryIncomplete,
        NotInTime,
        OutageTooLong,
        RequestRefused,
        StateFailed,
        StateHeld,
        UsageError,
    )
    from .protocol.signing import Credentials
    from .records.types import (
        Backfilled,
        Balance,
        Execution,
        Gap,
        Item,
        Live,
        Lost,
        Marker,
        Order,
        Record,
        Status,
        Stopped,
        Trade,
        Unknown,
    )
    from .telemetry.stats import Figures

__version__ = "0.1.0"

__all__ = [
    "Backfilled", "Balance", "ConfigError", "Credentials", "CredentialsRefused", "Execution", "FeedError", "Figures",
    "Gap", "History", "HistoryIncomplete", "Item", "Live", "Lost", "Marker", "NotInTime", "Order", "OutageTooLong",
    "Record", "Records", "RequestRefused", "StateFailed", "StateHeld", "Status", "Stopped", "Trade", "Unknown",
    "UsageError", "__version__", "history", "tail",
]  # fmt: skip

_HOMES = {
    "protocol.signing": ("Credentials",),
    "errors": (
        "ConfigError", "CredentialsRefused", "FeedError", "HistoryIncomplete", "NotInTime", "OutageTooLong",
        "RequestRefused", "StateFailed", "StateHeld", "UsageError",
    ),
    "telemetry.stats": ("Figures",),
    "api": ("History", "Records", "history", "tail"),
    "records.types": (
        "Backfilled", "Balance", "Execution", "Gap", "Item", "Live", "Lost", "Marker", "Order", "Record", "Status",
        "Stopped", "Trade", "Unknown",
    ),
}  # fmt: skip

if not TYPE_CHECKING:  # to a type checker it would mean that every name exists

    def __getattr__(name: str) -> object:
        """Load a public name at its first use: the command's first steps need none of them."""
        for home, names in _HOMES.items():
            if name in names:
                from importlib import import_module

                globals()[name] = value = getattr(import_module(f".{home}", __name__), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
