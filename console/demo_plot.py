"""The curve of a demo as a picture."""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # before pyplot: no display is needed

import matplotlib.pyplot as plt

from console.demo_result import Result

CURVE, SWAP, BASE = "#0b6e99", "#c9d1d6", "#8a8f94"


def plot(result: Result, path: Path) -> None:
    """Held-out utility over time with a band of one standard error, swaps as vertical lines."""
    minutes = [point.elapsed_s / 60 for point in result.points]
    means = [point.mean for point in result.points]
    errors = [point.standard_error for point in result.points]
    base = result.base
    figure, axes = plt.subplots(figsize=(8, 4.5), dpi=150)
    for index, (elapsed_s, _) in enumerate(result.swaps):
        axes.axvline(elapsed_s / 60, color=SWAP, linewidth=1, zorder=0, label="" if index else "hot swap")
    axes.axhline(base.mean, color=BASE, linewidth=1, linestyle=":", label="base policy")
    axes.axhline(base.mean + base.std, color=BASE, linewidth=1, linestyle="--", label="+ 1 standard deviation")
    low = [mean - error for mean, error in zip(means, errors, strict=True)]
    high = [mean + error for mean, error in zip(means, errors, strict=True)]
    axes.fill_between(minutes, low, high, color=CURVE, alpha=0.18, linewidth=0)
    axes.plot(minutes, means, color=CURVE, linewidth=2, marker="o", markersize=4, label="served answers ± s.e.")
    axes.set(xlabel="minutes of use", ylabel=f"utility to the {result.persona} persona", ylim=(0, 1))
    axes.set_title(
        f"Foldback learns from its users: {result.rise:+.1f} σ, {result.swapped} hot swaps, "
        f"{result.failed.total()} failed requests",
        loc="left",
        fontsize=11,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(facecolor="white", edgecolor="none", framealpha=1, loc="upper left", fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
    plt.close(figure)
