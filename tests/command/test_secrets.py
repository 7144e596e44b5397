"""Sentinel secrets: no byte of them leaves the process but on the way to Kraken.

:class:`Watched` learns on the wire what there is to keep; every place that a process says or writes something is then
searched for it. Places that one long run fills are in test_secret_places.py.
"""

from __future__ import annotations

import asyncio
import base64
import json
import signal
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from kraken_feed.simulator.exchange import Exchange
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.faults.scenario import RandomFaults, Scenario
from kraken_feed.simulator.rest.reply import Reply
from kraken_feed.text import MASK

from ..support.cases import each
from ..support.examples import some
from ..support.installed import QUICK, Done, Site, bare, finish, logged, run, said, site, start

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
        secrets = {*self.seen, *further}
        assert len(secrets) >= 3, "nothing was seen on the wire: the test watches the wrong place"
        found = leaks(done.out + done.err.encode(), secrets)
        assert not found, f"a secret leaked: {found}"


def forms(secret: str) -> dict[str, bytes]:
    """How a text looks where it turns up: as it is, escaped as JSON and as URLs have it, encoded (wherever it stands
    in what was encoded)."""
    found = {
        "raw": secret,
        "JSON": secret.replace("/", "\\/"),
        "URL": quote(secret, safe=""),
        "form": quote_plus(secret),
    }
    for shift in range(3):  # what stands before it decides how it is cut
        code = base64.b64encode(b"." * shift + secret.encode())[4 if shift else 0 :].decode()
        found[f"base64, {shift}"] = code.rstrip("=")[:-2]
    return {name: text.encode() for name, text in found.items()} | {"hex": secret.encode().hex().encode()}


def leaks(content: bytes, secrets: Iterable[str]) -> list[str]:
    """What of the secrets is in there: the first letters and the form."""
    return [f"{secret[:4]}… ({name})" for secret in secrets for name, form in forms(secret).items() if form in content]


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
        process = await start("openOrders", "-v", "--log-format", fmt, env=env)
        before = await said(process, text)
        if process.returncode is None:
            process.terminate()
        done = await finish(process)
        done.err = before + done.err
    assert text in done.err
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
import logging
import sys
import kraken_feed.feed.endpoint
from kraken_feed.cli.main import main

async def broken(self):
    unknown = "-".join(("SENTINEL", "local"))  # nobody has said that this is one to be masked
    token = (await self._shared.rest.token()).value
    self._shared.environment.secrets.add(token)
    try:
        raise KeyError("tried")
    except KeyError:
        logging.getLogger("asyncio").error("a library's", exc_info=True)
    credentials = self._shared.account.credentials
    raise RuntimeError(f"token {token} key {credentials.key} secrets {credentials.secrets()}")

kraken_feed.feed.endpoint.EndpointFeed._token = broken
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
    assert "KeyError: 'tried'" in done.err.replace("\\'", "'")
    assert "SENTINEL-local" not in done.err
    assert "This is a bug in kraken-feed" in done.err
    watched.assert_kept(done, env["KRAKEN_API_SECRET"], OTP)


CHECKED: dict[str, tuple[dict[str, str], int]] = {
    "right": ({}, 0),
    "another key's secret": ({"KRAKEN_API_SECRET": "another's"}, 77),
    "an unknown key": ({"KRAKEN_API_KEY": "SENTINEL/unknown+key0123456789"}, 77),
    "a wrong password": ({"KRAKEN_API_OTP": "SENTINELwrong0123456789"}, 77),
    "half a pair": ({"KRAKEN_API_SECRET": ""}, 78),
    "no base64": ({"KRAKEN_API_SECRET": "SENTINEL/secret*0123456789"}, 78),
}


@pytest.mark.parametrize("fmt", [(), ("--json",)], ids=["for people", "JSON"])
@pytest.mark.parametrize("case", CHECKED)
async def test_no_secret_is_in_what_a_check_says_of_a_key(case: str, fmt: tuple[str, ...], tmp_path: Path) -> None:
    given, code = CHECKED[case]
    async with site(tmp_path) as place:
        own = keys(place)
        env = own | given
        if env["KRAKEN_API_SECRET"] == "another's":
            env["KRAKEN_API_SECRET"] = place.exchange.secret
        watched = Watched(place.exchange)
        done = await run("check", *ALL, "-v", "--output", str(tmp_path / "out.jsonl"), *fmt, env=env)
    names = ("KRAKEN_API_KEY", "KRAKEN_API_SECRET", "KRAKEN_API_OTP")
    assert done.code == code
    watched.assert_kept(done, *filter(None, {where[name] for where in (own, env) for name in names}))


@pytest.mark.parametrize("fmt", [(), ("--json",)], ids=["for people", "JSON"])
@pytest.mark.parametrize("text", ["ESession:Invalid session", "EGeneral:Permission denied"])
async def test_no_secret_is_in_what_a_check_says_of_a_token_that_was_refused(
    text: str, fmt: tuple[str, ...], tmp_path: Path
) -> None:
    """With words of Kraken's that have them all in them."""
    async with site(tmp_path) as place:
        env = keys(place)
        secrets = " ".join(env[f"KRAKEN_API_{name}"] for name in ("KEY", "SECRET", "OTP"))
        place.inject(Fault("refuse_token", duration=1e9, text=f"{text} {secrets}"))
        watched = Watched(place.exchange)
        done = await run("check", *ALL, "-v", *fmt, env=env)
    assert done.code in (69, 77)
    assert b"[masked]" in done.out
    watched.assert_kept(done, env["KRAKEN_API_SECRET"], OTP)


SHORT = ["2026", "on", "a", "error"]


@pytest.mark.parametrize("otp", SHORT)
async def test_a_password_that_is_a_word_masks_nothing_of_ours(otp: str, tmp_path: Path) -> None:
    """Beside it, a run without a password says the same words."""
    runs = {}
    for given in (otp, ""):
        async with site(tmp_path) as place:
            key = place.exchange.add_key(otp=given or None)
            env = place.environment(KRAKEN_API_KEY=key.key, KRAKEN_API_SECRET=key.secret, KRAKEN_API_OTP=given)
            process = await start("openOrders", "-v", "--no-state", env=env)
            before = await said(process, '"event":"live"')
            place.inject(Fault("drop", code=1001, reason="restarting"))
            before += await said(process, '"event":"live"')
            process.terminate()
            runs[given] = await finish(process)
            runs[given].err = before + runs[given].err
    found, plain = runs[otp], runs[""]
    assert (found.code, MASK.encode() in found.out, MASK in found.err) == (0, False, False)
    for done in (found, plain):
        times = [json.loads(line)["ts"] for line in done.out.splitlines()]
        times += [entry["ts"] for line in done.err.splitlines() if "ts" in (entry := json.loads(line))]
        assert times == [time for time in times if datetime.fromisoformat(time)]
    events = [{json.loads(line)["event"] for line in done.err.splitlines()} for done in (found, plain)]
    assert events[0] & events[1] >= {"live", "connection_lost"}
    markers = [{json.loads(line)["event_name"] for line in done.out.splitlines()} for done in (found, plain)]
    assert markers[0] & markers[1] >= {"feed.live", "feed.lost", "feed.stopped"}
    (stopped,) = [line for line in map(json.loads, found.out.splitlines()) if line["event_name"] == "feed.stopped"]
    assert stopped["reason"] == "SIGTERM"


@pytest.mark.seeds
@pytest.mark.parametrize("otp", some(SHORT))
async def test_a_password_that_is_a_word_is_masked_in_the_words_of_kraken(otp: str, tmp_path: Path) -> None:
    """In a reason to close, in a refusal of a subscription, and in one of REST."""
    async with site(tmp_path) as place:
        place.configure(f"{QUICK}refused_s = 0.0\n")
        key = place.exchange.add_key(otp=otp)
        env = place.environment(KRAKEN_API_KEY=key.key, KRAKEN_API_SECRET=key.secret, KRAKEN_API_OTP=otp)
        process = await start("openOrders", "-v", "--no-state", env=env)
        await logged(process, "live")
        place.inject(
            Fault("drop", code=1001, reason=f"<{otp}>"),
            Fault("refuse_token", channel="openOrders", text=f"ESession:Invalid session <{otp}>"),
        )
        before = await said(process, "Invalid session")
        process.terminate()
        done = await finish(process)
        done.err = before + done.err
        place.inject(Fault("rest_error", method="GetWebSocketsToken", text=f"EAPI:Invalid key <{otp}>", duration=1e9))
        refused = await run("openOrders", "-v", "--no-state", env=env)
    for text in (done.out.decode(), done.err, refused.out.decode(), refused.err):
        assert f"<{otp}>" not in text
    assert f"1001 <{MASK}>" in done.out.decode()
    assert f"ESession:Invalid session <{MASK}>" in done.err
    assert f"EAPI:Invalid key <{MASK}>" in refused.err
    assert refused.code == 77


@pytest.mark.parametrize("command", ["openOrders", "check", "token", "call"])
async def test_a_key_and_a_secret_that_are_swapped_are_neither_sent_nor_shown(command: str, tmp_path: Path) -> None:
    async with site(tmp_path) as place:
        key = place.exchange.add_key()
        watched = Watched(place.exchange)
        env = place.environment(KRAKEN_API_KEY=key.secret, KRAKEN_API_SECRET=key.key)
        further = ("cancel_all", "--live") if command == "call" else ()
        done = await run(command, *further, env=env)
    assert done.code == 78
    assert "are swapped" in done.err + done.out.decode()
    assert not watched.seen
    for text in (done.out, done.err.encode()):
        assert not leaks(text, [key.key, key.secret])
        assert key.secret[-4:].encode() not in text


ECHO = """
import os, sys
print(" ".join(f"{name}={value}" for name, value in os.environ.items()), file=sys.stderr)
print("the key is", sys.argv[1], "and the secret", sys.argv[2], file=sys.stderr)
print(sys.argv[1 if "key" in sys.argv else 2])
raise SystemExit(int(sys.argv[4]))
"""


@pytest.mark.parametrize("fails", [0, 3])
@pytest.mark.parametrize("command", ["openOrders", "check", "token"])
async def test_what_a_command_says_is_masked_and_it_sees_no_credentials(
    command: str, fails: int, tmp_path: Path
) -> None:
    async with site(tmp_path) as place:
        key = place.exchange.add_key()
        argv = [[sys.executable, "-c", ECHO, key.key, key.secret, part, str(fails)] for part in ("key", "secret")]
        table = f"[accounts.main]\nkey_command = {json.dumps(argv[0])}\nsecret_command = {json.dumps(argv[1])}\n"
        place.configure(f"{QUICK}{table}")
        own = {"KRAKEN_API_OTP": "SENTINELotp-of-ours", "CREDENTIALS_DIRECTORY": "/SENTINEL"}
        further = ("--no-state", "--once") if command == "openOrders" else ()
        env = bare(tmp_path) | {"KRAKEN_FEED_CONFIG": str(tmp_path / "config.toml")} | own
        done = await run(command, *further, env=env)
    text = done.out.decode() + done.err
    assert done.code == (78 if fails else 0)
    assert "SENTINEL" not in text
    assert not leaks(text.encode(), [key.key, key.secret])
    if fails or command != "check":
        assert f"the key is {MASK} and the secret {MASK}" in text
    assert "HOME=" in text or (command == "check" and not fails)


async def test_the_sentinels_would_be_found(tmp_path: Path) -> None:
    """The check can fail: ``token`` does print one."""
    async with site(tmp_path) as place:
        watched = Watched(place.exchange)
        done = await run("token", env=place.environment())
    with pytest.raises(AssertionError, match="leaked"):
        watched.assert_kept(done)


@each("name", forms("x"))
@each("before", ["", ".", "..", "..."])
def test_a_secret_would_be_found_in_each_of_its_forms(name: str, before: str) -> None:
    secret = "a/b+c=" + "SENTINEL0123456789"
    for text, found in ((secret, True), (secret[::-1], False)):
        whole = f"{before}{text}.."
        code = base64.b64encode(whole.encode()).decode()
        encoded = {
            "raw": whole,
            "JSON": json.dumps(whole).replace("/", "\\/"),
            "URL": quote(whole, safe=""),
            "form": quote_plus(whole),
            "hex": whole.encode().hex(),
        }.get(name, code)
        assert bool(leaks(encoded.encode(), [secret])) is found
