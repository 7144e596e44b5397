"""Sentinel secrets: no byte of them leaves the process but on the way to Kraken."""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.fault import Fault
from kraken_feed.simulator.rest_api import Reply
from kraken_feed.simulator.scenario import RandomFaults, Scenario

from .installed import Done, Site, bare, finish, logged, run, site, start

ALL = ("openOrders", "ownTrades", "executions", "balances")
OTP = "SENTINELotp0123456789"


class Watched:
    """Notes every secret that crosses the wire: keys, signatures, one-time passwords, tokens."""

    def __init__(self, exchange: Exchange) -> None:
        self.seen: set[str] = set()
        self._answer = exchange.rest
        exchange.rest = self.rest  # type: ignore[method-assign]  # the seam that the server calls

    def rest(self, method: str, path: str, headers: Mapping[str, str], body: bytes, now: float) -> Reply:
        reply = self._answer(method, path, headers, body, now)
        folded = {name.lower(): value for name, value in headers.items()}
        self.seen |= {folded[name] for name in ("api-key", "api-sign") if name in folded}
        try:
            self.seen.add(json.loads(reply.body)["result"]["token"])
        except (ValueError, KeyError, TypeError):
            return reply
        return reply

    def assert_kept(self, done: Done, *further: str) -> None:
        assert len(self.seen) >= 3, "nothing was seen on the wire: the test watches the wrong place"
        said = done.out + done.err.encode()
        for secret in (*self.seen, *further):
            for form in (secret, secret.replace("/", "\\/"), base64.b64encode(secret.encode()).decode()[:-4]):
                assert form.encode() not in said, f"a secret leaked: {form[:6]}…"


def keys(place: Site) -> dict[str, str]:
    """A key with a one-time password, and the environment that has it."""
    key = place.exchange.add_key(otp=OTP)
    return place.environment(KRAKEN_API_KEY=key.key, KRAKEN_API_SECRET=key.secret, KRAKEN_API_OTP=OTP)


async def test_no_secret_is_on_stdout_or_stderr_at_the_most_verbose_level(tmp_path: Path) -> None:
    """With Python's and the libraries' own debugging switched on, faults all the time, and acknowledgements that echo
    the token."""
    scenario = Scenario(random=RandomFaults(every=0.2), tier="pro")
    async with site(tmp_path, rate=50.0, scenario=scenario) as place:
        env = keys(place) | {"PYTHONASYNCIODEBUG": "1", "PYTHONWARNINGS": "default", "HTTPX_LOG_LEVEL": "trace"}
        place.exchange.keys[env["KRAKEN_API_KEY"]].counter.decay = 1e9
        watched = Watched(place.exchange)
        process = await start(*ALL, "-v", "--count", "400", env=env)
        await logged(process, "live")
        process.send_signal(signal.SIGUSR1)
        done = await finish(process)
    assert done.code == 0
    watched.assert_kept(done, env["KRAKEN_API_SECRET"], OTP)


@pytest.mark.parametrize("text", ["ESession:Invalid session", "EGeneral:Permission denied", "Brand new"])
@pytest.mark.parametrize("fmt", ["json", "console"])
async def test_no_secret_is_in_what_is_said_of_a_refusal(text: str, fmt: str, tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = keys(place)
        place.inject(Fault("refuse_token", duration=1e9, text=text))
        watched = Watched(place.exchange)
        process = await start("openOrders", "-v", "--log-format", fmt, "--duration", "1", env=env)
        done = await finish(process)
    watched.assert_kept(done, env["KRAKEN_API_SECRET"], OTP)


async def test_no_secret_is_in_what_is_said_of_a_refused_key(tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = keys(place) | {"KRAKEN_API_OTP": "SENTINELwrong0123456789"}
        watched = Watched(place.exchange)
        done = await run("openOrders", "-v", env=env)
        watched.seen |= {"SENTINELwrong0123456789", "another"}  # one call, no token
    assert done.code == 77
    watched.assert_kept(done, env["KRAKEN_API_SECRET"])


async def test_no_secret_is_in_the_message_of_a_configuration_that_holds_one(tmp_path: Path) -> None:
    for number, line in enumerate(
        ('[accounts.main]\nsecret = "SENTINEL/secret"', '[accounts.main]\nkey_file = ["SENTINEL/secret"]',
         'channels = ["SENTINEL/secret', '[endpoints]\nrest = "https://SENTINEL/secret:x@api.kraken.com"')
    ):  # fmt: skip
        path = tmp_path / f"{number}.toml"
        path.write_text(line)
        done = await run("openOrders", "--config", str(path), env=bare(tmp_path))
        assert done.code == 78
        assert "SENTINEL" not in done.err


DEFECT = """
import sys
import kraken_feed.tail
from kraken_feed.cli import main

async def broken(self):
    token = (await self._shared.rest.token()).value
    self._shared.secrets.add(token)
    raise RuntimeError(f"token {token} key {self._shared.credentials.key} secrets {self._shared.credentials.secrets()}")

kraken_feed.tail.Tail._token = broken
main(sys.argv[1:])
"""


@pytest.mark.parametrize("fmt", ["json", "console"])
async def test_no_secret_is_in_the_traceback_of_a_defect(fmt: str, tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        env = keys(place)
        watched = Watched(place.exchange)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DEFECT, "openOrders", "-v", "--log-format", fmt, env=env,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        done = await finish(process)
    assert done.code == 1
    assert "RuntimeError: token [masked] key [masked]" in done.err
    assert "This is a defect of kraken-feed" in done.err
    watched.assert_kept(done, env["KRAKEN_API_SECRET"], OTP)


async def test_the_sentinels_would_be_found(tmp_path: Path) -> None:
    """The check can fail: ``token`` does print one."""
    async with site(tmp_path) as place:
        watched = Watched(place.exchange)
        done = await run("token", env=place.environment())
    with pytest.raises(AssertionError, match="leaked"):
        watched.assert_kept(done)
