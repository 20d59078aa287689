"""The alert rules as they stand in the chart."""

from typing import Any

import yaml

from tests.helm.chart import CHART

RULES = sorted((CHART / "rules").glob("*.yaml"))


def alerts() -> list[dict[str, Any]]:
    groups = [group for file in RULES for group in yaml.safe_load(file.read_text())["groups"]]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]
