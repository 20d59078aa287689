"""A bench's outcome: a table on the terminal, targets that hold or not, JSON for machines."""

import argparse
import json
import os
import platform
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Row = dict[str, str | float | int]


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that every bench has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="minutes instead of as long as it takes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write rows and targets there")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw them there")
    return parser


@dataclass
class Report:
    title: str
    rows: list[Row] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)

    def target(self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None) -> None:
        """One bound, either way. NaN does not hold."""
        holds = value >= at_least if at_least is not None else at_most is not None and value <= at_most
        bound = f"≥ {at_least:g}" if at_least is not None else f"≤ {at_most:g}"
        self.targets.append({"name": name, "value": value, "target": bound, "holds": bool(holds)})

    def print(self) -> None:
        console = Console(width=None if sys.stdout.isatty() else 160)
        table = Table(title=self.title, title_justify="left")
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        for name in names:
            table.add_column(name, justify="left" if isinstance(self.rows[0].get(name), str) else "right")
        for row in self.rows:
            table.add_row(*(_shown(row.get(name, "")) for name in names))
        console.print(table)
        for target in self.targets:
            verdict = "holds" if target["holds"] else "[bold]DOES NOT HOLD[/]"
            console.print(f"{verdict}: {target['name']} = {target['value']:.3g} (target {target['target']})")

    def write(self, path: Path) -> None:
        document = {"machine": machine(), "command": sys.argv, "rows": self.rows, "targets": self.targets}
        path.write_text(json.dumps(document, indent=1) + "\n")

    def finish(self, options: argparse.Namespace) -> None:
        self.print()
        if options.json:
            self.write(options.json)


def machine() -> dict[str, Any]:
    models = [line.split(":", 1)[1].strip() for line in _cpu_info() if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_1m": os.getloadavg()[0],
    }


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.is_file() else []


def _shown(value: str | float | int) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
