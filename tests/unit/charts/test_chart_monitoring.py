"""Monitor, alerts and dashboard ask for metrics that the programs have, with labels that they have."""

import json
import re
from types import SimpleNamespace

import pytest
from prometheus_client import REGISTRY

from charts.chart import CHART
from serving.telemetry import metrics
from serving.telemetry.drift import DriftCollector
from support.chart_manifests import NAME, of_kind, one, pods, refusal, render

ON = {"monitoring": {part: {"enabled": True} for part in ("serviceMonitor", "alerts", "dashboard")}}
METRIC = r"conf_profile_\w+|vllm:\w+|kube_\w+"
SELECTOR = re.compile(rf"({METRIC})\{{([^}}]*)\}}")
OF_THE_SCRAPE = {"namespace", "service", "pod", "component"}
VLLM = {
    "vllm:num_requests_running": "gauge",
    "vllm:num_requests_waiting": "gauge",
    "vllm:kv_cache_usage_perc": "gauge",
    "vllm:prefix_cache_hits_total": "counter",
    "vllm:prefix_cache_queries_total": "counter",
}
"""What vLLM's own loggers call them."""
KUBE_STATE = {"kube_pod_container_status_waiting_reason", "kube_pod_init_container_status_waiting_reason"}
"""Gauges of kube-state-metrics, which has no service of the release's: its samples name the pod."""


def samples():
    """Name of each sample that the transformer exposes -> its labels."""
    silent = SimpleNamespace(divergences=lambda: ())
    found = {}
    for family in (*REGISTRY.collect(), *DriftCollector(lambda: silent).collect()):
        if not family.name.startswith("conf_profile_"):
            continue
        labels = set()
        for metric in vars(metrics).values():
            if getattr(metric, "_name", None) == family.name:
                labels = set(metric._labelnames)
        if family.name == "conf_profile_drift_bits":
            labels = {"attribute", "of"}
        endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"], "gauge": [""]}[family.type]
        for ending in endings:
            found[family.name + ending] = labels | ({"le"} if ending == "_bucket" else set())
    return found


def alerts(*layers):
    (group,) = one(render(ON, *layers), "PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


def dashboard():
    return json.loads((CHART / "dashboards" / "conf-profile.json").read_text(encoding="utf-8"))


def expressions():
    yield from ((name, rule["expr"]) for name, rule in alerts().items())
    for panel in dashboard()["panels"]:
        yield from ((panel["title"], target["expr"]) for target in panel["targets"])


EXPRESSIONS = [pytest.param(expression, id=name) for name, expression in expressions()]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_asks_for_what_is_exposed(expression):
    known = samples()
    found = SELECTOR.findall(expression)
    assert found and len(found) == len(re.findall(METRIC, expression))
    for name, selector in found:
        if name.startswith("vllm:"):
            assert name in VLLM
            continue
        if name.startswith("kube_"):
            assert name in KUBE_STATE
            continue
        assert name in known, name
        asked = set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", selector))
        assert asked <= known[name] | OF_THE_SCRAPE, f"{name}: {asked}"


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_is_balanced_and_of_one_release(expression):
    assert expression.count("(") == expression.count(")") and expression.count("{") == expression.count("}")
    for _, selector in SELECTOR.findall(expression):
        assert 'namespace="' in selector and ('service="' in selector or f'pod=~"{NAME}-' in selector)


def test_there_is_an_alert_for_each_thing_that_can_go_wrong():
    assert set(alerts()) == {
        "ConfProfileFailures",
        "ConfProfileNotStarting",
        "ConfProfileDeadlines",
        "ConfProfileAbstentions",
        "ConfProfileMalformed",
        "ConfProfileDrift",
        "ConfProfileFeatureAge",
    }
    for rule in alerts().values():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"] and rule["annotations"]["description"]


def test_thresholds_are_those_of_the_values():
    found = alerts(
        {"monitoring": {"alerts": {"for": "1h", "driftBits": 0.25, "featureAgeHours": 48, "failures": 0.05}}}
    )
    assert found["ConfProfileDrift"]["expr"].endswith("> 0.25")
    assert found["ConfProfileFeatureAge"]["expr"].endswith("/ 3600 > 48")
    assert found["ConfProfileFailures"]["expr"].endswith("> 0.05")
    assert "5%" in found["ConfProfileFailures"]["annotations"]["summary"]
    assert {rule["for"] for rule in found.values()} == {"1h"}


def test_prometheus_finds_kserves_services():
    monitor = one(render(ON, {"monitoring": {"labels": {"release": "prometheus"}}}), "ServiceMonitor")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"] == {"serving.kserve.io/inferenceservice": NAME}
    (endpoint,) = monitor["spec"]["endpoints"]
    ports = [
        port["name"]
        for name, spec in pods(render(ON)).items()
        if name.startswith("InferenceService")
        for port in spec["containers"][0]["ports"]
    ]
    # KServe calls a Service's port as the container's is called.
    assert set(ports) == {endpoint["port"]}


def test_grafana_finds_the_dashboard():
    found = of_kind(render(ON), "ConfigMap")[f"{NAME}-dashboard"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(found["data"]["conf-profile.json"]) == dashboard()
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_nothing_of_it_is_there_by_default():
    kinds = {document["kind"] for document in render()}
    assert not kinds & {"ServiceMonitor", "PrometheusRule"}
    assert f"{NAME}-dashboard" not in of_kind(render(), "ConfigMap")


@pytest.mark.parametrize("part", ["serviceMonitor", "alerts", "dashboard"])
def test_there_is_nothing_to_watch_without_serving(part):
    message = refusal({"serving": {"enabled": False}, "monitoring": {part: {"enabled": True}}})
    assert f"monitoring.{part}.enabled needs serving.enabled" in message
