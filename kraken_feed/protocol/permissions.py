"""The permissions of an API key: how Kraken spells them, and which channel or method needs which.

`check` judges a key by these tables, a refusal names the missing permission from them, and docs/channels.md is
generated from them.

Source: https://docs.kraken.com/api/docs/rest-api/get-api-key-info , and the settings page of a key (Security > API).
"""

from __future__ import annotations

CREATE_TOKEN, OPEN, CLOSED, FUNDS, LEDGER = (
    "create-ws-token", "query-open-trades", "query-closed-trades", "query-funds", "query-ledger",
)  # fmt: skip
MODIFY, CLOSE = "modify-trades", "close-trades"

# By the name in Kraken's API: the name in a key's settings, then an older name, if there is one.
READING = {
    CREATE_TOKEN: ("WebSocket interface", "Access WebSockets API"),
    OPEN: ("Query open orders & trades",),
    CLOSED: ("Query closed orders & trades",),
    FUNDS: ("Query funds",),
    LEDGER: ("Query ledger entries",),
}
OTHERS = {  # that no tail needs
    "add-funds": ("Deposit funds",),
    "withdraw-funds": ("Withdraw funds",),
    "earn-funds": ("Earn funds",),
    MODIFY: ("Create & modify orders",),
    CLOSE: ("Cancel & close orders",),
    "export-data": ("Export data",),
    "add-withdraw-address": ("Add withdrawal addresses",),
    "update-withdraw-address": ("Update withdrawal addresses",),
}

# What a channel needs besides CREATE_TOKEN, and what the recovery of its outages needs.
NEEDED = {"openOrders": (OPEN,), "ownTrades": (CLOSED,), "executions": (OPEN, CLOSED), "balances": (FUNDS,)}
NEEDED_TO_RECOVER = {"openOrders": CLOSED, "ownTrades": CLOSED, "executions": CLOSED, "balances": LEDGER}

NEEDED_BY_REST = {
    "GetWebSocketsToken": (CREATE_TOKEN,),
    "QueryOrders": (OPEN, CLOSED),
    "ClosedOrders": (CLOSED,),
    "TradesHistory": (CLOSED,),
    "Ledgers": (LEDGER,),
}
NEEDED_BY_CALL = {  # order entry
    **dict.fromkeys(("addOrder", "add_order"), (MODIFY,)),
    **dict.fromkeys(("editOrder", "edit_order", "batch_add"), (MODIFY, CLOSE)),
}
NEEDS_ONE_OF = dict.fromkeys(  # order entry
    (
        "amendOrder", "cancelOrder", "cancelAll", "cancelAllOrdersAfter", "amend_order", "cancel_order", "cancel_all",
        "cancel_all_orders_after", "batch_cancel",
    ),
    (MODIFY, CLOSE),
)  # fmt: skip


def spelled(permission: str) -> str:
    """Return every spelling of a permission: those of the settings in quotes, that of the API in brackets."""
    name, *older = {**READING, **OTHERS}[permission]
    also = "".join(f'also called "{text}", ' for text in older)
    return f'"{name}" ({also}{permission})'


def needed_for(what: str) -> str:
    """Return the permissions that a channel or a method needs, spelled out; empty if none is known."""
    if what in NEEDS_ONE_OF:
        return " or ".join(map(spelled, NEEDS_ONE_OF[what]))
    needed = NEEDED.get(what) or NEEDED_BY_REST.get(what) or NEEDED_BY_CALL.get(what) or ()
    return " and ".join(map(spelled, needed))
