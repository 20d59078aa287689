"""How the policy learns, on one time axis: reward, win rate, distance from the reference, and the swaps."""

from collections.abc import Sequence
from typing import Any

from console.names import short_version
from console.web.history import History
from console.web.observer import versions_with
from foldback.v1 import policy_pb2

GREY, INDIGO, GREEN, RED, AMBER = "#8a8f98", "#6366f1", "#16a34a", "#dc2626", "#d97706"
MOST_LABELS = 12
"""Beyond so many swaps only some carry their version's name."""
GRIDS = (
    ("Reward, deviations of the reference's answers", 36, 150),
    ("Win rate against the version before", 236, 110),
    ("KL to the reference, nats an answer", 396, 110),
)
"""(title, top, height) in pixels."""
HEIGHT = 560


def timeline(
    history: History, policies: Sequence[policy_pb2.Policy], activations: Sequence[tuple[float, str]]
) -> dict[str, Any]:
    """Options of an ECharts chart: lines are the trainer's live figures, points what the gate found of each version."""
    series = [
        _line("Reward of rollouts", 0, history.of("reward_mean_rollouts")),
        _points("Reward of versions", 0, policies, "gate_reward", INDIGO),
        _points("Win rate", 1, policies, "gate_win_rate", GREEN),
        _line("KL of the policy in training", 2, history.of("ppo_kl_nats")),
        _points("KL of versions", 2, policies, "gate_kl_nats", INDIGO),
        *(_swaps(grid, activations[1:], named=grid == 0) for grid in range(len(GRIDS))),
    ]
    times = [time for one in series for time in _news(list(map(_place, one["data"])))]
    times += [round(time * 1000) for time, _ in activations[1:]]
    return {
        "animation": False,
        "textStyle": {"fontFamily": "inherit"},
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "tooltip": {"trigger": "axis", "confine": True, "axisPointer": {"type": "line"}},
        "title": [
            {"text": title, "left": 8, "top": top - 30, "textStyle": {"fontSize": 12, "fontWeight": 500, "color": GREY}}
            for title, top, _ in GRIDS
        ],
        "grid": [{"left": 46, "right": 16, "top": top, "height": height} for _, top, height in GRIDS],
        "xAxis": [_time_axis(grid, times, last=grid == len(GRIDS) - 1) for grid in range(len(GRIDS))],
        "yAxis": [
            _value_axis(0),
            {**_value_axis(1), "min": 0, "max": 1, "interval": 0.5},
            {**_value_axis(2), "min": 0},
        ],
        "series": series,
    }


def _place(datum: Any) -> list[float]:
    """[time in ms, value] of a line's or a version's datum."""
    place: list[float] = datum["value"] if isinstance(datum, dict) else datum
    return place


def _news(places: list[list[float]]) -> list[float]:
    """Times at which something changed: hours in which nothing was learned take no room."""
    return [time for number, (time, value) in enumerate(places) if number == 0 or value != places[number - 1][1]]


def _time_axis(grid: int, times: Sequence[float], *, last: bool) -> dict[str, Any]:
    """All diagrams begin and end alike, whatever each of them holds."""
    return {
        "type": "time",
        **({"min": min(times), "max": max(times)} if times else {}),
        "gridIndex": grid,
        "axisLabel": {"show": last, "color": GREY, "hideOverlap": True},
        "axisLine": {"lineStyle": {"color": "#8885"}},
        "splitLine": {"show": False},
    }


def _value_axis(grid: int) -> dict[str, Any]:
    return {
        "type": "value",
        "gridIndex": grid,
        "scale": True,
        "splitNumber": 3,
        "axisLabel": {"color": GREY},
        "splitLine": {"lineStyle": {"color": "#8882"}},
    }


def _line(name: str, grid: int, points: Sequence[tuple[float, float]]) -> dict[str, Any]:
    return {
        "name": name,
        "type": "line",
        "xAxisIndex": grid,
        "yAxisIndex": grid,
        "showSymbol": len(points) == 1,
        "color": INDIGO,
        "lineStyle": {"width": 1.5, "opacity": 0.75},
        "data": [[round(time * 1000), _short(value)] for time, value in points],
    }


def _points(name: str, grid: int, policies: Sequence[policy_pb2.Policy], figure: str, colour: str) -> dict[str, Any]:
    refused = (policy_pb2.POLICY_STATE_REJECTED, policy_pb2.POLICY_STATE_ROLLED_BACK)
    return {
        "name": name,
        "type": "scatter",
        "xAxisIndex": grid,
        "yAxisIndex": grid,
        "symbolSize": 9,
        "color": colour,
        "data": [
            {
                "name": short_version(policy.version),
                "value": [policy.create_time.ToNanoseconds() // 1_000_000, _short(policy.figures[figure])],
                "itemStyle": {"color": RED if policy.state in refused else colour},
            }
            for policy in versions_with(policies, figure)
        ],
    }


def _swaps(grid: int, activations: Sequence[tuple[float, str]], *, named: bool) -> dict[str, Any]:
    """Vertical lines where another version took over."""
    every = max(1, -(-len(activations) // MOST_LABELS))
    marks = [
        {
            "xAxis": round(time * 1000),
            "label": {"show": named and number % every == 0, "formatter": short_version(version)},
        }
        for number, (time, version) in enumerate(reversed(activations))
    ]
    half = [{"yAxis": 0.5, "label": {"show": False}, "lineStyle": {"color": GREY}}] if grid == 1 else []
    return {
        "name": "Swaps",
        "type": "line",
        "xAxisIndex": grid,
        "yAxisIndex": grid,
        "data": [],
        "markLine": {
            "symbol": "none",
            "silent": True,
            "animation": False,
            "label": {"color": AMBER, "fontSize": 10, "distance": 2},
            "lineStyle": {"color": AMBER, "type": "dashed", "width": 1, "opacity": 0.8},
            "data": [*marks, *half],
        },
    }


def _short(value: float) -> float:
    """Four digits are all that a screen shows."""
    return float(f"{value:.4g}")
