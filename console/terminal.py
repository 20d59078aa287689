"""What every command prints through."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

BLOCKS = "▁▂▃▄▅▆▇█"
EMPTY_ANSWER = "(an empty answer)"
"""A policy may end an answer at once; people see that it has ended."""


def table(*headings: str, title: str | None = None) -> Table:
    """A table in the house style: no frame, bold headings."""
    made = Table(box=None, title=title, title_justify="left", header_style="bold", pad_edge=False)
    for heading in headings:
        made.add_column(heading)
    return made


def sparkline(values: Iterable[float], low: float = 0.0, high: float = 1.0) -> str:
    """One block a value, its height between `low` and `high`."""
    top = len(BLOCKS) - 1
    heights = (round((value - low) / (high - low) * top) for value in values)
    return "".join(BLOCKS[max(0, min(top, height))] for height in heights)


def percent(value: float) -> str:
    return f"{value:.0%}"
