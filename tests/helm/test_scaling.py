"""The number of servers follows the queue: by KEDA where Prometheus is named, else by Kubernetes' own autoscaler."""

import re

import pytest

from scripts.document_metrics import server_rows
from tests.helm.chart import VALUES, Object, named, of_kind, render
from tests.helm.prometheus import Prometheus

TARGET = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "prod-foldback-server"}
METRICS = {row.name for row in server_rows()}


def test_without_autoscaling_the_number_is_fixed() -> None:
    objects = render({"server": {"replicas": 3}})
    assert named(objects, "StatefulSet", "prod-foldback-server")["spec"]["replicas"] == 3
    assert of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject") == []


def test_the_autoscaler_looks_at_the_queue_of_each_replica() -> None:
    objects = render(VALUES["object-store"])
    assert of_kind(objects, "ScaledObject") == []
    scaler = named(objects, "HorizontalPodAutoscaler", "prod-foldback-server")["spec"]
    assert scaler["scaleTargetRef"] == TARGET
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (4, 16)
    [metric] = [one["pods"] for one in scaler["metrics"]]
    assert metric["metric"]["name"] in METRICS
    assert metric["target"] == {"type": "AverageValue", "averageValue": "8"}


def test_keda_asks_prometheus_for_the_queue_of_this_release() -> None:
    objects = render(VALUES["kafka-sasl"])
    assert of_kind(objects, "HorizontalPodAutoscaler") == []
    scaled = named(objects, "ScaledObject", "prod-foldback-server")["spec"]
    assert scaled["scaleTargetRef"] == TARGET
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (3, 12)
    [trigger] = scaled["triggers"]
    assert trigger["type"] == "prometheus"
    asked = trigger["metadata"]
    assert asked["serverAddress"] == VALUES["kafka-sasl"]["server"]["autoscaling"]["prometheus"]
    [name] = re.findall(r"foldback_\w+(?={)", asked["query"])
    assert name in METRICS
    # The labels that the operator's ServiceMonitor puts on what it scrapes.
    [service] = re.findall(r'service="([^"]+)"', asked["query"])
    assert named(objects, "Service", service)["spec"]["ports"][0]["name"] == "metrics"
    assert 'namespace="ml"' in asked["query"]


def test_a_scaled_set_leaves_its_number_to_the_autoscaler(objects: list[Object]) -> None:
    """Given in both places, each upgrade of the chart would undo the scaling."""
    scaled = bool(of_kind(objects, "HorizontalPodAutoscaler") + of_kind(objects, "ScaledObject"))
    assert ("replicas" not in named(objects, "StatefulSet", "prod-foldback-server")["spec"]) is scaled


def test_servers_leave_one_at_a_time() -> None:
    """Each that leaves takes a spool with it; the volume stays, but its events wait until the replica returns."""
    spec = named(render(VALUES["object-store"]), "HorizontalPodAutoscaler", "prod-foldback-server")["spec"]
    down = spec["behavior"]["scaleDown"]
    assert down["policies"] == [{"type": "Pods", "value": 1, "periodSeconds": 300}]
    assert down["stabilizationWindowSeconds"] >= 300


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_prometheus_answers_keda(watched: Prometheus) -> None:
    """Without the labels of a cluster, which a scrape of this machine does not put on."""
    scaled = named(render(VALUES["kafka-sasl"]), "ScaledObject", "prod-foldback-server")["spec"]
    query = re.sub(r"{.*?}", "", scaled["triggers"][0]["metadata"]["query"])
    [sample] = watched.query(query)
    assert float(sample["value"][1]) >= 0
