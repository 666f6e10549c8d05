"""The board and the alert rules: they are sound, and ask for nothing that the server does not export."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from serve_app.observability import metrics
from tests.support import promtool as tool
from tests.support.promtool import promtool

ROOT = Path(__file__).parents[2]
BOARD = json.loads((ROOT / "configs" / "grafana" / "ml-server.json").read_text(encoding="utf-8"))
PROMETHEUS = ROOT / "configs" / "prometheus"
RULES = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
TESTS = ROOT / "tests" / "data" / "alerts" / "alerts_test.yml"
QUERIES = {panel["title"]: [target["expr"] for target in panel.get("targets", [])] for panel in BOARD["panels"]}
ASKED = [expr for exprs in QUERIES.values() for expr in exprs] + [rule["expr"] for rule in RULES]
EXPORTED = {name: metric for metric in metrics.ALL for name in metric.exported}
SELECTOR = re.compile(r"(ray_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')


@pytest.mark.parametrize("expr", ASKED)
def test_only_what_is_exported_is_asked_for(expr):
    """Names, labels and labels' values of every query are those that the server declares."""
    selectors = SELECTOR.findall(expr)
    assert selectors
    labels = {"le"}
    for name, matchers in selectors:
        assert name in EXPORTED, name
        metric = EXPORTED[name]
        labels |= set(metric.labels)
        for label, sign, value in MATCHER.findall(matchers):
            assert label in metric.labels, (name, label)
            assert set(value.split("|") if "~" in sign else [value]) <= metric.labels[label], (name, value)
    for grouped in re.findall(r"\bby \(([^)]*)\)", expr):
        assert {label.strip() for label in grouped.split(",")} <= labels, grouped


def test_every_query_of_the_board_parses(tmp_path):
    """By Prometheus's own parser, with an interval in the place of Grafana's."""
    tool.require()
    exprs = [expr.replace("$__rate_interval", "1m") for exprs in QUERIES.values() for expr in exprs]
    rules = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(exprs)]
    path = tmp_path / "board.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "board", "rules": rules}]}), encoding="utf-8")
    assert f"{len(exprs)} rules found" in promtool("check", "rules", str(path))


def test_the_board_is_one_of_grafanas():
    """Grafana's own types (its Foundation SDK) read the board and write the same: they know every word in it."""
    register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(BOARD)))
    assert list(lost(BOARD, again)) == []


def lost(before, after, path="board"):
    """What was there and is not, or is another."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after.get(key), f"{path}.{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, values in enumerate(zip(before, after, strict=True)):
            yield from lost(*values, f"{path}[{number}]")
    elif before != after:
        yield path, before, after


def test_the_board_can_be_drawn():
    """Panels have ids of their own and lie beside, not upon each other; every query goes to the chosen Prometheus."""
    ids = [panel["id"] for panel in BOARD["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in BOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == panel["datasource"]["uid"] == "${datasource}"
        assert panel["type"] == "row" or panel["description"]


def test_the_guide_s_four_are_on_the_board():
    """Answer time, callback success, completion rate and errors by kind, and every metric that is exported."""
    asked = " ".join(expr for exprs in QUERIES.values() for expr in exprs)
    for metric in metrics.ALL:
        assert any(re.search(rf"\b{name}\b", asked) for name in metric.exported), metric.name
    first = [panel["title"] for panel in BOARD["panels"] if panel["type"] == "stat"]
    for words in ("응답 시간", "콜백 성공률", "처리 완료율", "실패"):
        assert any(words in title for title in first)
    assert any("오류 유형별" in panel.get("description", "") for panel in BOARD["panels"])


def test_the_rules_are_sound():
    """Prometheus's own check of its config and the rules in it, templates included."""
    tool.require()
    assert f"{len(RULES)} rules found" in promtool("check", "config", str(PROMETHEUS / "prometheus.yml"))


def test_each_alert_fires_when_it_should():
    """Promtool's tests: figures that make an alert fire, alone, and figures just short of that which do not."""
    tool.require()
    promtool("test", "rules", str(TESTS))
    tested = TESTS.read_text(encoding="utf-8")
    for rule in RULES:
        assert f'alertname="{rule["alert"]}"' in tested, f"nothing makes {rule['alert']} fire"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_alerts_say_what_to_do(rule):
    """What is the matter and what to do, in English and Korean, and a link that begins where the server is."""
    said = rule["annotations"]
    assert set(said) == {"summary", "summary_ko", "todo", "todo_ko", "link"}
    for name in ("summary_ko", "todo_ko"):
        assert re.search("[가-힣]", said[name])
    assert re.fullmatch(
        r"\{\{ \$externalLabels\.ml_server \}\}"
        r"(/health|/console/#/jobs(\?(state=(failed|accepted|processing)|callback=pending))?)",
        said["link"],
    )
    assert rule["labels"]["severity"] in {"warning", "critical"}
