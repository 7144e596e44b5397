"""Answer the few public REST methods that clients call at their start."""

from collections.abc import Mapping, Sequence

from ..market.number import fixed, quantum
from ..market.pair import Asset, Pair
from ..market.stamp import rfc1123, rfc3339_seconds
from ..quirks.shape import JsonObject
from ..world import World
from .call import RestError


def answer(world: World, name: str, params: Mapping[str, str], now: float) -> object:
    """Return the result of a public method. Raises RestError."""
    if name == "Time":
        shown = world.shown_time(now)
        return {"unixtime": int(shown), "rfc1123": rfc1123(shown)}
    if name == "SystemStatus":
        return {"status": world.status, "timestamp": rfc3339_seconds(world.shown_time(now))}
    if name == "Assets":
        return {asset.rest_balance: _asset(asset) for asset in world.assets}
    if name == "AssetPairs":
        return {pair.rest: _pair(pair) for pair in _wanted(world.pairs, params.get("pair"))}
    raise RestError("EGeneral:Unknown method")


def _wanted(pairs: Sequence[Pair], names: str | None) -> list[Pair]:
    if names is None:
        return list(pairs)
    wanted = set(names.split(","))
    found = [pair for pair in pairs if wanted & {pair.rest, pair.altname, pair.v1}]
    if len(found) != len(wanted):
        raise RestError("EQuery:Unknown asset pair")
    return found


def _asset(asset: Asset) -> JsonObject:
    return {
        "aclass": asset.aclass,
        "altname": asset.v1,
        "decimals": asset.decimals,
        "display_decimals": min(5, asset.decimals),
        "status": "enabled",
    }


def _pair(pair: Pair) -> JsonObject:
    return {
        "altname": pair.altname,
        "wsname": pair.v1,
        "aclass_base": pair.base.aclass,
        "base": pair.base.rest,
        "aclass_quote": "currency",
        "quote": pair.quote.rest,
        "lot": "unit",
        "cost_decimals": pair.wide_decimals,
        "pair_decimals": pair.price_decimals,
        "lot_decimals": 8,
        "lot_multiplier": 1,
        "leverage_buy": [],
        "leverage_sell": [],
        "fees": [[0, 0.26]],
        "fees_maker": [[0, 0.16]],
        "fee_volume_currency": "ZUSD",
        "margin_call": 80,
        "margin_stop": 40,
        "ordermin": "0.0001",
        "costmin": "0.5",
        "tick_size": fixed(quantum(pair.price_decimals), pair.price_decimals),
        "status": "online",
    }
