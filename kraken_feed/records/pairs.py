"""Read a pair in each of Kraken's spellings: ``XBT/USD`` (v1), ``BTC/USD`` (v2), ``XBTUSD`` and ``XXBTZUSD`` (REST)."""

from __future__ import annotations

# Asset names with the prefix of Kraken's first years: X for a crypto currency, Z for a state's.
# Source: https://api.kraken.com/0/public/Assets, where the name and the `altname` differ by it.
_PREFIXED = frozenset(
    {
        "XETC", "XETH", "XLTC", "XMLN", "XREP", "XXBT", "XXDG", "XXLM", "XXMR", "XXRP", "XZEC",
        "ZAUD", "ZCAD", "ZEUR", "ZGBP", "ZJPY", "ZUSD",
    }
)  # fmt: skip
# What pairs are quoted in. A name without a slash is split before one of them, the longest first: PYUSD before USD.
_QUOTES = sorted(
    (
        "AED", "ARS", "AUD", "BRL", "BTC", "CAD", "CHF", "DAI", "DOT", "ETH", "EUR", "EURC", "EURQ", "EURR", "GBP",
        "JPY", "MXN", "PYUSD", "RLUSD", "SOL", "USD", "USDC", "USDD", "USDE", "USDG", "USDQ", "USDR", "USDS", "USDT",
        "XBT",
    ),
    key=lambda name: (-len(name), name),
)  # fmt: skip
_V2_NAMES = {"XBT": "BTC", "XDG": "DOGE"}
_V1_NAMES = {theirs: ours for ours, theirs in _V2_NAMES.items()}


def pair_key(name: str) -> str:
    """Return a key that is the same for all spellings of one pair: ``XBTUSD``.

    The two assets are joined, so that a name that cannot be split still has the key of the same name with a slash.
    """
    base, quote = _split(name.upper())
    return "".join(_V1_NAMES.get(asset, asset) for asset in (base, quote))


def is_pair(name: str) -> bool:
    """Return whether the text is a base and a quote asset, as far as that can be seen."""
    return all(_split(name.upper()))


def slashed(name: str, *, v2: bool) -> str:
    """Return a pair as the feed spells it, ``XBT/USD`` or in v2 ``BTC/USD``: REST's names have no slash. A name that
    has one, or cannot be split, stays as it is."""
    base, quote = _split(name)
    if "/" in name or not quote:
        return name
    names = _V2_NAMES if v2 else {}
    return f"{names.get(base, base)}/{names.get(quote, quote)}"


def _split(name: str) -> tuple[str, str]:
    """Return base and quote without old prefixes; the quote is empty if it cannot be told."""
    base, slash, quote = name.partition("/")
    if slash:
        return _bare(base), _bare(quote)
    if name[-4:] in _PREFIXED and (name[:-4] in _PREFIXED or name == "USDTZUSD"):  # but XTZUSD is XTZ and USD
        return _bare(name[:-4]), _bare(name[-4:])
    quote = next((quote for quote in _QUOTES if name.endswith(quote) and name != quote), "")
    return _bare(name.removesuffix(quote)), quote


def _bare(asset: str) -> str:
    return asset[1:] if asset in _PREFIXED else asset
