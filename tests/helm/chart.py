"""Renders the chart with Helm's own SDK. There is no cluster here: nothing is installed, only rendered and checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import helm_python
import yaml

from settings import Settings

CHART = Path(__file__).parents[2] / "helm/foldback"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
VALUES = {"default": {}, **{file.stem: yaml.safe_load(file.read_text()) for file in EXAMPLES}}
"""By name: the chart's defaults and every example."""

Object = dict[str, Any]
Load = Callable[[list[Object], str], Settings]
"""The settings of one container of a release, by component."""


def render(values: Object | None = None, *, release: str = "prod") -> list[Object]:
    """The Kubernetes objects of one release.

    Raises:
        helm_python.HelmValuesError: values.schema.json refuses the values.
    """
    with helm_python.Chart.load(CHART) as chart:
        files = chart.render(values or {}, name=release, namespace="ml")
    notes = "foldback/templates/NOTES.txt"
    documents = (yaml.safe_load(text) for name, text in files.items() if name != notes)
    return [document for document in documents if document]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    return [one for one in objects if one["kind"] == kind]


def named(objects: list[Object], kind: str, name: str) -> Object:
    [found] = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    return found


def pod_templates(objects: list[Object]) -> dict[str, Object]:
    """Pod templates by component: server, trainer, topics."""
    templates = [one["spec"]["template"] for one in objects if "template" in one.get("spec", {})]
    return {template["metadata"]["labels"]["app.kubernetes.io/component"]: template for template in templates}


def container(objects: list[Object], component: str) -> Object:
    [only] = pod_templates(objects)[component]["spec"]["containers"]
    return dict(only)


def foldback_yaml(objects: list[Object]) -> str:
    [config] = [one for one in of_kind(objects, "ConfigMap") if "foldback.yaml" in one["data"]]
    return str(config["data"]["foldback.yaml"])


def merged(*layers: Object) -> Object:
    """Values laid over each other as several `-f` files are."""
    result: Object = {}
    for layer in layers:
        for key, value in layer.items():
            nested = isinstance(value, dict) and isinstance(result.get(key), dict)
            result[key] = merged(result[key], value) if nested else value
    return result
