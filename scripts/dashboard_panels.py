"""What the Grafana dashboard shows, row by row (notes/serving.md §3)."""

from collections.abc import Mapping

from scripts.dashboard_learning import LEARNING
from scripts.dashboard_panel import Panel
from scripts.dashboard_serving import EVENTS, SERVING

SWAPS = (
    'max by (version) (foldback_policy_info{slot="active"})'
    ' unless max by (version) (foldback_policy_info{slot="active"} offset 1m)'
)
"""A version that serves and did not a minute ago."""

ROWS: Mapping[str, tuple[Panel, ...]] = {**SERVING, **LEARNING, **EVENTS}
