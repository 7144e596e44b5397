"""Spot v1's frames of openOrders, in the shapes of tests/frames."""

from __future__ import annotations

from bench.orders import EPOCH, Account, Order

GREETING = b'{"connectionID":17293822569102704645,"event":"systemStatus","status":"online","version":"1.9.6"}'


def acknowledgement(request: object) -> str:
    """The answer to the subscription of that number, if it has one."""
    number = f'"reqid":{request},' if request else ""
    return (
        f'{{"channelName":"openOrders","event":"subscriptionStatus",{number}"status":"subscribed",'
        '"subscription":{"maxratecount":125,"name":"openOrders"}}'
    )


def _amounts(order: Order, units: int) -> str:
    cost = units * order.price / 100
    average = order.price if units else 0
    return f'"vol_exec":"{units / 100:.8f}","cost":"{cost:.5f}","fee":"{cost * 0.0016:.5f}","avg_price":"{average:.5f}"'


def _whole(order: Order, status: str) -> str:
    side = "sell" if order.number & 1 else "buy"
    volume, price, pair = f"{order.units / 100:.8f}", f"{order.price:.5f}", order.pair[0]
    units = order.executed()
    cost = units * order.price / 100
    return (
        f'{{"avg_price":"{order.price if units else 0:.5f}","cost":"{cost:.5f}","descr":{{"close":null,"leverage":null,'
        f'"order":"{side} {volume} {pair} @ limit {price}","ordertype":"limit","pair":"{pair}","price":"{price}",'
        f'"price2":"0.00000","type":"{side}"}},"expiretm":null,"fee":"{cost * 0.0016:.5f}","limitprice":"0.00000",'
        f'"misc":"","oflags":"fciq","opentm":"{EPOCH + order.number}.123456","refid":null,"starttm":null,'
        f'"status":"{status}","stopprice":"0.00000","timeinforce":"GTC","userref":0,"vol":"{volume}",'
        f'"vol_exec":"{units / 100:.8f}"}}'
    )


def event(order: Order, sequence: int) -> str:
    """What happens next to an order."""
    updated = f'"lastupdated":"{EPOCH + sequence}.000009"'
    if order.stage == 0:
        change = _whole(order, "pending")
    elif order.stage == 1:
        change = '{"status":"open","userref":0}'
    elif order.stage == 2:
        change = f'{{{_amounts(order, order.units * 2 // 5)},"userref":0}}'
    elif order.stage == 3:
        change = f'{{{_amounts(order, order.units)},"userref":0}}'
    elif order.number % 4:
        change = f'{{{updated},"status":"closed",{_amounts(order, order.units)},"userref":0}}'
    else:
        amounts = _amounts(order, order.units)
        change = f'{{{updated},"status":"canceled",{amounts},"userref":0,"cancel_reason":"User requested"}}'
    return f'[[{{"{order.name}":{change}}}],"openOrders",{{"sequence":{sequence}}}]'


def snapshot(account: Account, sequence: int) -> str:
    """All open orders."""
    whole = ",".join(
        f'{{"{order.name}":{_whole(order, "pending" if order.stage == 1 else "open")}}}'
        for order in account.places
        if order.stage > 0
    )
    return f'[[{whole}],"openOrders",{{"sequence":{sequence}}}]'


def mark(name: str, sequence: int) -> str:
    """An update that is found again by its order's name."""
    return f'[[{{"{name}":{{"status":"open","userref":0}}}}],"openOrders",{{"sequence":{sequence}}}]'


def stamped(now_ns: int, sequence: int) -> str:
    """An update that carries the time of its sending, to be found again in whatever prints it."""
    return (
        f'[[{{"OLONEA-AAAAA-AAAAAA":{{"lastupdated":"{now_ns}","status":"open","vol_exec":"0.00000000",'
        f'"cost":"0.00000","fee":"0.00000","avg_price":"0.00000","userref":0}}}}],"openOrders",{{"sequence":{sequence}}}]'
    )
