"""A demo as it is read: the plan, a line a measurement, the verdict, and the files that keep it."""

import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape

from console.demo_result import Point, Result, Target
from console.simulate import Crowd
from console.terminal import out, sparkline
from foldback.v1 import policy_pb2

EXAMPLE_WIDTH = 200
BAR_WIDTH = 24


def print_plan(crowd: Crowd, limit_s: float) -> None:
    persona = crowd.persona
    out.print(
        f"\n{crowd.users} simulated users teach it one taste, [bold]{persona.name}[/], which it does not know:\n"
        f"  [italic]{escape(persona.likes)}[/]\n"
        f"Measured on questions that they never ask, for at most {limit_s / 60:g} minutes. σ is the standard "
        "deviation of one answer of the base policy.\n"
    )
    out.print("[bold]  time  utility                            rise   served  rated  version[/]")


def print_point(result: Result) -> None:
    point, tally = result.points[-1], result.tally
    filled = round(point.mean * BAR_WIDTH)
    bar = "█" * filled + "[dim]" + "░" * (BAR_WIDTH - filled) + "[/]"
    rise = "  base " if len(result.points) == 1 else f"{result.rise:+5.2f} σ"
    out.print(
        f"{clock(point.elapsed_s):>6}  {point.mean:.2f} ±{point.standard_error:.2f} {bar} {rise}  "
        f"{tally.served:6}  {tally.rated:5}  {point.version}",
        soft_wrap=True,
    )


def print_trial(elapsed_s: float, transition: policy_pb2.PolicyTransition) -> None:
    """What users say of a version on trial, once that is decided."""
    before, after = getattr(transition, "from"), transition.to
    if before == policy_pb2.POLICY_STATE_CANARY or after == policy_pb2.POLICY_STATE_ROLLED_BACK:
        style = "green" if after == policy_pb2.POLICY_STATE_ACTIVE else "yellow"
        state = policy_pb2.PolicyState.Name(after).removeprefix("POLICY_STATE_").lower().replace("_", " ")
        out.print(
            f"{clock(elapsed_s):>6}  [{style}]{transition.version} {state}[/] [dim]{escape(transition.reason)}[/]",
            soft_wrap=True,
        )


def print_verdict(result: Result, out_dir: Path) -> None:
    points = result.points
    out.print(f"\n[bold]{result.persona}[/] {sparkline(point.mean for point in points)}")
    for title, point in (("before", result.base), ("after", points[-1])):
        out.print(f"[dim]{title:>6}:[/] {escape(_first_line(point))}")
    out.print()
    for target in result.targets:
        mark = "[green]✓ holds[/]" if target.holds else "[red]✗ fails[/]"
        value = f"[bold]{target.value:.3g}[/]{_uncertainty(result, target)}"
        out.print(f"{mark}  {target.name}: {value} (target {target.target})")
    if result.failed:
        out.print(f"[red]failed by status:[/] {dict(result.failed)}")
    out.print(f"[dim]curve in {out_dir / 'demo.png'}, figures in {out_dir / 'demo.json'}[/]")


def save(result: Result, out_dir: Path) -> None:
    """demo.json and demo.png."""
    from console.demo_plot import plot

    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "demo.json").write_text(json.dumps(as_json(result), indent=2) + "\n")
    plot(result, out_dir / "demo.png")


def as_json(result: Result) -> dict[str, object]:
    """The form of every bench of Foldback: machine, command, rows, targets."""
    return {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "command": " ".join(["foldback", *sys.argv[1:]]),
        "persona": result.persona,
        "rows": [asdict(point) for point in result.points],
        "swaps": [{"elapsed_s": elapsed_s, "version": version} for elapsed_s, version in result.swaps],
        "served": result.tally.served,
        "rankings": result.tally.rankings,
        "thumbs": result.tally.thumbs,
        "abstained": result.tally.abstained,
        "failed": dict(result.failed),
        "rise_standard_error": result.rise_error,
        "headroom": result.headroom,
        "targets": [asdict(target) for target in result.targets],
    }


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def _uncertainty(result: Result, target: Target) -> str:
    return f" ± {result.rise_error:.2f}" if target.name.startswith("rise") else ""


def _first_line(point: Point) -> str:
    text = " ".join(point.example.split())
    return text if len(text) <= EXAMPLE_WIDTH else text[: EXAMPLE_WIDTH - 1] + "…"
