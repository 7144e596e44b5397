"""Spot v2's frames of executions, in the shapes of tests/frames."""

from __future__ import annotations

from datetime import UTC, datetime

from bench.orders import EPOCH, Account, Order, name

GREETING = (
    b'{"channel":"status","type":"update","data":[{"version":"2.0.10","system":"online","api_version":"v2",'
    b'"connection_id":17293822569102704647}]}'
)


def acknowledgement(request: object) -> str:
    """The answer to the subscription of that number, if it has one."""
    number = f'"req_id":{request},' if request else ""
    return (
        f'{{"method":"subscribe",{number}"result":{{"channel":"executions","maxratecount":125,"snap_orders":true,'
        '"snap_trades":true},"success":true,"time_in":"2025-10-09T09:05:10.123456Z",'
        '"time_out":"2025-10-09T09:05:10.123999Z"}'
    )


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(EPOCH + seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.123456Z")


def _totals(order: Order, units: int) -> str:
    cost = units * order.price / 100
    return f'"cum_qty":{units / 100:.8f},"cum_cost":{cost:.5f},"avg_price":{order.price if units else 0:.2f}'


def _whole(order: Order, exec_type: str, status: str) -> str:
    side = "sell" if order.number & 1 else "buy"
    units = order.executed()
    cost = units * order.price / 100
    totals = f'"cum_cost":{cost:.5f},"cum_qty":{units / 100:.8f},"avg_price":{order.price:.2f}' if units else ""
    return (
        f'{{"order_id":"{order.name}","symbol":"{order.pair[1]}","order_qty":{order.units / 100:.8f},'
        f'{totals or chr(34) + "cum_cost" + chr(34) + ":0.00000"},"time_in_force":"GTC","exec_type":"{exec_type}",'
        f'"side":"{side}","order_type":"limit","order_userref":0,"limit_price_type":"static",'
        f'"limit_price":{order.price:.2f},"stop_price":0.00,"order_status":"{status}",'
        f'"fee_usd_equiv":{cost * 0.0016:.10f},"fee_ccy_pref":"fciq","timestamp":"{_time(order.number)}"}}'
    )


def _trade(order: Order, sequence: int, units: int, total: int) -> str:
    side = "sell" if order.number & 1 else "buy"
    cost = units * order.price / 100
    fee = f"{cost * 0.0016:.10f}"
    return (
        f'{{"order_id":"{order.name}","order_userref":0,"exec_id":"{name("T", sequence)}","exec_type":"trade",'
        f'"trade_id":{5_000_000 + sequence},"symbol":"{order.pair[1]}","side":"{side}","last_qty":{units / 100:.8f},'
        f'"last_price":{order.price:.2f},"liquidity_ind":"m","cost":{cost:.5f},"order_type":"limit",'
        f'"timestamp":"{_time(sequence)}","order_status":"partially_filled",{_totals(order, total)},'
        f'"fee_usd_equiv":{fee},"fees":[{{"asset":"USD","qty":{fee}}}]}}'
    )


def event(order: Order, sequence: int) -> str:
    """What happens next to an order."""
    first = order.units * 2 // 5
    start = f'{{"timestamp":"{_time(sequence)}",'
    if order.stage == 0:
        row = _whole(order, "pending_new", "pending_new")
    elif order.stage == 1:
        row = f'{start}"order_status":"new","exec_type":"new","order_userref":0,"order_id":"{order.name}"}}'
    elif order.stage == 2:
        row = _trade(order, sequence, first, first)
    elif order.stage == 3:
        row = _trade(order, sequence, order.units - first, order.units)
    else:
        status = "filled" if order.number % 4 else "canceled"
        row = (
            f'{start}"order_status":"{status}","exec_type":"{status}",{_totals(order, order.units)},'
            f'"fee_usd_equiv":{order.units * order.price * 0.000016:.5f},"order_userref":0,'
            f'"order_id":"{order.name}"}}'
        )
    return f'{{"channel":"executions","type":"update","data":[{row}],"sequence":{sequence}}}'


def snapshot(account: Account, sequence: int) -> str:
    """All open orders."""
    rows = ",".join(
        _whole(order, "pending_new", "pending_new")
        if order.stage == 1
        else _whole(order, "new", "partially_filled" if order.stage > 2 else "new")
        for order in account.places
        if order.stage > 0
    )
    return f'{{"channel":"executions","type":"snapshot","data":[{rows}],"sequence":{sequence}}}'


def mark(name: str, sequence: int) -> str:
    """An update that is found again by its order's name."""
    return (
        f'{{"channel":"executions","type":"update","data":[{{"timestamp":"{_time(0)}","order_status":"new",'
        f'"exec_type":"new","order_userref":0,"order_id":"{name}"}}],"sequence":{sequence}}}'
    )


def stamped(now_ns: int, sequence: int) -> str:
    """An update that carries the time of its sending, to be found again in whatever prints it."""
    return (
        f'{{"channel":"executions","type":"update","data":[{{"lastupdated":"{now_ns}","order_status":"new",'
        f'"exec_type":"new","order_userref":0,"order_id":"OLONEA-AAAAA-AAAAAA"}}],"sequence":{sequence}}}'
    )
