"""Metrics end to end: what a running feed exposes; alerts, dashboard and documentation speak of that alone."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client.parser import text_string_to_metric_families

from kraken_feed.service.metrics import FAMILIES, WRITE

from ..support.cases import each
from ..support.figures import Reply, ask
from ..support.installed import QUICK, finish, key, lines, logged, named, run, site, start
from ..support.repository import ROOT
from ..support.timeouts import TIMEOUT_S
from ..support.tools import tool

ALERTS = ROOT / "contrib" / "prometheus" / "alerts.yml"
ALERTS_TEST = ALERTS.with_name("alerts_test.yml")
DASHBOARD: dict[str, Any] = json.loads((ROOT / "contrib" / "grafana" / "kraken-feed.json").read_text())
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()

CHANNELS = ("openOrders", "executions")
TARGET_LABELS = {"instance", "job"}  # that Prometheus adds


# ------------------------------------------------------------------------------------------------ a running feed


class Scrape(NamedTuple):
    """What a running feed answered once all of its channels were live."""

    metrics: Reply
    alive: Reply
    ready: Reply
    code: int
    secrets: tuple[str, ...]

    @property
    def labels(self) -> Mapping[str, set[str]]:
        """The labels of every sample's name."""
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(self.metrics.body.decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
        return found


async def _scrape(home: Path) -> Scrape:
    async with site(home, rate=20.0) as place:
        place.configure(f'{QUICK}\n[metrics]\nlisten = "127.0.0.1:0"\n')
        process = await start(*CHANNELS, env=place.environment())
        url = (await logged(process, "metrics_listening"))["url"]
        for _ in CHANNELS:
            await lines(process, named("feed.live"))
        paths = ("/metrics", "/healthz", "/readyz")
        metrics, alive, ready = [await asyncio.to_thread(ask, url, path) for path in paths]
        process.terminate()
        done = await finish(process)
        return Scrape(metrics, alive, ready, done.code, tuple(key(place.exchange).values()))


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    return asyncio.run(_scrape(tmp_path_factory.mktemp("home")))


def test_a_running_feed_is_alive_and_ready(scrape: Scrape) -> None:
    assert (scrape.alive.status, scrape.alive.json()) == (200, {"status": "ok"})
    assert (scrape.ready.status, scrape.ready.json()) == (200, {"status": "ready"})


def test_a_running_feed_tells_what_it_does(scrape: Scrape) -> None:
    samples = {
        (sample.name, *(sample.labels.get(name, "") for name in ("channel", "event_name", "result"))): sample.value
        for family in text_string_to_metric_families(scrape.metrics.body.decode())
        for sample in family.samples
    }
    for channel in CHANNELS:
        assert samples["kraken_feed_live", channel, "", ""] == 1
        assert samples["kraken_feed_records_total", channel, "feed.live", ""] == 1
        assert samples["kraken_feed_last_frame_timestamp_seconds", channel, "", ""] > 1.7e9
    assert samples["kraken_feed_token_fetches_total", "", "", "ok"] == 2
    assert samples["kraken_feed_output_lines_total", "", "", ""] >= 2


def test_a_running_feed_exposes_every_metric_and_no_other(scrape: Scrape) -> None:
    exposed = {name for name in scrape.labels if name.startswith("kraken_feed_")}
    histogram = {f"kraken_feed_{WRITE}_{suffix}" for suffix in ("bucket", "sum", "count")}
    assert exposed == {f"kraken_feed_{family.name}" for family in FAMILIES} | histogram


def test_metrics_have_neither_secrets_nor_the_ids_of_orders(scrape: Scrape) -> None:
    text = scrape.metrics.body.decode()
    assert not [secret for secret in scrape.secrets if secret in text]
    assert not re.search(r"\b[OT][A-Z0-9]{5}-[A-Z0-9]{5}-[A-Z0-9]{6}\b", text)


def test_promtool_finds_nothing_to_say_of_the_metrics(scrape: Scrape) -> None:
    checked = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=scrape.metrics.body, capture_output=True, timeout=TIMEOUT_S
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_a_feed_with_metrics_stops_cleanly(scrape: Scrape) -> None:
    assert scrape.code == 0


@pytest.mark.parametrize("listen", ["127.0.0.1:{taken}", "0.0.0.0:0", "9464"])
async def test_an_address_that_cannot_be_had_ends_the_program_before_it_connects(listen: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = listen.format(taken=taken.getsockname()[1])
        async with site(tmp_path) as place:
            place.configure(f'{QUICK}\n[metrics]\nlisten = "{address}"\n')
            done = await run("openOrders", env=place.environment())
            assert place.exchange.connections == 0
    assert done.code == 78
    assert "metrics.listen" in done.err
    assert done.out == b""


# ------------------------------------------------------------------------------------------------ alerts


def _promtool(*arguments: str | Path) -> str:
    done = subprocess.run([tool("promtool"), *arguments], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _alerts() -> list[str]:
    return re.findall(r"^ +- alert: (\w+)$", ALERTS.read_text(), re.M)


def test_promtool_accepts_the_alerts() -> None:
    assert f"SUCCESS: {len(_alerts())} rules found" in _promtool("check", "rules", ALERTS)


def test_alerts_fire_when_they_should() -> None:
    assert "SUCCESS" in _promtool("test", "rules", ALERTS_TEST)


@each("alert", _alerts())
def test_every_alert_is_seen_to_fire_and_not_to_fire(alert: str) -> None:
    text = ALERTS_TEST.read_text()
    assert re.search(rf"eval_time: \w+, alertname: {alert}}}", text)
    assert re.search(rf"alertname: {alert}\n +exp_alerts:", text)


# ------------------------------------------------------------------------------------------------ expressions


class Expression(NamedTuple):
    """One expression, where it stands, and the labels that its legend or its annotations show."""

    place: str
    text: str
    shown: frozenset[str]


def _of_alerts() -> Iterator[Expression]:
    for rule in re.split(r"^ +- alert: ", ALERTS.read_text(), flags=re.M)[1:]:
        found = re.search(r"^ +expr: (?:>-\n)?(.*?)^ +(?:for|labels):", rule, re.M | re.S)
        assert found is not None
        shown = frozenset(re.findall(r"\$labels\.(\w+)", rule))
        yield Expression(rule.split("\n")[0], " ".join(found[1].split()), shown)


def _of_dashboard() -> Iterator[Expression]:
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$account", ".*")
            assert "$" not in text
            yield Expression(panel["title"], text, frozenset(re.findall(r"{{(\w+)}}", target["legendFormat"])))
    for variable in DASHBOARD["templating"]["list"]:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
        assert found is not None
        yield Expression(variable["name"], found[1].replace("$instance", ".*"), frozenset({found[2]}))


EXPRESSIONS = [*_of_alerts(), *_of_dashboard()]
IDENTIFIER = r"(?<![\w:.$])[A-Za-z_:][\w:]*"
GROUPING = r"\b(?:by|without|on|ignoring|group_left|group_right) *\(([^)]*)\)"
WORDS = {"and", "or", "unless", "offset", "bool", "by", "without", "on", "ignoring", "group_left", "group_right"}


def _metrics(text: str) -> set[str]:
    """The names of metrics: identifiers that are neither functions, nor keywords, nor labels."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", re.sub(r'"[^"]*"', '""', text))
    bare = re.sub(GROUPING, " ", bare)
    return {name for name in re.findall(rf"{IDENTIFIER}(?! *\()\b", bare) if name not in WORDS}


def _labels(text: str) -> set[str]:
    """The names of labels: in selectors, and where series are grouped or matched."""
    selectors = " ".join(re.findall(r"\{([^}]*)\}", re.sub(r'"[^"]*"', '""', text)))
    grouped = " ".join(re.findall(GROUPING, text))
    return {*re.findall(r"(\w+) *(?:=|!)", selectors), *re.findall(r"\w+", grouped)}


def test_names_are_found_in_expressions() -> None:
    text = 'sum by (le) (rate(a_total{x="y_z",v!~"w"}[5m])) > 0 and on (q) time() - b:c offset 5m'
    assert _metrics(text) == {"a_total", "b:c"}
    assert _labels(text) == {"le", "x", "v", "q"}


@each("expression", EXPRESSIONS, ids=lambda expression: expression.place)
def test_an_expression_speaks_only_of_what_is_exposed(expression: Expression, scrape: Scrape) -> None:
    metrics = _metrics(expression.text)
    assert metrics
    assert metrics <= set(scrape.labels)
    known = TARGET_LABELS.union(*(scrape.labels[name] for name in metrics))
    assert _labels(expression.text) <= known
    assert expression.shown <= known


def test_promtool_can_read_every_expression(tmp_path: Path) -> None:
    rules = [{"record": f"read:{number}", "expr": found.text} for number, found in enumerate(EXPRESSIONS)]
    path = tmp_path / "rules.json"  # which YAML includes
    path.write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    assert f"SUCCESS: {len(EXPRESSIONS)} rules found" in _promtool("check", "rules", path)


# ------------------------------------------------------------------------------------------------ the dashboard


def test_the_dashboard_asks_for_its_datasource_when_it_is_imported() -> None:
    (wanted,) = DASHBOARD["__inputs"]
    assert wanted["pluginId"] == "prometheus"
    assert DASHBOARD["id"] is None
    asked = [*DASHBOARD["panels"], *DASHBOARD["templating"]["list"]]
    asked += [target for panel in DASHBOARD["panels"] for target in panel["targets"]]
    assert {thing["datasource"]["uid"] for thing in asked} == {f"${{{wanted['name']}}}"}


def test_every_panel_has_its_place_and_says_what_it_shows() -> None:
    panels = DASHBOARD["panels"]
    cells = [
        (panel["gridPos"]["x"] + x, panel["gridPos"]["y"] + y)
        for panel in panels
        for x in range(panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(panel["title"] and panel["description"] for panel in panels)
    assert {panel["type"] for panel in panels} <= {needed["id"] for needed in DASHBOARD["__requires"]}


# ------------------------------------------------------------------------------------------------ the documentation


def test_the_documentation_names_every_alert() -> None:
    for name in _alerts():
        assert f"`{name}`" in DOCUMENT, name


def test_the_documentation_names_what_the_process_exposes(scrape: Scrape) -> None:
    named_there = set(re.findall(r"`(process_\w+)`", DOCUMENT))
    assert named_there == {name for name in scrape.labels if name.startswith("process_")}
