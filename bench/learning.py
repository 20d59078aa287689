"""How well and how fast it learns: personas × seeds × arms, each run a whole Foldback on real parts.

A run is `foldback demo --full`: simulated users with one taste ask, rate and rank through the public API for fifteen
minutes, and utility is measured on questions that they never ask. Arms add label noise or hostile users, or take the
reward model's conservatism away. All runs together take hours; each is kept in --work as it ends, so that the bench
goes on where it was stopped, and more personas or seeds add to what is there.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from harness.learning_plot import plot
from harness.learning_run import ARMS, Run, result
from harness.processes import ROOT
from harness.report import Report, arguments

from console.personas import PERSONAS

Found = dict[str, Any]


def row(run: Run, found: Found) -> dict[str, str | float | int]:
    points = found["rows"]
    first, last = points[0], points[-1]
    rise = {target["name"]: target["value"] for target in found["targets"]}["rise in standard deviations"]
    return {
        "persona": run.persona,
        "arm": run.arm,
        "seed": run.seed,
        "minutes": last["elapsed_s"] / 60,
        "judgements": last["rated"],
        "rise σ": rise,
        "± s.e.": found["rise_standard_error"],
        "of": found["headroom"],
        "swaps": len(found["swaps"]),
        "failed": sum(found["failed"].values()),
        "KL nats": found["policy"].get("gate_kl_nats", 0.0),
        "entropy": found["policy"].get("gate_entropy_nats", float("nan")),
        "words": last["words"],
        "distinct-2": last["distinct_2"] / first["distinct_2"],
        "perplexity": found["policy"]["perplexity_ratio"],
    }


def report(rows: list[dict[str, Any]]) -> Report:
    """The issue's targets, for as much as was run: medians over seeds."""
    summary = Report(
        "Learning: one row a run; 'of' is the rise at which every answer is all that the persona could wish for; "
        "distinct-2 and perplexity are ratios to the base policy's",
        rows,
    )
    cells: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for each in rows:
        cells[each["persona"], each["arm"]].append(each)
    for (persona, arm), runs in cells.items():
        rise = median(run["rise σ"] for run in runs)
        clean = cells.get((persona, "clean"))
        if arm == "clean":
            most = median(run["of"] for run in runs)
            summary.target(
                f"{persona}: rise in deviations, of {most:.1f} there are, {len(runs)} seeds", rise, at_least=2.0
            )
            summary.target(f"{persona}: KL nats a response", median(run["KL nats"] for run in runs), at_most=15.0)
            off = median(abs(run["distinct-2"] - 1) for run in runs)
            summary.target(f"{persona}: distinct-2, change", off, at_most=0.2)
            summary.target(f"{persona}: perplexity ratio", median(run["perplexity"] for run in runs), at_most=1.15)
            summary.target(f"{persona}: failed requests", sum(run["failed"] for run in runs), at_most=0)
        elif arm == "noise 20 %" and clean:
            kept = rise / median(run["rise σ"] for run in clean)
            summary.target(f"{persona}: share of the gain kept under 20 % noise", kept, at_least=2 / 3)
        elif arm == "hostile 5 %" and (friendly := cells.get((persona, "friendly 20"))):
            lost = median(run["rise σ"] for run in friendly) - rise
            errors = [run["± s.e."] for run in (*runs, *friendly)]
            noise = 2 * (2 * median(errors) ** 2) ** 0.5
            summary.target(f"{persona}: deviations lost to hostile users", lost, at_most=noise)
    return summary


def options() -> argparse.Namespace:
    parser = arguments(__doc__)
    parser.add_argument("--personas", nargs="+", choices=PERSONAS, default=list(PERSONAS), metavar="NAME")
    parser.add_argument(
        "--arms", nargs="+", choices=ARMS, default=list(ARMS), metavar="ARM", help=", ".join(ARMS).replace("%", "%%")
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="N")
    parser.add_argument("--minutes", type=float, default=15.0, help="of each run")
    parser.add_argument("--work", type=Path, default=ROOT / ".foldback/bench/learning", help="where runs are kept")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.personas, chosen.arms, chosen.seeds = chosen.personas[:1], chosen.arms[:1], chosen.seeds[:1]
        chosen.minutes = min(chosen.minutes, 6.0)
    return chosen


def main() -> None:
    chosen = options()
    # Seeds outermost: stopped early, the bench has compared all arms with as many seeds each.
    runs = [
        Run(persona, arm, seed, chosen.minutes)
        for seed in chosen.seeds
        for persona in chosen.personas
        for arm in chosen.arms
    ]
    found: dict[Run, Found] = {}
    for number, run in enumerate(runs, 1):
        print(f"{number} of {len(runs)}: {run.name}", flush=True)
        found[run] = result(run, chosen.work)
    report([row(run, each) for run, each in found.items()]).finish(chosen)
    if chosen.plot:
        plot(found, chosen.plot)


if __name__ == "__main__":
    main()
