"""deploy/prometheus and deploy/grafana: what promtool says of them, and that each alert fires and stays silent."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from tests.test_cloudformation import load as load_template

DEPLOY = Path(__file__).parent.parent / "deploy"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"
RULES: list[dict[str, Any]] = yaml.safe_load(ALERTS.read_text())["groups"][0]["rules"]
NAMES = [rule["alert"] for rule in RULES]


def promtool(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["/usr/bin/promtool", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The files in a directory of their own, with what the configuration names beside them."""
    directory = tmp_path / "prometheus"
    shutil.copytree(DEPLOY / "prometheus", directory)
    for name in ("postqueue-api.token", "postqueue-api-ca.pem"):
        (directory / name).touch()
    configuration = directory / "prometheus.yml"
    configuration.write_text(configuration.read_text().replace("/etc/prometheus/", f"{directory}/"))
    return directory


def test_promtool_accepts_configuration_and_rules(copied: Path) -> None:
    for kind, file in (("config", "prometheus.yml"), ("rules", "alerts.yml")):
        run = promtool("check", kind, copied / file)
        assert run.returncode == 0, run
        assert "FAILED" not in run.stdout + run.stderr
    assert f"{len(RULES)} rules found" in promtool("check", "rules", copied / "alerts.yml").stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("prometheus.yml", "dns_sd_configs", "dns_configs"),
        ("prometheus.yml", "type: A", "type: CNAME"),
        ("prometheus.yml", "postqueue-api.token", "not-there.token"),
        ("alerts.yml", "> 14400", "> > 14400"),
    ],
)
def test_promtool_finds_what_is_broken(copied: Path, file: str, line: str, broken: str) -> None:
    text = (copied / file).read_text()
    assert line in text
    (copied / file).write_text(text.replace(line, broken))
    assert promtool("check", "config", copied / "prometheus.yml").returncode != 0


def test_each_alert_fires_and_stays_silent_as_written(copied: Path) -> None:
    run = promtool("test", "rules", copied / "alerts_test.yml")
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("name", NAMES)
def test_an_alert_that_never_fires_or_always_does_is_found(copied: Path, name: str) -> None:
    """The tests of the rules bite."""
    document = yaml.safe_load(ALERTS.read_text())
    (rule,) = [rule for rule in document["groups"][0]["rules"] if rule["alert"] == name]
    for expression in (f"({rule['expr']}) and on () vector(0) == 1", "vector(1)"):
        rule["expr"] = expression
        rule.pop("for", None)
        (copied / "alerts.yml").write_text(yaml.safe_dump(document))
        assert promtool("test", "rules", copied / "alerts_test.yml").returncode != 0, expression


def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not() -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus" / "alerts_test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    for name in NAMES:
        assert {bool(case["exp_alerts"]) for case in cases if case["alertname"] == name} == {True, False}, name


def test_age_is_a_page_and_comes_before_count_which_is_none() -> None:
    severity = {rule["alert"]: rule["labels"]["severity"] for rule in RULES}
    assert (severity["MailIsOld"], severity["QueueIsLong"]) == ("page", "ticket")
    assert NAMES.index("MailIsOld") < NAMES.index("QueueIsLong")


def test_the_alarms_of_cloudwatch_have_the_same_thresholds() -> None:
    parameters = load_template()["Parameters"]
    expressions = {rule["alert"]: rule["expr"] for rule in RULES}
    for alert, parameter in (("MailIsOld", "OldestMessageAlarmSeconds"), ("QueueIsLong", "QueueDepthAlarmMessages")):
        assert expressions[alert].endswith(f"> {parameters[parameter]['Default']}")


def test_the_page_tells_what_to_do_about_each_alert() -> None:
    page = (DEPLOY.parent / "docs" / "monitoring.md").read_text()
    assert re.findall(r"^\| `([A-Z]\w+)` \|", page, re.MULTILINE) == NAMES


def test_the_dashboard_asks_for_its_variables_and_nothing_overlaps() -> None:
    dashboard = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        for target in panel.get("targets", ()):
            assert 'job=~"$job",instance=~"$instance"' in target["expr"]
