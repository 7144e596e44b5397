"""One pair has one key, however Kraken or a person spells it."""

from __future__ import annotations

from kraken_feed.records.pairs import is_pair, pair_key, slashed

from ...support.cases import each

SPELLINGS = [
    ("XBT/USD", "BTC/USD", "XBTUSD", "BTCUSD", "XXBTZUSD", "btc/usd", "xbtusd"),
    ("ETH/XBT", "ETH/BTC", "ETHXBT", "ETHBTC", "XETHXXBT"),
    ("DOGE/USD", "XDG/USD", "XDGUSD", "DOGEUSD"),
    ("USDT/USD", "USDTUSD", "USDTZUSD"),
    ("XTZ/USD", "XTZUSD"),
    ("EUR/USD", "EURUSD", "ZEURZUSD"),
    ("XBT/PYUSD", "BTC/PYUSD", "XBTPYUSD"),
    ("ADA/EUR", "ADAEUR"),
    ("AAPLx/USD", "AAPLxUSD", "aaplx/usd"),
]


@each("names", SPELLINGS)
def test_all_spellings_of_a_pair_have_one_key(names: tuple[str, ...]) -> None:
    assert len(set(map(pair_key, names))) == 1
    assert all(map(is_pair, names))


def test_different_pairs_have_different_keys() -> None:
    assert len({pair_key(names[0]) for names in SPELLINGS}) == len(SPELLINGS)
    assert pair_key("XBT/USDT") != pair_key("XBT/USD") != pair_key("XBT/USDC")


@each("text", ["BTC", "USD", "", "XBTFOO", "/USD", "BTC/"])
def test_what_cannot_be_split_is_no_pair(text: str) -> None:
    assert not is_pair(text)


def test_a_pair_with_an_unknown_quote_has_the_key_of_its_spelling_with_a_slash() -> None:
    assert pair_key("XBTFOO") == pair_key("XBT/FOO")


@each(
    ("name", "v1", "v2"),
    [
        ("XXBTZUSD", "XBT/USD", "BTC/USD"),
        ("ADAEUR", "ADA/EUR", "ADA/EUR"),
        ("XDGUSD", "XDG/USD", "DOGE/USD"),
        ("AAPLxUSD", "AAPLx/USD", "AAPLx/USD"),
        ("XBT/USD", "XBT/USD", "XBT/USD"),
        ("XBTFOO", "XBTFOO", "XBTFOO"),
        ("", "", ""),
    ],
)
def test_rests_names_are_spelled_as_the_feed_does(name: str, v1: str, v2: str) -> None:
    assert (slashed(name, v2=False), slashed(name, v2=True)) == (v1, v2)
