"""The findings for people and for scripts."""

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict

from rich.padding import Padding
from rich.text import Text

from console.doctor.finding import Finding, Level
from console.terminal import out

SIGNS = {Level.OK: Text("✓", "green"), Level.NOTE: Text("!", "bold yellow"), Level.FAILED: Text("✗", "bold red")}
AREA = 10


def print_json(findings: Sequence[Finding]) -> None:
    report = {"healthy": healthy(findings), "findings": [asdict(finding) for finding in findings]}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


def print_findings(findings: Sequence[Finding]) -> None:
    """A line each, and below it what to do."""
    for finding in findings:
        line = Text.assemble(SIGNS[finding.level], " ", (f"{finding.area:{AREA}}", "bold"), finding.said)
        out.print(line, soft_wrap=True)
        if finding.remedy:
            out.print(Padding(Text(f"→ {finding.remedy}", "cyan"), (0, 0, 0, AREA + 2)))
    counts = Counter(finding.level for finding in findings)
    if counts[Level.FAILED]:
        out.print(f"\n[bold red]{counts[Level.FAILED]} to mend[/], {counts[Level.NOTE]} to know")
    else:
        out.print(f"\n[bold green]all is well[/]{f', {counts[Level.NOTE]} to know' if counts[Level.NOTE] else ''}")


def healthy(findings: Sequence[Finding]) -> bool:
    return all(finding.level is not Level.FAILED for finding in findings)
