"""The learning bench as a picture: a row a persona, against judgements and against minutes, a colour an arm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

from harness.learning_run import ARMS, Run

matplotlib.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt

AGAINST: dict[str, Callable[[dict[str, float]], float]] = {
    "judgements": lambda point: point["rated"],
    "minutes": lambda point: point["elapsed_s"] / 60,
}


def plot(found: dict[Run, dict[str, Any]], path: Path) -> None:
    """Rise of held-out utility over the base policy's, in its standard deviations; a thin line a seed."""
    personas = list(dict.fromkeys(run.persona for run in found))
    colours = dict(zip(ARMS, plt.get_cmap("tab10").colors, strict=False))
    figure, grid = plt.subplots(
        len(personas), len(AGAINST), figsize=(10, 2.6 * len(personas)), sharex="col", squeeze=False, dpi=150
    )
    for persona, line in zip(personas, grid, strict=True):
        for axes, (name, of) in zip(line, AGAINST.items(), strict=True):
            for run, each in found.items():
                if run.persona == persona:
                    base = each["rows"][0]
                    rise = [(point["mean"] - base["mean"]) / base["std"] for point in each["rows"]]
                    axes.plot(
                        [of(point) for point in each["rows"]], rise, color=colours[run.arm], linewidth=1, label=run.arm
                    )
            axes.axhline(2, color="#8a8f94", linewidth=1, linestyle="--")
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_xlabel(name)
        line[0].set_ylabel(f"{persona}\nrise, σ")
    legend = dict(zip(*reversed(grid[0][0].get_legend_handles_labels()), strict=True))
    figure.legend(legend.values(), legend.keys(), loc="upper center", ncols=len(legend), frameon=False)
    figure.tight_layout(rect=(0, 0, 1, 0.97))
    figure.savefig(path)
    plt.close(figure)
