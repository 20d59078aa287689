"""Every values file lints, renders and is valid Kubernetes; values that make no sense are refused."""

from typing import Any

import helm_python
import kubernetes_validate
import pytest

from tests.helm.chart import CHART, Object, named, of_kind, render

NOT_KUBERNETES = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}
"""Custom resources: the Kubernetes schemas do not describe them."""


def test_lints(values: Object) -> None:
    report = helm_python.lint(CHART, values, strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.30", "1.34", "1.37"])
def test_is_valid_kubernetes(objects: list[Object], version: str) -> None:
    checked = [one for one in objects if one["kind"] not in NOT_KUBERNETES]
    assert len(checked) >= 11
    for one in checked:
        kubernetes_validate.validate(one, version, strict=True)


def test_one_object_a_file() -> None:
    for file in (CHART / "templates").rglob("*.yaml"):
        text = file.read_text()
        assert text.count("\nkind: ") == 1, f"{file.name}: {text.count('kind: ')} objects"
        assert len(text.splitlines()) <= 120, file.name


def test_names_stay_legal_and_distinct_for_long_releases() -> None:
    objects = render({}, release="a" * 53)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    # 52: a StatefulSet's pods carry a hash label of its name and 11 characters more.
    assert all(len(name) <= (52 if kind == "StatefulSet" else 63) for kind, name in names)


def test_two_releases_share_no_name_and_no_pod() -> None:
    blue, green = render({}, release="blue"), render({}, release="green")
    assert not {_identity(one) for one in blue} & {_identity(one) for one in green}
    selectors = [named(objects, "Service", f"{name}-foldback")["spec"]["selector"]
                 for name, objects in (("blue", blue), ("green", green))]  # fmt: skip
    assert selectors[0] != selectors[1]


def _identity(one: Object) -> tuple[str, str]:
    return one["kind"], one["metadata"]["name"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"replica": 3}, "replica"),
        ({"server": {"replicaCount": 3}}, "replicaCount"),
        ({"server": {"replicas": 0}}, "replicas"),
        ({"server": {"autoscaling": {"maxReplicas": 0}}}, "maxReplicas"),
        ({"server": {"autoscaling": {"prometheus": "prometheus:9090"}}}, "prometheus"),
        ({"server": {"replicas": "two"}}, "replicas"),
        ({"server": {"service": {"port": 70000}}}, "port"),
        ({"server": {"service": {"type": "Loadbalancer"}}}, "type"),
        ({"server": {"resources": {"limit": {"cpu": 1}}}}, "limit"),
        ({"server": {"data": {"size": "ten"}}}, "size"),
        ({"kafka": {"bootstrapServers": "kafka"}}, "bootstrapServers"),
        ({"kafka": {"bootstrapServers": ""}}, "bootstrapServers"),
        ({"tokenKeys": {"secret": ""}}, "secret"),
        ({"registry": {"url": "my-bucket/registry"}}, "url"),
        ({"registry": {"volume": {"accessMode": "ReadOnlyMany"}}}, "accessMode"),
        ({"networkPolicy": {"chatFrom": [{}]}}, "chatFrom"),
        ({"settings": {"server": {"engin": "vllm"}}}, "engin"),
        ({"settings": {"server": {"engine": "llama"}}}, "engine"),
        ({"settings": {"server": {"port": 6000}}}, "port"),
        ({"settings": {"feedback": {"sasl_password": "hunter2"}}}, "sasl_password"),
    ],
)
def test_schema_refuses(values: dict[str, Any], field: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=field):
        render(values)


def test_options_add_and_remove_objects() -> None:
    kinds: dict[str, dict[str, Any]] = {
        "ServiceMonitor": {"metrics": {"serviceMonitor": {"enabled": True}}},
        "PrometheusRule": {"metrics": {"prometheusRule": {"enabled": True}}},
        "NetworkPolicy": {"networkPolicy": {"enabled": True}},
    }
    for kind, on in kinds.items():
        assert of_kind(render({}), kind) == []
        assert of_kind(render(on), kind)
    assert of_kind(render({"server": {"podDisruptionBudget": {"enabled": False}}}), "PodDisruptionBudget") == []
    assert of_kind(render({"kafka": {"topics": {"apply": False}}}), "Job") == []
    assert of_kind(render({"trainer": {"enabled": False}}), "Deployment") == []
