"""A status report for people and for scripts."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict

from rich.markup import escape
from rich.table import Table

from console.status import Report
from console.terminal import out, table
from console.trial import trial

FLOW = ("responses", "accepted", "joined", "learned")
STAGES = {"learned": "learned by an active version"}
"""What a canary learned counts once users have kept it."""
PHRASES = {
    "ppo_iterations": "{:.0f} PPO iterations since its start",
    "versions_published": "{:.0f} versions made active",
    "ppo_kl_nats": "{:.1f} nats from the reference",
    "reward_accuracy_held_out": "reward model right on {:.0%} of held-out pairs",
    "reward_mean_rollouts": "mean reward {:+.2f}",
    "checkpoint_age_s": "checkpoint {:.0f} s ago",
}


def print_json(report: Report) -> None:
    sys.stdout.write(json.dumps(asdict(report), indent=2) + "\n")


def print_report(report: Report) -> None:
    rows = table("", "")
    rows.show_header = False
    rows.columns[0].style = "bold"
    _server(rows, report)
    _trainer(rows, report)
    if report.funnel:
        rows.add_row("feedback", _funnel(report.funnel))
    out.print(rows)


def _server(rows: Table, report: Report) -> None:
    if report.problem:
        rows.add_row("server", f"[red]✗[/] {escape(report.problem)}")
        return
    state = "[green]✓ serving[/]" if report.healthy else "[yellow]not serving[/] (loading or draining)"
    calls = ", ".join(f"{count} {code}" for code, count in sorted(report.requests.items(), key=lambda item: -item[1]))
    rows.add_row("server", f"{state} at {report.address}" + (f" [dim]· calls: {escape(calls)}[/]" if calls else ""))
    states = ", ".join(f"{count} {state}" for state, count in report.versions.items())
    rows.add_row("policy", f"[bold]{escape(report.serving_version)}[/] [dim]· versions: {states}[/]")
    if report.canary_version:
        rows.add_row("canary", f"[bold yellow]{escape(report.canary_version)}[/] [dim]{trial(report.trainer)}[/]")


def _trainer(rows: Table, report: Report) -> None:
    state = {
        "running": "[green]✓ running[/]",
        "paused": "[yellow]paused[/]: 'foldback resume-training' takes it up again",
    }.get(report.training_state, "state unknown")
    if not report.trainer_answers:
        rows.add_row("trainer", f"[red]✗[/] nobody answers at {report.trainer_url}: start it with 'foldback train'")
        return
    awaited = waiting(report.training_state, report.trainer)
    rows.add_row("trainer", f"{state}, {awaited}" if awaited else state)
    said = [phrase.format(report.trainer[name]) for name, phrase in PHRASES.items() if name in report.trainer]
    rows.add_row("", f"[dim]{' · '.join(said) or 'nothing learned yet'}[/]")


def waiting(training_state: str, figures: Mapping[str, float]) -> str:
    """What a running trainer needs before it goes on; "" while it has enough."""
    count = round(figures.get("judgements_awaited", 0)) if training_state == "running" else 0
    return f"waits for {count} more judgement{'s' if count > 1 else ''}" if count else ""


def _funnel(funnel: dict[str, int]) -> str:
    """The way of a feedback, then whatever left it."""
    flow = " → ".join(f"{funnel[stage]} {STAGES.get(stage, stage)}" for stage in FLOW if stage in funnel)
    aside = [f"{count} {stage.replace('_', '-')}" for stage, count in funnel.items() if stage not in FLOW and count]
    return flow + (f" [dim]· {', '.join(aside)}[/]" if aside else "")
