"""`kraken-feed call` as installed, against the simulated exchange: what is sent, what is printed, what happens."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kraken_feed.order_entry.methods import METHODS
from kraken_feed.simulator.access.key import READ_PERMISSIONS, TRADING_PERMISSIONS
from kraken_feed.simulator.faults.fault import Fault
from kraken_feed.simulator.wire import v1, v2
from kraken_feed.simulator.wire.order_entry import Desk
from kraken_feed.simulator.wire.peer import Peer

from ..support.installed import COMMAND, Done, Site, bare, finish, logged, run, site, start
from ..support.timeouts import TIMEOUT_S
from .test_cli import full_pipe
from .test_secrets import Watched, keys

ROW = '{"order_type":"limit","side":"buy","order_qty":0.10,"limit_price":60000.0}'
LIMIT = ("add_order", "order_type=limit", "side=buy", "symbol=BTC/USD", "order_qty=0.10", "limit_price=60000.0")
PLACED = ["pending", "open"]

# Of every method: words, the frame with the order's and the token's places in it, the answers, what happens.
METHOD_TABLE: dict[str, tuple[str, str, int, list[str]]] = {
    "addOrder": (
        "ordertype=limit type=buy pair=XBT/USD price=60000.0 volume=0.10 reqid=7",
        '{"event":"addOrder","token":"TOKEN","reqid":7,"ordertype":"limit","type":"buy","pair":"XBT/USD",'
        '"price":"60000.0","volume":"0.10"}',
        1, PLACED,
    ),
    "editOrder": (
        "orderid=ORDER pair=XBT/USD price=60000.0 reqid=7",
        '{"event":"editOrder","token":"TOKEN","reqid":7,"orderid":"ORDER","pair":"XBT/USD","price":"60000.0"}',
        1, ["canceled", *PLACED],
    ),
    "amendOrder": (
        "txid=ORDER limit_price=60000.0 reqid=7",
        '{"event":"amendOrder","token":"TOKEN","reqid":7,"txid":"ORDER","limit_price":"60000.0"}',
        1, ["amended"],
    ),
    "cancelOrder": (
        "txid=ORDER txid=OTHER reqid=7",
        '{"event":"cancelOrder","token":"TOKEN","reqid":7,"txid":["ORDER","OTHER"]}',
        2, ["canceled", "canceled"],
    ),
    "cancelAll": ("reqid=7", '{"event":"cancelAll","token":"TOKEN","reqid":7}', 1, ["canceled", "canceled"]),
    "cancelAllOrdersAfter": (
        "timeout=60 reqid=7", '{"event":"cancelAllOrdersAfter","token":"TOKEN","reqid":7,"timeout":60}', 1, [],
    ),
    "add_order": (
        " ".join([*LIMIT[1:], "req_id=7"]),
        '{"method":"add_order","params":{"order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":0.10,'
        '"limit_price":60000.0,"token":"TOKEN"},"req_id":7}',
        1, PLACED,
    ),
    "amend_order": (
        "order_id=ORDER order_qty=0.20 req_id=7",
        '{"method":"amend_order","params":{"order_id":"ORDER","order_qty":0.20,"token":"TOKEN"},"req_id":7}',
        1, ["amended"],
    ),
    "edit_order": (
        "order_id=ORDER symbol=BTC/USD limit_price=60000.0 req_id=7",
        '{"method":"edit_order","params":{"order_id":"ORDER","symbol":"BTC/USD","limit_price":60000.0,'
        '"token":"TOKEN"},"req_id":7}',
        1, ["canceled", *PLACED],
    ),
    "cancel_order": (
        "order_id=ORDER order_id=OTHER req_id=7",
        '{"method":"cancel_order","params":{"order_id":["ORDER","OTHER"],"token":"TOKEN"},"req_id":7}',
        2, ["canceled", "canceled"],
    ),
    "cancel_all": ("req_id=7", '{"method":"cancel_all","params":{"token":"TOKEN"},"req_id":7}', 1, ["canceled"] * 2),
    "cancel_all_orders_after": (
        "timeout=60 req_id=7",
        '{"method":"cancel_all_orders_after","params":{"timeout":60,"token":"TOKEN"},"req_id":7}',
        1, [],
    ),
    "batch_add": (
        f"symbol=BTC/USD orders:=[{ROW},{ROW}] req_id=7",
        f'{{"method":"batch_add","params":{{"symbol":"BTC/USD","orders":[{ROW},{ROW}],"token":"TOKEN"}},"req_id":7}}',
        1, [*PLACED, *PLACED],
    ),
    "batch_cancel": (
        "orders=ORDER orders=OTHER req_id=7",
        '{"method":"batch_cancel","params":{"orders":["ORDER","OTHER"],"token":"TOKEN"},"req_id":7}',
        1, ["canceled", "canceled"],
    ),
}  # fmt: skip


class Market:
    """A site with two open orders, a key that may trade, and an ear on what it sends."""

    def __init__(self, place: Site, monkeypatch: pytest.MonkeyPatch, *permissions: str) -> None:
        self.place, self.exchange = place, place.exchange
        key = self.exchange.add_key(permissions=(*READ_PERMISSIONS, *permissions))
        self.env = place.environment(KRAKEN_API_KEY=key.key, KRAKEN_API_SECRET=key.secret)
        self.order, self.other = self.exchange.book.open
        self.sent: list[str] = []
        self.answers: list[str] = []
        self.taken = asyncio.Event()  # a request has arrived
        self._before = len(self.exchange.ledger.changes)
        receive, say = Peer.receive, Peer.say

        def heard(peer: Peer, text: bytes, now: float) -> None:
            self.sent.append(text.decode())
            receive(peer, text, now)
            self.taken.set()

        def said(peer: Peer, text: bytes, now: float) -> None:
            if self.sent:
                self.answers.append(text.decode("utf-8", "replace"))
            say(peer, text, now)

        monkeypatch.setattr(Peer, "receive", heard)
        monkeypatch.setattr(Peer, "say", said)

    @property
    def happened(self) -> list[str]:
        return [change.kind for change in self.exchange.ledger.changes[self._before :]]

    def words(self, method: str) -> list[str]:
        return [method, *self.filled(METHOD_TABLE[method][0]).split()]

    def filled(self, text: str) -> str:
        return text.replace("ORDER", self.order).replace("OTHER", self.other)

    async def call(self, *words: str, **environment: str) -> Done:
        return await run("call", *words, env=self.env | environment)


@pytest.fixture
def market(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    @asynccontextmanager
    async def opened(*permissions: str, **options: Any) -> AsyncIterator[Market]:
        async with site(tmp_path, open_orders=2, past_trades=0, **options) as place:
            # both in one pair, so that either can be edited
            for order_id in list(place.exchange.book.open):
                place.exchange.cancel(order_id, place.server.now())
            for _ in range(2):
                place.exchange.new_order(place.server.now(), volume="0.5")
            yield Market(place, monkeypatch, *(permissions or TRADING_PERMISSIONS))

    return opened


def token_of(frame: str) -> str:
    message = json.loads(frame)
    return str(message.get("token") or message["params"]["token"])


def test_the_table_has_every_method() -> None:
    assert list(METHOD_TABLE) == list(METHODS)


# ------------------------------------------------------------------------------------------------ every method


@pytest.mark.parametrize("method", METHOD_TABLE)
async def test_live_sends_one_frame_prints_krakens_answers_and_does_it(method: str, market: Any) -> None:
    _, frame, count, happens = METHOD_TABLE[method]
    async with market() as place:
        done = await place.call(*place.words(method), "--live")
    assert done.code == 0, done.err
    (sent,) = place.sent
    assert sent == place.filled(frame).replace("TOKEN", token_of(sent))
    assert done.out.decode().splitlines() == place.answers
    assert len(place.answers) == count
    assert place.happened == happens
    assert done.err == ""
    assert place.exchange.connections == place.exchange.world.token_calls == 1


@pytest.mark.parametrize("method", METHOD_TABLE)
async def test_without_live_nothing_happens_to_the_account(method: str, market: Any) -> None:
    _, frame, *_ = METHOD_TABLE[method]
    async with market() as place:
        done = await place.call(*place.words(method))
        timer = place.exchange.accounts[0].cancel_at
    assert done.code == 0, done.err
    assert place.happened == []
    assert timer == float("inf")
    if METHODS[method].checks:
        (sent,) = place.sent
        asked = json.loads(sent).get("params", json.loads(sent))["validate"]
        assert asked == "true" if method == "addOrder" else asked is True
        assert done.out.decode().splitlines() == place.answers
        if METHODS[method].unproven:
            said = "probably only checked: Kraken's answer names no new order."
        else:
            said = "only checked: the account did not change. Add --live to carry out the request."
        assert done.err == f"kraken-feed: {said}\n"
    else:
        assert place.sent == []
        assert place.exchange.connections == place.exchange.world.token_calls == 0
        assert done.out.decode() == place.filled(frame).replace("TOKEN", "[masked]") + "\n"
        assert done.err == "kraken-feed: nothing was sent. This is what --live would send.\n"


@pytest.mark.parametrize("method", METHOD_TABLE)
async def test_a_key_that_only_reads_is_told_the_permission(method: str, market: Any) -> None:
    async with market("query-funds") as place:
        done = await place.call(*place.words(method), "--live")
    assert done.code == 77
    assert place.happened == []
    assert json.loads(done.out)
    (entry,) = done.log
    assert "EGeneral:Permission denied" in entry["what"]
    needs = {"add": "modify-trades", "edit": "modify-trades) and ", "batch_add": "modify-trades) and "}
    part = next((part for name, part in reversed(needs.items()) if method.startswith(name)), "modify-trades) or ")
    assert f"{method} needs the permission" in entry["why"]
    assert part in entry["why"]
    assert '"Create & modify orders"' in entry["why"]


@pytest.mark.parametrize("method", METHOD_TABLE)
async def test_what_kraken_refuses_exits_65_with_its_meaning(method: str, market: Any) -> None:
    async with market() as place:
        place.place.inject(Fault("refuse_order", text="EOrder:Insufficient funds"))
        words = [word for word in place.words(method) if not word.endswith(place.other) or "batch" in method]
        done = await place.call(*words, "--live")
    assert done.code == 65
    assert place.happened == []
    assert done.out.decode().splitlines() == place.answers
    (entry,) = done.log
    assert (entry["event"], entry["exit_code"]) == ("exit", 65)
    assert entry["what"] == f"Kraken refused {method}: EOrder:Insufficient funds"
    assert "free balance is too small" in entry["why"]


async def test_a_market_order_is_done_and_its_fill_comes_through_the_feed(market: Any) -> None:
    async with market() as place:
        done = await place.call(
            "add_order", "order_type=market", "side=sell", "symbol=BTC/USD", "order_qty=0.5", "--live"
        )
        seen = await run("executions", "--once", env=place.env)
    order_id = done.lines[0]["result"]["order_id"]
    assert place.happened == ["pending", "open", "fill", "closed"]
    assert [line["data"]["exec_type"] for line in seen.lines if line.get("order_id") == order_id] == ["trade"]


async def test_parameters_come_from_a_file_and_from_stdin(market: Any, tmp_path: Path) -> None:
    (tmp_path / "order.json").write_text('{"order_type":"limit","side":"buy","symbol":"BTC/USD","order_qty":0.10}')
    async with market() as place:
        done = await place.call("add_order", "--params", str(tmp_path / "order.json"), "limit_price=60000.0", "--live")
        assert done.code == 0, done.err
        process = await asyncio.create_subprocess_exec(
            COMMAND, "call", "cancel_order", "--live", "--params", "-", env=place.env,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate(json.dumps({"order_id": [place.order]}).encode())
    assert process.returncode == 0, err
    assert json.loads(out)["result"] == {"order_id": place.order}
    assert place.happened == [*PLACED, "canceled"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("call",), "No method is named."),
        (("call", "addorder"), "Did you mean addOrder?"),
        (("call", "add_order", "--live", "side=buy"), "add_order needs order_type."),
        (("call", *LIMIT, "validate=false"), "validate is false, but --live is not given."),
        (("call", "cancel_all", "--params", "/nowhere"), "Cannot read --params /nowhere."),
        (("call", "cancel_all", "--lvie"), "Did you mean --live?"),
        (("call", "cancel_all", "--timeout", "0"), "is not a time"),
    ],
)
async def test_a_mistake_is_said_in_plain_words_and_nothing_is_sent(
    words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = await run(*words, env=bare(tmp_path))
    assert (done.code, done.out) == (2, b"")
    assert says in done.err


# ------------------------------------------------------------------------------------------------ nothing was sent


async def test_an_exchange_that_cannot_be_reached_was_sent_nothing(market: Any, tmp_path: Path) -> None:
    async with market() as place:
        env = place.env
        place.place.configure("[connection]\nopen_timeout_s = 1.0\n")
        text = (tmp_path / "config.toml").read_text()
        (tmp_path / "config.toml").write_text(text.replace(f":{place.place.server.port}/v2", ":1/v2"))
        done = await run("call", *LIMIT, "--live", env=env)
    assert done.code == 69
    assert done.log[-1]["remedy"].startswith("Nothing was sent.")
    assert place.sent == []


@pytest.mark.parametrize(
    ("words", "stdout"),
    [((*LIMIT, "--live"), ">&-"), (("-q", "cancel_all"), ">&-"), (("cancel_all",), ">/dev/full")],
)
async def test_a_stdout_that_takes_nothing_before_the_request_says_that_nothing_was_sent(
    words: tuple[str, ...], stdout: str, market: Any
) -> None:
    async with market() as place:
        flags, rest = [word for word in words if word == "-q"], [word for word in words if word != "-q"]
        shell = await asyncio.create_subprocess_exec(
            "bash", "-c", f'exec "$@" {stdout}', "bash", COMMAND, *flags, "call", *rest, env=place.env,
            stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        done = await finish(shell)
        assert place.exchange.connections == 0
    assert done.code == 74
    assert done.log[-1]["remedy"].startswith("Nothing was sent.")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("rest_error", text="EAPI:Invalid signature", duration=60.0), 77),
        (Fault("rest_error", text="EService:Unavailable", duration=60.0), 69),
        (Fault("upgrade_refused", status=503), 69),
    ],
)
async def test_what_fails_before_the_request_says_that_nothing_was_sent(fault: Fault, code: int, market: Any) -> None:
    async with market() as place:
        place.place.inject(fault)
        done = await place.call(*LIMIT, "--live")
    assert (done.code, done.out, place.sent) == (code, b"", [])
    assert done.log[-1]["remedy"].startswith("Nothing was sent.")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_before_the_request_prevents_it(number: signal.Signals, market: Any) -> None:
    asked = asyncio.Event()
    async with market() as place:
        place.place.inject(Fault("rest_timeout", duration=60.0))
        answer = place.exchange.rest

        def hear(*call: Any) -> Any:
            asked.set()
            return answer(*call)

        place.exchange.rest = hear
        process = await start("call", *LIMIT, "--live", env=place.env)
        async with asyncio.timeout(TIMEOUT_S):
            await asked.wait()
        process.send_signal(number)
        done = await finish(process)
    assert done.code == -number
    assert place.sent == []
    assert done.err == f"kraken-feed: nothing was sent: {number.name} came first.\n"


# ------------------------------------------------------------------------------------------------ sent, and then?


def unknown(done: Done) -> dict[str, Any]:
    """The message of an outcome that nobody knows."""
    entry = done.log[-1]
    assert (done.code, entry["exit_code"]) == (76, 76)
    assert entry["what"].startswith("Unknown whether ")
    assert entry["remedy"].startswith(
        "Check the result before you send the request again: kraken-feed executions --once"
    )
    return entry


@pytest.mark.parametrize("method", METHOD_TABLE)
async def test_a_lost_answer_leaves_the_outcome_unknown_and_the_request_is_sent_once(method: str, market: Any) -> None:
    async with market() as place:
        place.place.inject(Fault("no_answer"))
        done = await place.call(*place.words(method), "--live", "--timeout", "0.3")
    entry = unknown(done)
    assert entry["what"] == f"Unknown whether {method} was done: no answer came within 0.3 s."
    assert "req_id 7" in entry["why"] or "reqid 7" in entry["why"]
    assert ("The same request sets it again" in entry["remedy"]) is ("timeout=60" in METHOD_TABLE[method][0])
    assert done.out == b""
    assert len(place.sent) == place.exchange.connections == 1
    assert place.happened == METHOD_TABLE[method][3]


async def test_the_message_names_what_to_look_for_and_where(market: Any) -> None:
    async with market() as place:
        place.place.inject(Fault("no_answer", variant="ignored"))
        config = str(place.place.home / "config.toml")
        words = (*LIMIT, "cl_ord_id=mine", "--live", "--timeout", "0.3", "--config", config)
        entry = unknown(await place.call(*words))
        look = entry["remedy"].partition(": kraken-feed ")[2].split()
        seen = await run(*look, env=place.env)
    assert "cl_ord_id mine" in entry["why"]
    assert seen.code == 0
    assert {line["order_id"] for line in seen.lines if "order_id" in line} == {place.order, place.other}


@pytest.mark.parametrize(
    "fault", [Fault("drop_answer"), Fault("drop_answer", code=1001), Fault("drop_answer", code=1006)]
)
@pytest.mark.parametrize("method", ["addOrder", "add_order"])
async def test_a_connection_that_ends_instead_of_an_answer_leaves_it_unknown(
    fault: Fault, method: str, market: Any
) -> None:
    async with market() as place:
        place.place.inject(fault)
        entry = unknown(await place.call(*place.words(method), "--live"))
    assert "no answer came before the connection was over" in entry["what"]
    assert len(place.sent) == place.exchange.connections == 1
    assert place.happened == PLACED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_after_the_request_leaves_it_unknown(number: signal.Signals, market: Any) -> None:
    async with market() as place:
        place.place.inject(Fault("no_answer"))
        process = await start("call", *LIMIT, "--live", "--timeout", "60", env=place.env)
        async with asyncio.timeout(TIMEOUT_S):
            await place.taken.wait()
        process.send_signal(number)
        entry = unknown(await finish(process))
    assert f"no answer came before {number.name} came" in entry["what"]
    assert place.happened == PLACED


@pytest.mark.parametrize("method", ["cancelOrder", "cancel_order"])
async def test_of_several_orders_the_answers_that_came_are_printed_and_the_rest_is_unknown(
    method: str, market: Any
) -> None:
    async with market() as place:
        place.place.inject(Fault("no_answer", count=1))
        process = await start("call", *place.words(method), "--live", "--timeout", "60", env=place.env)
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            line = await process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        done = await finish(process)
    assert "only 1 of 2 answers came before SIGTERM came" in unknown(done)["what"]
    assert [line.decode().rstrip("\n"), done.out] == [*place.answers, b""]


async def test_an_answer_that_comes_twice_is_not_the_other_orders(market: Any) -> None:
    async with market() as place:
        place.place.inject(Fault("no_answer", count=1), Fault("duplicate_answer"))
        done = await place.call(*place.words("cancel_order"), "--live", "--timeout", "2")
    assert "only 1 of 2 answers came" in unknown(done)["what"]
    assert done.out.decode().splitlines() == place.answers[:1]
    assert [entry["event"] for entry in done.log] == ["answer_repeated", "exit"]


async def test_answers_that_come_twice_are_printed_once(market: Any) -> None:
    async with market() as place:
        place.place.inject(Fault("duplicate_answer"))
        done = await place.call(*place.words("cancel_order"), "--live")
    assert done.code == 0
    assert done.out.decode().splitlines() == place.answers[::2]


async def test_in_v1_one_answer_too_many_makes_all_of_them_doubtful(market: Any) -> None:
    """They do not say which order they are for."""
    async with market() as place:
        place.place.inject(Fault("duplicate_answer"))
        done = await place.call(*place.words("cancelOrder"), "--live")
    assert "more answers came than orders were named" in unknown(done)["what"]


@pytest.mark.parametrize(
    ("frames", "says"),
    [
        ([b"{", b"\xff"], "no answer came within 2 s, and a frame that cannot be read"),
        ([b'{"method":"add_order","req_id":7,"success":"perhaps"}'], "neither a success nor an error"),
        ([b'{"method":"add_order","req_id":8,"success":true}'], "no answer came within 2 s."),
        (
            [b'{"method":"add_order","req_id":7,"success":false,"error":"EGeneral:Internal error"}'],
            "EGeneral:Internal error",
        ),
    ],
)
async def test_what_says_nothing_certain_leaves_it_unknown(
    frames: list[bytes], says: str, market: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(v2, "order", lambda *request: frames)
    async with market() as place:
        done = await place.call(*LIMIT, "req_id=7", "--live", "--timeout", "2")
    assert says in unknown(done)["what"]


async def test_a_check_that_is_asked_for_with_live_is_said_to_be_one(market: Any) -> None:
    async with market() as place:
        done = await place.call(*LIMIT, "validate=true", "--live")
        quiet = await place.call(*LIMIT, "validate=true", "--live", "--quiet")
    assert (done.code, place.happened) == (0, [])
    assert done.err == "kraken-feed: only checked (validate): the account did not change.\n"
    assert (quiet.code, quiet.err) == (0, "")


async def test_a_check_that_is_not_answered_has_done_nothing(market: Any) -> None:
    async with market() as place:
        place.place.inject(Fault("no_answer"))
        done = await place.call(*LIMIT, "--timeout", "0.3")
    assert done.code == 69
    assert "the account did not change" in done.log[-1]["remedy"]


@pytest.mark.parametrize("method", ["addOrder", "editOrder", "add_order", "edit_order", "batch_add"])
async def test_a_check_whose_answer_names_a_new_order_is_cried_out(
    method: str, market: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kraken would have done what it was to check: that must not be taken for a check."""
    speak = v1 if METHODS[method].dialect == "v1" else v2
    do: Callable[..., list[bytes]] = speak.order

    def deaf(event: str, message: Mapping[str, Any], desk: Desk) -> list[bytes]:
        heard = {name: value for name, value in message.items() if name != "validate"}
        if "params" in heard:
            heard["params"] = {name: value for name, value in message["params"].items() if name != "validate"}
        return do(event, heard, desk)

    monkeypatch.setattr(speak, "order", deaf)
    async with market() as place:
        done = await place.call(*place.words(method))
    assert "only a check was requested, but Kraken's answer names an order, O" in unknown(done)["what"]


@pytest.mark.parametrize("output", ["full", "closed"])
async def test_an_answer_that_cannot_be_written_is_told_on_stderr(output: str, market: Any) -> None:
    async with market() as place:
        if output == "full":
            stdout = os.open("/dev/full", os.O_WRONLY)
        else:
            reader, stdout = os.pipe()
            os.close(reader)
        process = await start("call", *LIMIT, "--live", env=place.env, stdout=stdout)
        os.close(stdout)
        done = await finish(process)
    assert done.code == 74
    (entry,) = done.log
    assert entry["what"] == "Kraken's answer cannot be written to stdout."
    assert f"Kraken did the request: {place.answers[0]}" in entry["why"]
    assert place.happened == PLACED


async def test_a_terminal_is_not_steered_by_what_kraken_says(market: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said = '{"method":"add_order",\t"req_id":7,"success":false,"error":"EOrder:ü\u009b31m\u202e\U000e0001"}'
    monkeypatch.setattr(v2, "order", lambda *request: [said.encode()])
    async with market() as place:
        piped = await place.call(*LIMIT, "req_id=7", "--live")
        terminal, stdout = os.openpty()
        process = await start("call", *LIMIT, "req_id=7", "--live", env=place.env, stdout=stdout)
        done = await finish(process)
        shown = os.read(terminal, 4096).decode()
        os.close(stdout)
        os.close(terminal)
    assert piped.out.decode() == said + "\n"
    assert done.code == 65
    assert "EOrder:ü\\u009b31m\\u202e\\udb40\\udc01" in shown
    assert json.loads(shown) == json.loads(said)


async def test_a_signal_while_nobody_reads_the_answer_has_it_told_on_stderr(market: Any) -> None:
    async with market() as place:
        reader, stdout = full_pipe()
        process = await start("call", *LIMIT, "--live", "--timeout", "60", env=place.env, stdout=stdout)
        os.close(stdout)
        async with asyncio.timeout(TIMEOUT_S):
            await place.taken.wait()
        answers = 0
        while not answers:
            process.send_signal(signal.SIGUSR1)
            answers = (await logged(process, "state"))["answers"]
        process.send_signal(signal.SIGTERM)
        done = await finish(process)
        os.close(reader)
    assert done.code == 74
    assert f"Kraken did the request: {place.answers[0]}" in done.log[-1]["why"]
    assert place.happened == PLACED


# ------------------------------------------------------------------------------------------------ secrets


@pytest.mark.parametrize("fmt", ["json", "console"])
@pytest.mark.parametrize("case", ["done", "refused", "lost", "echoed", "dry"])
async def test_no_secret_is_in_what_is_printed_or_said(
    case: str, fmt: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def echo(event: str, message: Mapping[str, Any], desk: Desk) -> list[bytes]:
        token = message["params"]["token"]
        escaped = "".join(f"\\u{ord(character):04{'xX'[place % 2]}}" for place, character in enumerate(token))
        partly = token.replace("/", "\\u002f").replace("+", "\\u002B").replace("a", "\\u0061")
        slashes = token.replace("/", "\\/")
        text = f'"error":"{token} {slashes} {escaped} {partly}"'
        return [f'{{"method":"add_order","success":false,{text}}}'.encode()]

    if case == "echoed":
        monkeypatch.setattr(v2, "order", echo)
    async with site(tmp_path) as place:
        env = keys(place)
        place.exchange.keys[env["KRAKEN_API_KEY"]].permissions += TRADING_PERMISSIONS
        faults = {"refused": [Fault("refuse_order")], "lost": [Fault("no_answer")]}
        place.inject(*faults.get(case, []))
        watched = Watched(place.exchange)
        words = [*LIMIT, *["--live"] * (case != "dry"), "--timeout", "1", "-v", "--log-format", fmt]
        done = await run("call", *words, env=env | {"PYTHONASYNCIODEBUG": "1"})
    assert done.code == {"done": 0, "dry": 0, "lost": 76}.get(case, 65)
    if case == "echoed":
        assert done.out.count(b"[masked]") == 4
    watched.assert_kept(done, env["KRAKEN_API_SECRET"])
