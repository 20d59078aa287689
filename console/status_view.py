"""A status report for people and for scripts."""

import json
import sys
from dataclasses import asdict

from rich.markup import escape

from console.status import STAGES, Report
from console.terminal import out, table


def print_json(report: Report) -> None:
    sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")


def print_report(report: Report) -> None:
    rows = table("", "")
    rows.show_header = False
    rows.add_row("[bold]server[/]", _server(report))
    if report.serving_version:
        rows.add_row("[bold]policy[/]", _policy(report))
    rows.add_row("[bold]trainer[/]", _trainer(report))
    if report.funnel:
        rows.add_row("[bold]feedback[/]", _funnel(report))
    out.print(rows)


def _server(report: Report) -> str:
    if report.problem:
        return f"[red]✗[/] {escape(report.problem)}"
    calls = ", ".join(f"{count} {code}" for code, count in sorted(report.requests.items(), key=lambda item: -item[1]))
    state = "[green]✓ serving[/]" if report.healthy else "[yellow]not serving[/] (loading or draining)"
    return f"{state} at {report.address}" + (f" [dim]· calls: {escape(calls)}[/]" if calls else "")


def _policy(report: Report) -> str:
    states = ", ".join(f"{count} {state}" for state, count in report.versions.items())
    return f"[bold]{escape(report.serving_version)}[/] [dim]· versions: {states}[/]"


def _trainer(report: Report) -> str:
    state = {"running": "[green]running[/]", "paused": "[yellow]paused[/] ('foldback resume-training')"}.get(
        report.training_state, "state unknown"
    )
    if not report.trainer_answers:
        return f"{state}, but [red]nobody answers[/] at {report.trainer_url}: start it with 'foldback train'"
    figures = ", ".join(f"{name} {value:.4g}" for name, value in report.trainer.items())
    return f"{state} [dim]· {figures or 'nothing learned yet'}[/]"


def _funnel(report: Report) -> str:
    stages = [*STAGES, *(stage for stage in report.funnel if stage not in STAGES)]
    return " · ".join(f"{report.funnel[stage]} {stage.replace('_', '-')}" for stage in stages if stage in report.funnel)
