"""krakenex: signed REST calls as form bodies, with a nonce in milliseconds."""

from __future__ import annotations

import sys
import time
from typing import Any

from krakenex import API  # type: ignore[import-untyped]  # it has no types

from tests.command.interop.clients.report import Ready, Report
from tests.support.timeouts import scaled

TIMEOUT_S = scaled(10.0)


def query(api: Any, report: Report, method: str, **parameters: object) -> dict[str, Any]:
    """One call, judged by Kraken's envelope, in which `error` is always present."""
    spent = int(1000 * time.time())
    while int(1000 * time.time()) == spent:  # two calls in one millisecond would carry one nonce
        pass
    answer = api.query_private(method, parameters, timeout=TIMEOUT_S)
    report.expect(answer.get("error") == [], f"{method}: {answer.get('error')}")
    result = answer.get("result")
    report.expect(isinstance(result, dict), f"{method} has no result")
    report.received[method] += 1
    return result if isinstance(result, dict) else {}


def main() -> int:
    ready, report = Ready.from_argv(), Report("krakenex")
    api = API(ready.key, ready.secret)
    api.uri = ready.rest
    try:
        token = query(api, report, "GetWebSocketsToken")
        report.expect(isinstance(token.get("token"), str) and token.get("expires") == 900, "no token for 900 s")
        balance = query(api, report, "Balance")
        report.expect(all(float(amount) >= 0 for amount in balance.values()), "a balance below zero")
        opened = query(api, report, "OpenOrders", trades=True).get("open", {})
        report.expect(all(order["status"] in {"open", "pending"} for order in opened.values()), "not open: OpenOrders")
        closed = query(api, report, "ClosedOrders", ofs=0).get("closed", {})
        ended = {"closed", "canceled", "expired"}
        report.expect(all(order["status"] in ended for order in closed.values()), "not ended: ClosedOrders")
        trades = query(api, report, "TradesHistory", type="all").get("trades", {})
        report.expect(all(trade["ordertxid"] for trade in trades.values()), "a trade without its order")
        wanted = [*opened, *closed][:2]
        asked = query(api, report, "QueryOrders", txid=",".join(wanted), trades=True)
        report.expect(sorted(asked) == sorted(wanted), f"QueryOrders: asked {wanted}, got {list(asked)}")
        report.seen |= {"open": len(opened), "closed": len(closed), "trades": len(trades)}
        api.secret = "A" * 86 + "=="  # the right length, and not ours
        refused = api.query_private("Balance", {}, timeout=TIMEOUT_S)
        report.expect(refused.get("error") == ["EAPI:Invalid signature"], f"a forged signature: {refused}")
    finally:
        api.close()
    return report.finish()


if __name__ == "__main__":
    sys.exit(main())
