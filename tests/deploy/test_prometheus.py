"""deploy/prometheus and deploy/grafana: rules and dashboard, against a real Prometheus that scrapes a real daemon."""

import json
import math
import pathlib
import re
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

HERE = pathlib.Path(__file__).resolve().parent
DEPLOY = HERE.parents[1] / "deploy"
RULES = sorted((DEPLOY / "prometheus").glob("*.rules.yml"))
DASHBOARD = DEPLOY / "grafana" / "distorchd.json"
SELECTOR = re.compile(r"[a-z_:]*(?:distorchd_|process_|\bup\b)[a-z0-9_:]*(?:\{[^}]*\})?")


def rules(kind):
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if kind in rule]


def panels():
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


class Prometheus:
    def __init__(self, folder, program, target):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % probe.getsockname()[1]
        config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "250ms", "evaluation_interval": "250ms"}
        config["rule_files"] = [str(DEPLOY / "prometheus" / name) for name in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        self.log = folder / "prometheus.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [program, f"--config.file={file}", f"--storage.tsdb.path={folder / 'tsdb'}",
                 f"--web.listen-address={self.address}"], stdout=log, stderr=log)

    def get(self, path, **arguments):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def has_data(self, query):
        try:
            result = self.get("query", query=query)["result"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from error
        return any(not math.isnan(float(sample["value"][1])) for sample in result)

    def wait_until_ready(self):
        deadline = time.monotonic() + 30
        while True:
            assert self.process.poll() is None, self.log.read_text()
            try:
                return urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=10)
            except OSError:
                assert time.monotonic() < deadline, "Prometheus is not ready after 30 s"
                time.sleep(0.05)

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=30)


@pytest.fixture
def prometheus(start_daemon, programs, tmp_path):
    daemon = start_daemon("--link=cuda:0-cpu=12GB/s,20us;cuda:0-cuda:1=24GB/s,10us")
    running = Prometheus(tmp_path, programs["prometheus"], f"127.0.0.1:{daemon.ports['metrics']}")
    running.daemon = daemon
    yield running
    running.stop()


def load_and_draw(daemon):
    daemon.ctl_json("load", "shapes-sd1.safetensors", "--unet_compute_device=cuda:0",
                    "--unet_expert_mode_allocations=cuda:0,50%;cuda:1,30%;cpu,20%", "--vae_device=cuda:1")
    daemon.ctl_json("infer", "--prompt=a red circle", "--width=64", "--height=64", "--steps=4",
                    "--output=" + str(daemon.log.parent / "image.png"))


def without_variables(expression):
    for name, value in (("$__rate_interval", "1m"), ("$__range", "5m")):
        expression = expression.replace(name, value)
    return re.sub(r"\$(job|instance|device)\b", ".*", expression)


def test_every_panel_and_every_rule_has_data_of_a_daemon_under_load(prometheus):
    queries = {f"panel '{panel['title']}': {target['legendFormat']}": without_variables(target["expr"])
               for panel in panels() for target in panel["targets"]}
    queries |= {f"recording rule {rule['record']}": rule["record"] for rule in rules("record")}
    # An alert that does not fire has no data; what it looks at has.
    queries |= {f"alert {rule['alert']}: {selector}": selector
                for rule in rules("alert") for selector in SELECTOR.findall(rule["expr"])}
    assert len(queries) > 50
    prometheus.wait_until_ready()
    deadline = time.monotonic() + 60
    while queries:
        load_and_draw(prometheus.daemon)
        queries = {name: query for name, query in queries.items() if not prometheus.has_data(query)}
        assert time.monotonic() < deadline, f"without data after a minute: {queries}"

    groups = prometheus.get("rules")["groups"]
    evaluated = [rule for group in groups for rule in group["rules"]]
    assert len(evaluated) == len(rules("record")) + len(rules("alert"))
    assert [rule["name"] for rule in evaluated if rule["health"] != "ok"] == []
    assert [rule["name"] for rule in evaluated if rule.get("state", "inactive") == "firing"] == []

    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
            assert prometheus.get(f"label/{label}/values", **{"match[]": without_variables(series)}), variable["name"]


def test_the_daemons_metrics_follow_prometheus_rules(daemon, programs):
    load_and_draw(daemon)
    text = urllib.request.urlopen(f"http://127.0.0.1:{daemon.ports['metrics']}/metrics", timeout=10).read()
    lint = subprocess.run([programs["promtool"], "check", "metrics"], input=text, capture_output=True)
    assert lint.returncode == 0, lint.stderr.decode()


def test_alerts_fire_when_they_should(programs):
    tests = HERE / "alerts_test.yml"
    result = subprocess.run([programs["promtool"], "test", "rules", tests], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    fired = {check["alertname"] for test in yaml.safe_load(tests.read_text())["tests"]
             for check in test["alert_rule_test"] if check["exp_alerts"]}
    assert fired == {rule["alert"] for rule in rules("alert")}


def test_every_alert_has_a_runbook():
    sections = re.split(r"^## ", (DEPLOY / "prometheus" / "RUNBOOKS.md").read_text(), flags=re.MULTILINE)[1:]
    by_name = dict(section.split("\n", 1) for section in sections)
    assert set(by_name) == {rule["alert"] for rule in rules("alert")}
    for rule in rules("alert"):
        assert rule["annotations"]["runbook"] == f"deploy/prometheus/RUNBOOKS.md#{rule['alert'].lower()}"
        for part in ("**Means**", "**Look at**", "**Do**"):
            assert part in by_name[rule["alert"]], f"{rule['alert']}: {part}"


def test_the_dashboard_is_what_grafana_reads():
    """Grafana's own types read every field and write it again: a misspelt one would be lost."""
    register_default_plugins()
    dashboard = json.loads(DASHBOARD.read_text())
    again = json.loads(JSONEncoder(sort_keys=True, indent=1).encode(Dashboard.from_json(dashboard)))

    def lost(before, after, path):
        if isinstance(before, dict):
            return [place for key in before
                    for place in (lost(before[key], after[key], f"{path}.{key}") if key in after else [f"{path}.{key}"])]
        if isinstance(before, list) and len(before) == len(after):
            return [place for i, pair in enumerate(zip(before, after)) for place in lost(*pair, f"{path}[{i}]")]
        return [] if before == after else [path]

    assert lost(dashboard, again, "dashboard") == []
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    boxes = [panel["gridPos"] for panel in dashboard["panels"]]
    for i, a in enumerate(boxes):
        assert a["x"] + a["w"] <= 24
        for b in boxes[:i]:
            assert (a["x"] >= b["x"] + b["w"] or b["x"] >= a["x"] + a["w"] or a["y"] >= b["y"] + b["h"]
                    or b["y"] >= a["y"] + a["h"]), f"panels overlap at {a} and {b}"
