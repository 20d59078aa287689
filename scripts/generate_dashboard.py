"""Writes helm/foldback/dashboards/foldback.json, the Grafana dashboard. `--check` says whether it is fresh.

What is shown stands in scripts/dashboard_panels.py; here is how it is laid out.
"""

import json
import sys
from pathlib import Path
from typing import Any

from scripts.dashboard_panel import Panel
from scripts.dashboard_panels import ROWS, SWAPS

PAGE = Path(__file__).parents[1] / "helm/foldback/dashboards/foldback.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 7
"""Grafana's grid: 24 columns; a row of panels is seven high."""


def dashboard() -> dict[str, Any]:
    return {
        "uid": "foldback",
        "title": "Foldback",
        "description": "Serving, feedback and learning of one Foldback installation.",
        "tags": ["foldback"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}]
        },
        "annotations": {"list": [_swaps()]},
        "panels": _panels(),
    }


def _swaps() -> dict[str, Any]:
    return {
        "name": "Swaps",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "orange",
        "expr": SWAPS,
        "step": "10s",
        "titleFormat": "{{version}}",
        "textFormat": "took over",
    }


def _panels() -> list[dict[str, Any]]:
    """Rows from top to bottom, the panels of each side by side; wrapped where they are more than a line holds."""
    made: list[dict[str, Any]] = []
    top = 0
    for title, panels in ROWS.items():
        made.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1},
                "panels": [],
            }
        )
        top, left = top + 1, 0
        for panel in panels:
            if left + panel.width > WIDTH:
                top, left = top + HEIGHT, 0
            made.append(_panel(panel, left, top))
            left += panel.width
        top += HEIGHT
    return [{"id": number, **panel} for number, panel in enumerate(made, 1)]


def _panel(panel: Panel, left: int, top: int) -> dict[str, Any]:
    defaults: dict[str, Any] = {"unit": panel.unit}
    if panel.kind == "timeseries":
        defaults["custom"] = {"showPoints": "never", "fillOpacity": 8, "spanNulls": True}
    if panel.maximum is not None:
        defaults |= {"min": 0, "max": panel.maximum}
    shown: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.meaning,
        "datasource": DATASOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": HEIGHT},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": panel.kind != "timeseries",
            }
            for number, (legend, expression) in enumerate(panel.queries.items())
        ],
    }
    if panel.kind == "timeseries":
        shown["options"] = {
            "legend": {"displayMode": "list", "placement": "bottom"},
            "tooltip": {"mode": "multi", "sort": "desc"},
        }
    else:
        shown["options"] = {"reduceOptions": {"calcs": ["lastNotNull"]}, "orientation": "horizontal"}
    return shown


def main() -> int:
    fresh = json.dumps(dashboard(), indent=1, ensure_ascii=False) + "\n"
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(fresh)
    elif not PAGE.is_file() or PAGE.read_text() != fresh:
        print(f"stale: {PAGE.name}; run 'python -m scripts.generate_dashboard' and commit", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
