"""A panel of the dashboard, and queries that many panels share."""

from collections.abc import Mapping
from dataclasses import dataclass

RATE = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    meaning: str
    unit: str
    """A unit of Grafana's."""
    queries: Mapping[str, str]
    """Expressions of PromQL by legend."""
    kind: str = "timeseries"
    width: int = 8
    maximum: float | None = None


def quantiles(metric: str, *shares: float, by: str = "") -> dict[str, str]:
    """Quantiles of a histogram, over all replicas."""
    labels, legend = (f"le, {by}", f"{{{{{by}}}}} ") if by else ("le", "")
    return {
        f"{legend}p{share * 100:g}": (f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket[{RATE}])))")
        for share in shares
    }


def rates(metric: str, by: str) -> dict[str, str]:
    """Events a second by one label."""
    return {f"{{{{{by}}}}}": f"sum by ({by}) (rate({metric}[{RATE}]))"}


def by(metric: str, label: str) -> dict[str, str]:
    return {f"{{{{{label}}}}}": f"max by ({label}) ({metric})"}


def none_is_zero(expression: str) -> str:
    """For counters that have no series until the first bad thing happens."""
    return f"{expression} or vector(0)"
